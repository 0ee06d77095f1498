"""The BatchNormalization layers of a model."""

import warnings

import keras

from keras_opt.core.all_layers import all_layers
from keras_opt.core.errors import NoEffectWarning, argument_error


def batch_norms(owner: str, model: keras.Model) -> list[keras.layers.BatchNormalization]:
    """Each BatchNormalization in `model`, inside of nested models and wrappers too; warns for `owner` if there is none.

    Raises:
        ValueError: `model` is no Keras model or layer.
    """
    if not isinstance(model, keras.Layer):
        raise argument_error(owner, "model", model, "a Keras model", "Load or build one with keras.")
    layers = all_layers(model)
    norms = [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]
    if not norms:
        warnings.warn(
            f"{owner}: none of the {len(layers)} layers of model {model.name!r} is a BatchNormalization.",
            NoEffectWarning,
            stacklevel=3,
        )
    return norms


def trace_anew(model: keras.Model) -> None:
    """Let the next `fit` trace its step anew, in which a changed setting of a layer takes effect."""
    if isinstance(model, keras.Model):
        model.train_function = None
