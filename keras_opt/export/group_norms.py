"""GroupNormalization in the operations that LiteRT has in int8."""

import math
from typing import Any

import keras

from keras_opt.core.all_layers import all_layers
from keras_opt.core.set_weights import set_weights


def in_int8_operations(model: keras.Model) -> keras.Model:
    """`model`, or where it has a GroupNormalization a copy whose group norms convert to int8 without a float island.

    Keras writes the norm with a square and a negation, for which LiteRT has no int8 kernel. The variances of an image
    are then int8 too: `verify` what a deep network loses by that, and prefer BatchNorm for int8, which costs nothing.
    """
    if not any(type(layer) is keras.layers.GroupNormalization for layer in all_layers(model)):
        return model

    def clone(layer):
        kind = _Int8GroupNormalization if _has_channels_last(layer) else type(layer)
        return kind.from_config(layer.get_config())

    copy = keras.models.clone_model(model, clone_function=clone, recursive=True)
    set_weights(copy, model.get_weights())
    return copy


def _has_channels_last(layer):
    return type(layer) is keras.layers.GroupNormalization and layer.axis in (-1, layer.input_spec.ndim - 1)


class _Int8GroupNormalization(keras.layers.GroupNormalization):
    """The same function of the same weights: (x - mean) * rsqrt(mean((x - mean)^2) + epsilon) * gamma + beta."""

    def call(self, inputs: Any) -> Any:
        ops, channels = keras.ops, inputs.shape[-1]
        groups = channels if self.groups == -1 else self.groups
        x = ops.reshape(inputs, (-1, math.prod(inputs.shape[1:-1]), groups, channels // groups))
        x = x - ops.mean(x, axis=(1, 3), keepdims=True)
        x = x * ops.rsqrt(ops.mean(x * x, axis=(1, 3), keepdims=True) + self.epsilon)
        x = ops.reshape(x, (-1, *inputs.shape[1:]))
        if self.scale:
            x = x * self.gamma
        return x + self.beta if self.center else x
