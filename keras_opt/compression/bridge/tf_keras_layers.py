"""A layer of Keras 3 rebuilt as the layer of tf_keras that does the same."""

import contextlib
import functools
import inspect
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_opt.compression.bridge.tf_keras_import import tf_keras
from keras_opt.core.errors import InputError

# What both sides call by the same name and compute by the same formula; tf_keras's hard_sigmoid is another function.
_SAME_ACTIVATIONS = (
    "elu", "exponential", "gelu", "linear", "mish", "relu", "selu", "sigmoid", "softmax", "softplus", "softsign",
    "tanh",
)  # fmt: skip
_RENAMED_ACTIVATIONS = {"silu": "swish", "swish": "swish"}
_RENAMED_OPTIONS = {"LeakyReLU": {"negative_slope": "alpha"}}
# The attribute that holds what a wrapper's config has under this key.
_WRAPPED = {"layer": "layer", "backward_layer": "backward_layer", "cell": "cell", "cells": "cells"}
# Tables of texts, functions of Python, and what fails in tf_keras itself.
_REFUSED = (
    "Hashing", "HashedCrossing", "IntegerLookup", "Lambda", "SpectralNormalization", "StringLookup",
    "TextVectorization",
)  # fmt: skip
_DROPPED_OPTIONS = ("build_config", "seed")
_TAKEN_BY_EVERY_RNN = {"zero_output_for_mask"}  # without standing in a signature


def rebuilt(layer: keras.Layer) -> Any:
    """A tf_keras layer of the same name and options, without weights yet.

    Raises:
        InputError: tf_keras has no such layer, or not with these options; the message names the layer.
    """
    kind = type(layer).__name__
    twin = getattr(tf_keras().layers, kind, None)
    if getattr(keras.layers, kind, None) is not type(layer):
        raise refusal(layer, "is a class of its own, which tf_keras has not")
    if twin is None or kind in _REFUSED:
        raise refusal(layer, "is none that tf_keras can have")
    if getattr(layer, "stateful", False):
        raise refusal(layer, "is stateful")
    config = {**layer.get_config(), **_statistics(layer)}
    options = _options(layer, twin, config)
    with refused_by_tf_keras(layer.name, kind):
        return twin(**options)


def refusal(layer: keras.Layer, reason: str) -> InputError:
    """The error that a layer cannot be carried over."""
    return refusal_of(layer.name, type(layer).__name__, reason)


def refusal_of(name: str, kind: str, reason: str) -> InputError:
    """The same for a layer or an operation that is known by its name and its class's."""
    return InputError(
        f"to_tf_keras: `{name}` ({kind}) {reason}. Use what works on Keras 3 itself (PruneLowMagnitude, "
        "quantize_aware), or change the model."
    )


@contextlib.contextmanager
def refused_by_tf_keras(name: str, kind: str) -> Iterator[None]:
    """Name a layer or an operation in whatever tf_keras raises while the block runs."""
    try:
        yield
    except (TypeError, ValueError, AttributeError, NotImplementedError, RuntimeError) as error:
        lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        raise refusal_of(name, kind, f"is refused by tf_keras ({lines[0]})") from error


def activation_of(layer: keras.Layer, value: Any) -> Any:
    """The activation that a config of Keras 3 names, for tf_keras: a name, or Keras 3's own function."""
    if isinstance(value, dict):
        raise refusal(layer, "has an activation that is none of keras.activations")
    if value is None or value in _SAME_ACTIVATIONS:
        return value
    return _RENAMED_ACTIVATIONS.get(value) or _registered(keras.activations.get(value))


@functools.cache
def _registered(function: Any) -> Any:
    """A function of Keras 3, which works on tensors alone, known to tf_keras by name, so that its layers clone."""
    return tf_keras().utils.register_keras_serializable("keras_opt")(function)


def _options(layer: keras.Layer, twin: type, config: dict[str, Any]) -> dict[str, Any]:
    known = _parameters(twin) | (_TAKEN_BY_EVERY_RNN if issubclass(twin, tf_keras().layers.RNN) else set())
    renamed = _RENAMED_OPTIONS.get(type(layer).__name__, {})
    options = {}
    for key, value in config.items():
        if key.endswith("_initializer") or key in _DROPPED_OPTIONS:  # the weights are copied
            continue
        if key == "dtype":
            options[key] = _policy(layer)
        elif renamed.get(key, key) in known:
            options[renamed.get(key, key)] = _value(layer, key, value)
        elif not _is_default(layer, key, value):
            raise refusal(layer, f"has {key}={value!r}, an option that tf_keras has not")
    return options


def _value(layer: keras.Layer, key: str, value: Any) -> Any:
    if key in _WRAPPED and value is not None:
        return _wrapped(layer, key)
    if key.endswith("activation"):
        return activation_of(layer, value)
    if key.endswith(("_regularizer", "_constraint")) and value is not None:
        return _of_training(layer, key, value)
    if isinstance(value, dict) and "class_name" in value:
        raise refusal(layer, f"has {key}={value['class_name']}, which is not carried over")
    return value


def _wrapped(layer: keras.Layer, key: str) -> Any:
    is_forward = key == "layer" and isinstance(layer, keras.layers.Bidirectional)
    inner = getattr(layer, "forward_layer" if is_forward else _WRAPPED[key])
    if any(isinstance(each, keras.Model) for each in (inner if isinstance(inner, list) else [inner])):
        raise refusal(layer, "wraps a model")
    return [rebuilt(each) for each in inner] if isinstance(inner, list) else rebuilt(inner)


def _of_training(layer: keras.Layer, key: str, value: Any) -> Any:
    """A regularizer or a constraint."""
    module = "regularizers" if key.endswith("_regularizer") else "constraints"
    name = value.get("class_name") if isinstance(value, dict) else None
    twin = getattr(getattr(tf_keras(), module), name or "", None)
    if twin is None or value.get("module") != f"keras.{module}":
        raise refusal(layer, f"has a {key} that tf_keras has not ({name or value!r})")
    return twin(**value["config"])


def _statistics(layer: keras.Layer) -> dict[str, Any]:
    """An adapted Normalization has its statistics as weights; in tf_keras they are given as constants."""
    if not isinstance(layer, keras.layers.Normalization) or not layer.weights:
        return {}
    shape = tuple(layer.weights[0].shape)
    constants = {"mean": layer.mean, "variance": layer.variance}
    return {name: np.reshape(keras.ops.convert_to_numpy(value), shape) for name, value in constants.items()}


def _policy(layer: keras.Layer) -> str:
    policy = layer.dtype_policy
    if type(policy) is not keras.DTypePolicy:
        raise refusal(layer, f"has the dtype policy {policy.name!r}, which tf_keras has not")
    return policy.name


@functools.cache
def _parameters(twin: type) -> set[str]:
    signatures = [inspect.signature(each.__init__) for each in twin.__mro__ if "__init__" in vars(each)]
    return {name for signature in signatures for name in signature.parameters}


def _is_default(layer: keras.Layer, key: str, value: Any) -> bool:
    if key == "data_format":
        return value in (None, "channels_last")
    parameter = inspect.signature(type(layer).__init__).parameters.get(key)
    default = None if parameter is None or parameter.default is parameter.empty else parameter.default
    return value is None or value is False or value == default
