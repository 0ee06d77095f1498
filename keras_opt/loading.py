"""Loading of any model that keras_opt or Keras saved."""

import importlib
import os
import zipfile
import zlib
from pathlib import Path

import keras

from keras_opt.core.errors import InputError
from keras_opt.models.labelled_file import read_class_names
from keras_opt.models.legacy_h5 import SUFFIXES, load_h5

# The rooms that register classes with Keras; Keras 3 imports no foreign module by itself when it loads a file.
_ROOMS_WITH_CLASSES = ("layers", "schedules", "callbacks", "compression", "ensemble")

# What Keras, h5py and the zip reader raise for a file that is damaged or holds an unknown class.
_LOAD_ERRORS = (ValueError, TypeError, KeyError, AttributeError, OSError, RuntimeError, zipfile.BadZipFile, zlib.error)


def load_model(path: str | os.PathLike, compile: bool = True) -> keras.Model:
    """Loads a `.keras` file, or an old `.h5` one, with every class of keras_opt known to Keras beforehand.

    Models that keras_opt hands out as `model.keras` open with `keras.models.load_model` too; this one also opens files
    that were saved while compiled with a keras_opt schedule, and brings the class names. Of `.h5` files it opens those
    of TensorFlow 2.x whose configs hold keys that Keras 3 refuses, such as the `groups` of a DepthwiseConv2D.

    Args:
        path: A `.keras` file, or an `.h5` (`.hdf5`) file that holds a whole model.
        compile: Whether to restore the optimizer, loss and metrics. Keras 3 cannot read those of every old file: give
            `False` and compile it anew.

    Returns:
        The model; `model.class_names` is a tuple of strings, empty where the file carries none.

    Raises:
        ValueError: The file is missing, is neither, or holds what Keras 3 does not have; it is named.
    """
    old = Path(path).suffix.lower() in SUFFIXES and Path(path).is_file()
    class_names = () if old else read_class_names(path)
    for room in _ROOMS_WITH_CLASSES:
        importlib.import_module(f"keras_opt.{room}")
    try:
        model = load_h5(path, compile) if old else keras.models.load_model(path, compile=compile)
    except InputError:
        raise
    except _LOAD_ERRORS as error:
        reason = _reason(error)
        raise InputError(
            f"{str(path)!r} cannot be loaded ({reason}). If it holds classes of your own, import "
            "their module first; if it was damaged, save it again."
        ) from error
    model.class_names = class_names or getattr(model, "class_names", ())  # a PredictionEnsemble has its own
    return model


def _reason(error):
    """The first line of an error, or what Keras puts behind it: where it prints whole configs, the cause comes last."""
    lines = str(error).splitlines() or [type(error).__name__]
    causes = [line.partition("Exception encountered: ")[2] for line in lines]
    return next((cause for cause in reversed(causes) if cause), lines[0])
