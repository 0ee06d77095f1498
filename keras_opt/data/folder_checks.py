"""What `image_folder` cannot do with its arguments, said before any file is read."""

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from keras_opt.core.call_stack import users_stacklevel
from keras_opt.core.errors import InputError, argument_error
from keras_opt.data.folder_index import BELOW_ITS_CLASS
from keras_opt.data.image_files import SkippedFile


def checked_size(image_size: Any) -> tuple[int, int]:
    """(height, width)."""
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    if (
        isinstance(size, tuple | list)
        and len(size) == 2
        and all(isinstance(side, int) and not isinstance(side, bool) and side >= 1 for side in size)
    ):
        return tuple(size)
    must_be = "an integer of at least 1, or a pair (height, width) of such"
    raise argument_error("image_folder", "image_size", image_size, must_be, "Give for example 224 or (160, 224).")


def check_cache(cache: Any) -> None:
    """Raise unless images can be kept there."""
    if cache is None or (isinstance(cache, str) and cache in ("auto", "memory")):
        return
    if not isinstance(cache, str | os.PathLike) or not Path(cache).parent.is_dir() or Path(cache).is_dir():
        must_be = "'auto', 'memory', None, or the path of a file in a folder that exists"
        cure = "Give None to keep nothing." if cache is False else "Give for example 'auto' or 'photos.cache'."
        raise argument_error("image_folder", "cache", cache, must_be, cure)


def check_together(
    layers: Sequence[keras.Layer], normalize: str | None, sampling: str | None, class_weight: str | None
) -> None:
    """Raise if two arguments would do one thing twice."""
    if sampling is not None and class_weight is not None:
        raise InputError(
            "image_folder: sampling='balanced' and class_weight='balanced' would even out the classes twice. "
            "Give one of them."
        )
    if normalize is not None and any(getattr(layer, "rescale", None) is not None for layer in layers):
        raise InputError(
            f"image_folder: normalize={normalize!r} is for raw pixels, but a layer of `augment` rescales them. "
            "Leave out its `rescale`, or `normalize`."
        )


def check_two_classes(label_mode: str, class_names: Sequence[str]) -> None:
    """Raise unless the labels can be 0 and 1 where they are to be so."""
    if label_mode == "binary" and len(class_names) != 2:
        must_be = f"'categorical', 'int' or 'sparse' for a folder of {len(class_names)} classes"
        raise argument_error("image_folder", "label_mode", label_mode, must_be, "'binary' is for 2 classes.")


def warn_of_files_left_out(read: int, passed_over: Sequence[SkippedFile], damaged: Sequence[SkippedFile]) -> None:
    """Warn, in the user's line, if not all files are read: how many of what kind."""
    below = sum(file.reason == BELOW_ITS_CLASS for file in passed_over)
    kinds = {"below their class": below, "of other kinds": len(passed_over) - below, "damaged": len(damaged)}
    listed = ", ".join(f"{count} {kind}" for kind, count in kinds.items() if count)
    if listed:
        left_out = len(passed_over) + len(damaged)
        warnings.warn(
            f"image_folder: {left_out} of {read + left_out} files left out: {listed}; see `.skipped`.",
            stacklevel=users_stacklevel(),
        )


def check_every_class_left(counts: Mapping[str, int], part: str) -> None:
    """Raise if all images of a class in this part are damaged."""
    for name, count in counts.items():
        if count == 0:
            raise InputError(
                f"Class '{name}' has no readable image left in the {part} set. Replace its damaged files or add images."
            )
