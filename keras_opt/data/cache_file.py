"""The decoded images of a folder in a named file, which other processes find again."""

import hashlib
import math
import os
import shutil
import warnings
import weakref
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL
import tensorflow as tf

from keras_opt.core.call_stack import users_stacklevel
from keras_opt.core.errors import InputError
from keras_opt.core.files import atomic_path

_MAGIC = b"keras_opt images 1\n"
_HEADER_BYTES = 128


class CacheFile:
    """Rows of uint8 images in a file, each with a checksum, so that only whole rows are ever given back.

    The file belongs to these `paths` as they are now (names, sizes, times of change) and to these pixels (`recipe`);
    a file of others is begun anew, with a warning. Rows may be written at any time, by several processes at once: all
    write the same.

    Args:
        file: Where it is or will be; the folder must exist.
        paths: The image files; a row each.
        shape: (height, width, channels) of a row.
        recipe: Names the decoder.

    Raises:
        InputError: `file` is something else, or does not fit on its disk.
        OSError: The file cannot be written, or one of `paths` is gone.
    """

    def __init__(self, file: Path, paths: Sequence[Path], shape: tuple[int, int, int], recipe: str):
        count = len(paths)
        header = (_MAGIC + _fingerprint(paths, shape, recipe).encode()).ljust(_HEADER_BYTES, b"\n")
        pixels_at = _HEADER_BYTES + 4 * count
        size_bytes = pixels_at + count * math.prod(shape)
        is_ours = _is_ours(file)
        if not is_ours or _head(file) != header or file.stat().st_size != size_bytes:
            if is_ours:
                warnings.warn(
                    f"image_folder: cache '{file}' is begun anew: it was made of other files (or other versions of "
                    "them), with another image size, colour mode or `decode`, or by another Pillow or TensorFlow. Give "
                    "each setting a cache of its own.",
                    stacklevel=users_stacklevel(),
                )
            _create(file, header, size_bytes)
        self._checksums = np.memmap(file, "<u4", "r+", _HEADER_BYTES, (count,))
        self._pixels = np.memmap(file, np.uint8, "r+", pixels_at, (count, *shape))
        self._pixels_at = pixels_at
        self._descriptor = None
        if hasattr(os, "pwrite"):
            self._descriptor = os.open(file, os.O_RDWR)
            weakref.finalize(self, os.close, self._descriptor)

    @property
    def rows(self) -> np.ndarray:
        """All rows; only what `holds` or `put` is an image."""
        return self._pixels

    def holds(self, position: int) -> bool:
        """Whether the row is there, whole."""
        stored = self._checksums[position]
        return stored != 0 and stored == _checksum(self._pixels[position])

    def put(self, position: int, image: np.ndarray) -> None:
        """Write a row: first its pixels, then the checksum that makes it count."""
        if not self._is_written(position, image):
            self._pixels[position] = image
        self._checksums[position] = _checksum(image)

    def _is_written(self, position, image):
        """Try to write in one call: a fifth of the time that the map takes for pages that it has not seen."""
        if self._descriptor is None:
            return False
        place = self._pixels_at + int(position) * image.nbytes
        return os.pwrite(self._descriptor, image, place) == image.nbytes


def _checksum(image):
    return zlib.crc32(image) or 1  # 0 stands for nothing


def _fingerprint(paths, shape, recipe):
    digest = hashlib.sha256(f"{shape} {recipe} Pillow {PIL.__version__} TensorFlow {tf.__version__}".encode())
    for path in paths:
        facts = path.stat()
        digest.update(os.fsencode(os.path.abspath(path)))  # names may be no UTF-8
        digest.update(f" {facts.st_size} {facts.st_mtime_ns} {facts.st_ctime_ns}\n".encode())
    return digest.hexdigest()


def _is_ours(file):
    """Whether there is a cache file; anything else in its place is not overwritten."""
    if not file.exists():
        return False
    if file.is_file() and _head(file).startswith(_MAGIC):
        return True
    raise InputError(
        f"image_folder: cache '{file}' exists and is no cache of keras_opt. Give the name of a file that may be made."
    )


def _head(file):
    with file.open("rb") as opened:
        return opened.read(_HEADER_BYTES)


def _create(file, header, size_bytes):
    free_bytes = shutil.disk_usage(file.parent).free
    if size_bytes > free_bytes:
        raise InputError(
            f"image_folder: cache '{file}' needs {size_bytes / 1e9:.1f} GB, but its disk has {free_bytes / 1e9:.1f} GB "
            "free. Give a file on another disk, a smaller image size, or cache=None."
        )
    with atomic_path(file) as temporary, temporary.open("rb+") as opened:
        opened.write(header)
        opened.flush()
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(opened.fileno(), 0, size_bytes)  # a full disk is an error now, and no crash later
        opened.truncate(size_bytes)
