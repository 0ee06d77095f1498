"""The images of many files, each decoded when a batch first asks for it."""

import os
import threading
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np

from keras_opt.core.errors import InputError
from keras_opt.data.cache_file import CacheFile
from keras_opt.data.image_files import SkippedFile, check_bad_fraction, empty_images, unreadable

_UNREAD, _STORED, _BAD = range(3)


class ImageStore:
    """Gives batches of uint8 images by position; decodes in parallel threads what it does not hold yet.

    Args:
        paths: The files.
        shape: (height, width, channels) of every image.
        decode: From a path, (height, width) and the number of channels to the image.
        decode_jpegs: From paths, the sizes of their images, (height, width) and the number of channels to those images,
            as `decode` makes them, but sooner; `None` where any cannot be read. `None` for `decode` alone.
        jpeg_sizes: (height, width) of the files that `decode_jpegs` may be asked for, 0 for others.
        cache: `"auto"`: in memory, above 2 GiB in a temporary file. `"memory"`. A path: in that file, see `CacheFile`.
            `None`: nowhere, every epoch decodes.
        recipe: Names the pixels that `decode` makes, for the file.
        on_error: What to do about a file that turns out damaged: `"skip"` leaves it out of its batch, `"raise"` stops.
        skipped: The files left out so far; those found later are added to this list.
        damaged: Those of them that count as damaged.

    Attributes:
        shape: As given.

    Raises:
        InputError: The cache cannot be made.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        shape: tuple[int, int, int],
        decode: Callable[[Path, tuple[int, int], int], np.ndarray],
        *,
        decode_jpegs: Callable[..., np.ndarray | None] | None = None,
        jpeg_sizes: np.ndarray | None = None,
        cache: str | os.PathLike | None,
        recipe: str,
        on_error: Literal["skip", "raise"],
        skipped: list[SkippedFile],
        damaged: Sequence[SkippedFile] = (),
    ):
        self._paths = paths
        self.shape = shape
        self._decode = decode
        self._decode_jpegs = decode_jpegs
        self._jpeg_sizes = np.zeros((len(paths), 2), int) if decode_jpegs is None else jpeg_sizes
        self._on_error = on_error
        self._skipped = skipped
        self._damaged = list(damaged)
        self._lock = threading.Lock()
        self._states = np.zeros(len(paths), np.uint8)
        self._pool = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="decode")
        self._file = None
        self._rows = None
        if cache == "memory":
            self._rows = np.empty((len(paths), *shape), np.uint8)
        elif cache == "auto":
            self._rows = empty_images((len(paths), *shape))
        elif cache is not None:
            self._file = CacheFile(Path(cache), paths, shape, recipe)
            self._rows = self._file.rows

    def read(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The images at `positions`, and the positions, both without those whose file is damaged.

        Raises:
            InputError: A file is damaged and may not be skipped, too many are, or none of these is left.
        """
        states = self._states[positions]
        if (states == _STORED).all():
            return self._rows[positions], positions
        if (states == _UNREAD).all() and not self._held(positions).any() and self._are_jpegs(positions).all():
            decoded = self._read_jpegs(positions)
            if decoded is not None:  # most batches of a first epoch, without a copy
                return decoded, positions
        images = np.empty((len(positions), *self.shape), np.uint8)
        good = states == _STORED
        if good.any():
            images[good] = self._rows[positions[good]]
        unread = states == _UNREAD
        for fill in (self._fill_from_file, self._fill_with_jpegs, self._fill_one_by_one):
            rows = np.flatnonzero(unread & ~good)
            good[rows] = fill(images, rows, positions[rows])
        if not good.any():
            raise InputError(f"No image of a batch of {len(positions)} can be read. Remove {self._listed()}.")
        return (images, positions) if good.all() else (images[good], positions[good])

    # Three ways to put the images of `positions` into these `rows` of a batch; each tells which it did.

    def _fill_from_file(self, images, rows, positions):
        is_held = self._held(positions)
        if is_held.any():
            images[rows[is_held]] = self._rows[positions[is_held]]
            self._states[positions[is_held]] = _STORED
        return is_held

    def _fill_with_jpegs(self, images, rows, positions):
        are_jpegs = self._are_jpegs(positions)
        if are_jpegs.any():
            decoded = self._read_jpegs(positions[are_jpegs])
            if decoded is None:  # one of them is damaged
                return np.zeros(len(rows), bool)
            images[rows[are_jpegs]] = decoded
        return are_jpegs

    def _fill_one_by_one(self, images, rows, positions):
        def fill(row, position):
            try:
                images[row] = self._decode(self._paths[position], self.shape[:2], self.shape[2])
            except (OSError, ValueError) as error:
                self._found_damaged(position, SkippedFile(self._paths[position], str(error)))
                return False
            self._keep(position, images[row])
            return True

        return list(self._pool.map(fill, rows, positions))

    def _held(self, positions):
        return np.array([self._file is not None and self._file.holds(position) for position in positions], bool)

    def _are_jpegs(self, positions):
        return self._jpeg_sizes[positions, 0] > 0

    def _read_jpegs(self, positions):
        paths = [self._paths[position] for position in positions]
        decoded = self._decode_jpegs(paths, self._jpeg_sizes[positions], self.shape[:2], self.shape[2])
        if decoded is not None:
            for position, image in zip(positions, decoded, strict=True):
                self._keep(position, image)
        return decoded

    def _keep(self, position, image):
        if self._rows is None:
            return
        if self._file is None:
            self._rows[position] = image
        else:
            self._file.put(position, image)
        self._states[position] = _STORED

    def _found_damaged(self, position, file):
        if self._on_error == "raise":
            raise unreadable(file)
        with self._lock:
            if self._states[position] == _BAD:
                return
            self._states[position] = _BAD
            self._damaged.append(file)
            self._skipped.append(file)
            check_bad_fraction(self._damaged, len(self._paths))
        warnings.warn(f"image_folder: left out the damaged image {file}.", stacklevel=1)

    def _listed(self):
        return "; ".join(str(file) for file in self._damaged)
