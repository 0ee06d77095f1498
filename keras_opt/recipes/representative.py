"""Representative inputs for int8 export, from a folder of images or a NumPy file."""

import os
import zipfile
import zlib
from pathlib import Path

import numpy as np

from keras_opt.core.errors import InputError
from keras_opt.data.folder_index import IMAGE_SUFFIXES
from keras_opt.data.image_files import decode_files

MOST_IMAGES = 200


def representative_rows(source: str | os.PathLike, input_shape: tuple[int | None, ...]) -> np.ndarray:
    """Raw inputs of a model, at most 200, spread evenly over what is there.

    Args:
        source: A folder with images (in sub-folders too), or a `.npy` or `.npz` file; of an `.npz` the array `x`, or
            its only one.
        input_shape: The model's, batch first.

    Raises:
        ValueError: `source` is missing, empty or damaged, or fits no such input.
    """
    source = Path(source)
    if not source.exists():
        raise InputError(
            f"Representative data {str(source)!r} does not exist. Give a folder of images or an .npz file."
        )
    return _from_folder(source, input_shape) if source.is_dir() else _from_file(source)


def _from_folder(folder: Path, input_shape: tuple[int | None, ...]) -> np.ndarray:
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise InputError(f"Representative folder {str(folder)!r} holds no images. Give one with JPEG, PNG, BMP or GIF.")
    if len(input_shape) != 4 or input_shape[3] not in (1, 3):
        raise InputError(
            f"The model takes inputs of shape {input_shape[1:]}, no images. Give --representative an .npz file."
        )
    chosen = [paths[position] for position in np.unique(np.linspace(0, len(paths) - 1, MOST_IMAGES, dtype=int))]
    return decode_files(chosen, input_shape[1:3], input_shape[3]).images


def _from_file(file: Path) -> np.ndarray:
    try:
        loaded = np.load(file, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            return loaded[_name_of_inputs(file, loaded.files)]
    except InputError:
        raise
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(
            f"Representative data {str(file)!r} is neither a folder nor a NumPy file ({error}). "
            "Give a folder of images or an .npz file of raw inputs."
        ) from error


def _name_of_inputs(file: Path, names: list[str]) -> str:
    if "x" in names:
        return "x"
    if len(names) == 1:
        return names[0]
    raise InputError(f"Representative file {str(file)!r} holds the arrays {', '.join(names)}. Name the inputs `x`.")
