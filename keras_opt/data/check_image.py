"""Whether a file is a whole image, told from its two ends."""

import os

from PIL import Image

from keras_opt.data.decode import decode_image
from keras_opt.data.upright_jpeg import upright_jpeg_size

# What the last bytes of a whole file hold, by Pillow's name of its format.
_ENDS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND"}
_TAIL_BYTES = 1024
_KNOWN_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I;16B")


def check_image(path: str | os.PathLike) -> tuple[int, int] | None:
    """Raise unless the file begins as an image and ends as one of its kind does.

    Any but a JPEG or PNG that looks whole and has pixels of a known range is decoded to decide. A JPEG or PNG that is
    damaged in the middle only is found when its pixels are read.

    Args:
        path: The image file.

    Returns:
        Its `upright_jpeg_size`.

    Raises:
        OSError: The file cannot be opened, is truncated or damaged.
        ValueError: The file is no image, or one that cannot be decoded.

    Cost: about 1/20 of decoding a photograph.
    """
    looks_whole, jpeg_size = _look(path)
    if not looks_whole:
        decode_image(path, (1, 1), 3)
    return jpeg_size


def _look(path):
    """Whether the two ends are those of an image, and its size if it is an upright JPEG."""
    try:
        with open(path, "rb") as file, Image.open(file) as image:
            if image.format not in _ENDS or image.mode not in _KNOWN_MODES:
                return False, None
            jpeg_size = upright_jpeg_size(image)
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            return _ENDS[image.format] in file.read(), jpeg_size
    except Exception:  # as in decode_image, which is asked next: Pillow answers damaged bytes with errors of any type
        return False, None
