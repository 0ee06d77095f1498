"""Norms in the operations that LiteRT has in int8."""

import math
from typing import Any

import keras
import tensorflow as tf

from keras_opt.core.all_layers import all_layers
from keras_opt.core.clone_layer import clone_layer
from keras_opt.core.set_weights import set_weights


def in_int8_operations(model: keras.Model) -> keras.Model:
    """`model`, or where it normalises each example a copy whose norms convert to int8 without a float island.

    Keras writes Group-, Layer-, RMS- and UnitNormalization with a square and a negation, for which LiteRT has no int8
    kernel. The variances are then int8 too: `verify` what a deep network loses by that. Where BatchNorm does as well,
    prefer it for int8: it costs nothing.
    """
    if not any(_int8_kind(layer) for layer in all_layers(model)):
        return model

    def clone(layer):
        kind = _int8_kind(layer)
        return kind.from_config(layer.get_config()) if kind else clone_layer(layer)

    copy = keras.models.clone_model(model, clone_function=clone, recursive=True)
    set_weights(copy, model.get_weights())
    return copy


def _int8_kind(layer):
    if isinstance(layer, keras.layers.GroupNormalization) and layer.axis not in (-1, layer.input_spec.ndim - 1):
        return None  # channels first
    if getattr(layer, "rms_scaling", False):  # which Keras has deprecated, for it is wrong
        return None
    return _INT8_KINDS.get(type(layer))


class _Int8GroupNormalization(keras.layers.GroupNormalization):
    def call(self, inputs: Any) -> Any:
        channels = inputs.shape[-1]
        groups = channels if self.groups == -1 else self.groups
        x = keras.ops.reshape(inputs, (-1, math.prod(inputs.shape[1:-1]), groups, channels // groups))
        x = keras.ops.reshape(_standardized(x, (1, 3), self.epsilon), (-1, *inputs.shape[1:]))
        if self.scale:
            x = x * self.gamma
        return x + self.beta if self.center else x


class _Int8LayerNormalization(keras.layers.LayerNormalization):
    def call(self, inputs: Any) -> Any:
        x = _standardized(inputs, self.axis, self.epsilon)
        if self.scale:
            x = x * _spread(self.gamma, inputs, self.axis)
        return x + _spread(self.beta, inputs, self.axis) if self.center else x


class _Int8RMSNormalization(keras.layers.RMSNormalization):
    def call(self, x: Any) -> Any:
        return _over_root_mean_square(x, self.axis, self.epsilon) * _spread(self.scale, x, self.axis)


class _Int8UnitNormalization(keras.layers.UnitNormalization):
    """On the last axis one operation of LiteRT, which the converter recognises."""

    def call(self, inputs: Any) -> Any:
        return tf.math.l2_normalize(inputs, self.axis, epsilon=1e-24)


_INT8_KINDS = {
    kind.__base__: kind
    for kind in (_Int8GroupNormalization, _Int8LayerNormalization, _Int8RMSNormalization, _Int8UnitNormalization)
}


def _standardized(x, axes, epsilon):
    return _over_root_mean_square(x - keras.ops.mean(x, axes, keepdims=True), axes, epsilon)


def _over_root_mean_square(x, axes, epsilon):
    return x * keras.ops.rsqrt(keras.ops.mean(x * x, axes, keepdims=True) + epsilon)


def _spread(weight, x, axes):
    """A weight of the axes of `x`, in a shape that multiplies it."""
    axes = [axis % len(x.shape) for axis in axes]
    return keras.ops.reshape(weight, [size if axis in axes else 1 for axis, size in enumerate(x.shape)])
