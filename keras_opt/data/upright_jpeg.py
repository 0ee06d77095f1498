"""Which files TensorFlow's JPEG decoder reads as they are meant to be seen."""

from PIL import Image

_EXIF_ORIENTATION = 0x0112
_FORMATS = ("JPEG", "MPO")  # MPO: JPEGs one after the other, of which the first counts


def upright_jpeg_size(image: Image.Image) -> tuple[int, int] | None:
    """(height, width) of a grey or RGB JPEG whose pixels stand upright; `None` of any other image.

    Args:
        image: An opened file; only its header is read.

    Raises:
        Exception: Of any type; Pillow answers a damaged EXIF block with whatever it trips over.
    """
    if image.format not in _FORMATS or image.mode not in ("RGB", "L"):
        return None
    if image.getexif().get(_EXIF_ORIENTATION, 1) != 1:
        return None
    return image.height, image.width
