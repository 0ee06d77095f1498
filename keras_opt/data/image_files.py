"""Many image files as one uint8 array, with a list of those that cannot be read."""

import itertools
import math
import os
import shutil
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from keras_opt.core.errors import InputError, argument_error, check_choice, check_fraction
from keras_opt.core.progress import Progress
from keras_opt.data.check_image import check_image
from keras_opt.data.decode import decode_image

MEMORY_LIMIT_BYTES = 2 * 1024**3
LISTED_FILES = 10
_CHUNK = 16


@dataclass(frozen=True)
class SkippedFile:
    """A file that could not be decoded, and why."""

    path: Path
    reason: str

    def __str__(self) -> str:
        return f"{self.path} ({self.reason})"


@dataclass(frozen=True, eq=False)
class DecodedImages:
    """The images that could be read, in the order of the paths, and the files that could not."""

    images: np.ndarray
    """uint8 of shape (n, height, width, channels)."""
    kept: np.ndarray
    """int64 of shape (n,): the position in the paths of each image."""
    skipped: tuple[SkippedFile, ...]


def decode_files(
    paths: Sequence[Path],
    image_size: tuple[int, int],
    channels: int,
    *,
    on_error: Literal["skip", "raise"] = "skip",
    max_bad_fraction: float = 0.1,
    progress: Progress | None = None,
) -> DecodedImages:
    """Decode files in parallel threads (Pillow gives up the interpreter lock) into one array.

    Above `MEMORY_LIMIT_BYTES` the array lives in a temporary file that goes away with it (`numpy.memmap`; `TMPDIR`
    says where), so that a folder larger than memory can be trained on.

    Args:
        paths: The files.
        image_size: (height, width) in pixels.
        channels: 3 for RGB, 1 for greyscale.
        on_error: `"skip"` leaves out the files that cannot be decoded and lists them in `skipped`; `"raise"` stops at
            the first.
        max_bad_fraction: The fraction in [0, 1] of files that may be skipped.
        progress: Shows the stage "decode"; quiet by default.

    Raises:
        InputError: A file cannot be decoded and `on_error` is `"raise"`, more files than `max_bad_fraction` cannot, or
            the temporary file does not fit on its disk.

    Cost: one pass over the files, n * height * width * channels bytes of memory or of disk.
    """
    check_choice("decode_files", "on_error", on_error, ("skip", "raise"))
    check_fraction("decode_files", "max_bad_fraction", max_bad_fraction, one_allowed=True)
    if channels not in (1, 3):
        raise argument_error("decode_files", "channels", channels, "1 or 3", "Give 1 for greyscale, 3 for RGB.")
    images = empty_images((len(paths), *image_size, channels))

    def decode(position):
        images[position] = decode_image(paths[position], image_size, channels)

    kept, skipped, _ = _readable(paths, decode, "decode", on_error, max_bad_fraction, progress)
    for target, position in enumerate(kept):  # close the gaps in place: no second array
        if target != position:
            images[target] = images[position]
    return DecodedImages(images[: len(kept)], kept, skipped)


def check_files(
    paths: Sequence[Path],
    *,
    on_error: Literal["skip", "raise"] = "skip",
    max_bad_fraction: float = 0.1,
    progress: Progress | None = None,
) -> tuple[np.ndarray, tuple[SkippedFile, ...], list[tuple[int, int] | None]]:
    """Look at the begin and the end of each file and tell the damaged ones; see `check_image`.

    In one thread: a look is a few small reads between Python, for which threads would wait for each other.

    Returns:
        The positions in `paths` of the good files, the others, and the `upright_jpeg_size` of each good one.

    Raises:
        InputError: As for `decode_files`.

    Cost: one opening of each file, about 1/20 of decoding it.
    """
    return _readable(
        paths, lambda position: check_image(paths[position]), "check", on_error, max_bad_fraction, progress, threads=1
    )


def check_bad_fraction(skipped: Sequence[SkippedFile], total: int, max_bad_fraction: float = 0.1) -> None:
    """Raise if more than `max_bad_fraction` of `total` files are bad."""
    if len(skipped) <= max_bad_fraction * total:
        return
    listed = "; ".join(str(file) for file in skipped[:LISTED_FILES])
    more = f"; and {len(skipped) - LISTED_FILES} more" if len(skipped) > LISTED_FILES else ""
    raise InputError(
        f"{len(skipped)} of {total} images cannot be read, more than the {max_bad_fraction:.0%} that may be skipped: "
        f"{listed}{more}. Replace or remove these files."
    )


def unreadable(file: SkippedFile) -> InputError:
    """The error that stops at one bad file."""
    return InputError(f"Cannot read image {file}. Replace or remove the file, or give on_error='skip'.")


def empty_images(shape: tuple[int, ...]) -> np.ndarray:
    """An uint8 array in memory; above `MEMORY_LIMIT_BYTES` in a temporary file, which goes away with it.

    Raises:
        InputError: The file does not fit on its disk.
    """
    size_bytes = math.prod(shape)
    if size_bytes <= MEMORY_LIMIT_BYTES:
        return np.empty(shape, np.uint8)
    free_bytes = shutil.disk_usage(tempfile.gettempdir()).free
    if size_bytes > free_bytes:
        raise InputError(
            f"{shape[0]} images of {shape[1]}x{shape[2]}x{shape[3]} need {size_bytes / 1e9:.1f} GB, but "
            f"'{tempfile.gettempdir()}' has {free_bytes / 1e9:.1f} GB free. "
            "Set TMPDIR to a folder with more space, or give a smaller image size."
        )
    with tempfile.TemporaryFile() as file:  # has no name any more: the space is freed with the array
        return np.memmap(file, np.uint8, "w+", shape=shape)


def _readable(paths, read, what, on_error, max_bad_fraction, progress, threads=None):
    """Call `read(position)` for every file; the positions where it succeeded, the other files, and the results."""
    kept, skipped, results = [], [], []

    def attempt(position):
        try:
            return read(position)
        except (OSError, ValueError) as error:
            return SkippedFile(Path(paths[position]), str(error))

    def attempt_all(positions):
        return [attempt(position) for position in positions]

    pool = ThreadPoolExecutor(threads or os.cpu_count(), thread_name_prefix=what)
    try:
        with (progress or Progress(quiet=True)).stage(what, total=len(paths)) as stage:
            # In chunks: a task of its own for each file would cost as much as a look at it.
            chunks = [range(len(paths))[start : start + _CHUNK] for start in range(0, len(paths), _CHUNK)]
            for position, result in enumerate(itertools.chain.from_iterable(pool.map(attempt_all, chunks))):
                if not isinstance(result, SkippedFile):
                    kept.append(position)
                    results.append(result)
                elif on_error == "raise":
                    raise unreadable(result)
                else:
                    skipped.append(result)
                stage.advance(note=f"{len(skipped)} skipped" if skipped else None)
    finally:
        pool.shutdown(cancel_futures=True)
    check_bad_fraction(skipped, len(paths), max_bad_fraction)
    return np.array(kept, dtype=np.int64), tuple(skipped), results
