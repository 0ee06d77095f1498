"""The weights of one layer, from Keras 3 to tf_keras and back."""

from typing import Any

import keras

from keras_opt.compression.bridge.tf_keras_layers import refusal
from keras_opt.core.set_weights import set_weights


def copy_weights(layer: keras.Layer, twin: Any) -> None:
    """Give the tf_keras layer `twin` the weights of `layer`."""
    for source, target in pairs(layer, twin.weights):
        target.assign(keras.ops.convert_to_numpy(source))


def copy_back(layer: keras.Layer, variables: list[Any]) -> None:
    """Give `layer` the weights of its twin, whose variables are given in their order."""
    set_weights(layer, _in_order(layer, pairs(layer, variables)))


def pairs(layer: keras.Layer, variables: list[Any]) -> list[tuple[keras.Variable, Any]]:
    """The weights of `layer`, each with that of its twin: by name, in order where a name comes twice.

    Depthwise kernels have other names on the two sides; weights go by their order then.
    """
    weights = [] if isinstance(layer, keras.layers.Normalization) else list(layer.weights)
    if sorted(weight.name for weight in weights) == sorted(map(short_name, variables)):
        # A sort keeps the order of equal names.
        weights = sorted(weights, key=lambda weight: weight.name)
        variables = sorted(variables, key=short_name)
    if [tuple(weight.shape) for weight in weights] != [tuple(variable.shape) for variable in variables]:
        raise refusal(layer, f"has weights {_listed(weights)}, in tf_keras {_listed(variables)}")
    return list(zip(weights, variables, strict=True))


def short_name(variable: Any) -> str:
    """The name of a variable of tf_keras within its layer."""
    return variable.name.split("/")[-1].split(":")[0]


def _in_order(layer: keras.Layer, paired: list[tuple[keras.Variable, Any]]) -> list[Any]:
    values = {id(weight): variable.numpy() for weight, variable in paired}
    return [values.get(id(weight), keras.ops.convert_to_numpy(weight)) for weight in layer.weights]


def _listed(variables: list[Any]) -> str:
    return ", ".join(f"{variable.name.split('/')[-1]}{tuple(variable.shape)}" for variable in variables) or "none"
