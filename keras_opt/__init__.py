"""keras_opt: train Keras 3 models faster, stop them at the right moment, ship them smaller.

Subpackages load on first use; `import keras_opt` alone loads neither Keras nor TensorFlow.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keras_opt import callbacks as callbacks
    from keras_opt import compression as compression
    from keras_opt import data as data
    from keras_opt import distribute as distribute
    from keras_opt import ensemble as ensemble
    from keras_opt import export as export
    from keras_opt import layers as layers
    from keras_opt import models as models
    from keras_opt import recipes as recipes
    from keras_opt import report as report
    from keras_opt import schedules as schedules
    from keras_opt import training as training
    from keras_opt import tuning as tuning
    from keras_opt.loading import load_model as load_model

__version__ = "0.1.0"

_SUBPACKAGES = (
    "callbacks",
    "compression",
    "data",
    "distribute",
    "ensemble",
    "export",
    "layers",
    "models",
    "recipes",
    "report",
    "schedules",
    "training",
    "tuning",
)


def __getattr__(name: str) -> Any:
    if name in _SUBPACKAGES:
        return importlib.import_module(f"keras_opt.{name}")
    if name == "load_model":
        return importlib.import_module("keras_opt.loading").load_model
    raise AttributeError(f"module 'keras_opt' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*_SUBPACKAGES, "load_model", "__version__"])
