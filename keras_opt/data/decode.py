"""One image file as a uint8 array, read alike in training and on the device.

`keras-opt export` pastes this module into predict.py, so it imports NumPy and Pillow only and stands alone.
"""

import os

import numpy as np
from PIL import Image, UnidentifiedImageError

_EXIF_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode_image(path: str | os.PathLike, image_size: tuple[int, int], channels: int) -> np.ndarray:
    """Read one image, turn it upright, and resize it to `image_size`.

    Any format that Pillow reads will do; JPEG, PNG, BMP and GIF (first frame) are tested. EXIF orientation is applied
    (a damaged EXIF block without a readable one turns nothing), transparency dropped, 16-bit grey scaled to 8 bits,
    palettes, 1-bit and CMYK converted. The resize stretches to the size asked for and is bilinear with antialiasing, as
    `Image.resize` does it.

    Args:
        path: The image file.
        image_size: (height, width) in pixels.
        channels: 3 for RGB, 1 for greyscale.

    Returns:
        uint8 array of shape (height, width, channels).

    Raises:
        OSError: The file cannot be opened, is truncated or damaged.
        ValueError: The file is no image, or one that cannot be decoded.
    """
    height, width = image_size
    image = read_image(path, channels).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(height, width, channels)


def read_image(path: str | os.PathLike, channels: int) -> Image.Image:
    """Read one image in its own size, as `decode_image` does before it resizes."""
    try:
        with Image.open(path) as image:
            image = _as_8_bit(_turned_upright(image))
            image.info.pop("transparency", None)  # convert would only warn about it
            return image.convert("RGB" if channels == 3 else "L")
    except UnidentifiedImageError as error:
        raise ValueError("cannot identify image file (empty, damaged, or not an image)") from error
    except (SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(str(error)) from error
    except (OSError, ValueError, MemoryError):
        raise
    except Exception as error:
        # Pillow's parsers answer damaged bytes with whatever they trip over (struct.error, TypeError, AttributeError,
        # ...). It is the file's fault all the same: the caller gets one kind of error, to name the file and go on.
        raise ValueError(f"damaged image ({type(error).__name__}: {error})") from error


def _turned_upright(image):
    """Apply the EXIF orientation (not by `ImageOps.exif_transpose`, which fails where it cannot rewrite the block)."""
    image.load()  # first, so that damaged pixels are not taken for a damaged EXIF block
    try:
        turn = _UPRIGHT.get(image.getexif().get(_EXIF_ORIENTATION))
    except Exception:  # Pillow raises many types here, see decode_image; the pixels are whole, so they are used
        turn = None
    return image if turn is None else image.transpose(turn)


def _as_8_bit(image):
    """Scale 16-bit grey to 8 bits (convert would clip it); Pillow has it as mode I;16, I;16B or, before 11, I."""
    if image.mode == "F":
        raise ValueError("floating-point pixels have no known range; save the image with 8 or 16 bits")
    if not image.mode.startswith("I"):
        return image
    pixels = np.asarray(image).astype(np.int64)
    if pixels.min() < 0 or pixels.max() > 65535:
        raise ValueError("32-bit pixels have no known range; save the image with 8 or 16 bits")
    return Image.fromarray(((pixels + 128) // 257).astype(np.uint8))
