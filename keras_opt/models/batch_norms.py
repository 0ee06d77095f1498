"""The BatchNormalization layers of a model."""

import warnings

import keras

from keras_opt.core.all_layers import all_layers
from keras_opt.core.errors import NoEffectWarning, argument_error


def norms_in(model: keras.Layer) -> list[keras.layers.BatchNormalization]:
    """Each BatchNormalization in `model`, inside of nested models and wrappers too."""
    return [layer for layer in all_layers(model) if isinstance(layer, keras.layers.BatchNormalization)]


def batch_norms(owner: str, model: keras.Model) -> list[keras.layers.BatchNormalization]:
    """As `norms_in`, for the public function `owner`, in whose name it warns if there is none.

    Raises:
        ValueError: `model` is no Keras model or layer.
    """
    if not isinstance(model, keras.Layer):
        raise argument_error(owner, "model", model, "a Keras model", "Load or build one with keras.")
    norms = norms_in(model)
    if not norms:
        warnings.warn(
            f"{owner}: none of the {len(all_layers(model))} layers of model {model.name!r} is a BatchNormalization.",
            NoEffectWarning,
            stacklevel=3,
        )
    return norms


def trace_anew(model: keras.Model) -> None:
    """Let a compiled model trace its steps anew, in which a changed setting of a layer takes effect; in `fit` too."""
    if isinstance(model, keras.Model):
        if model.train_function is not None:
            model.make_train_function(force=True)
        if model.test_function is not None:
            model.make_test_function(force=True)
        if model.predict_function is not None:  # some layers drop or normalise by the batch there too
            model.make_predict_function(force=True)
