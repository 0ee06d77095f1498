"""Loading of any model that keras_opt or Keras saved."""

import importlib
import os
import zipfile
import zlib

import keras

from keras_opt.core.errors import InputError
from keras_opt.models.labelled_file import read_class_names

# The rooms that register classes with Keras; Keras 3 imports no foreign module by itself when it loads a file.
_ROOMS_WITH_CLASSES = ("layers", "schedules", "callbacks", "compression", "ensemble")

# What Keras, h5py and the zip reader raise for a file that is damaged or holds an unknown class.
_LOAD_ERRORS = (ValueError, TypeError, KeyError, AttributeError, OSError, zipfile.BadZipFile, zlib.error)


def load_model(path: str | os.PathLike, compile: bool = True) -> keras.Model:
    """Loads a `.keras` file, with every class of keras_opt known to Keras beforehand.

    Models that keras_opt hands out as `model.keras` open with `keras.models.load_model` too; this one also opens files
    that were saved while compiled with a keras_opt schedule, and brings the class names.

    Args:
        path: A `.keras` file.
        compile: Whether to restore the optimizer, loss and metrics.

    Returns:
        The model; `model.class_names` is a tuple of strings, empty where the file carries none.

    Raises:
        ValueError: The file is missing or is no `.keras` file.
    """
    class_names = read_class_names(path)
    for room in _ROOMS_WITH_CLASSES:
        importlib.import_module(f"keras_opt.{room}")
    try:
        model = keras.models.load_model(path, compile=compile)
    except _LOAD_ERRORS as error:
        first_line = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(
            f"{str(path)!r} cannot be loaded ({first_line}). If it holds classes of your own, import "
            "their module first; if it was damaged, save it again."
        ) from error
    model.class_names = class_names
    return model
