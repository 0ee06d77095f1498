"""A scale and a shift of each channel, which a device runs as a depthwise convolution of one pixel."""

from typing import Any

import keras

from keras_opt.compression.qat.fake_quant import fake_quant_kernel
from keras_opt.compression.qat.quantized_kernel import (
    device_linear,
    narrow,
    rounded_bias,
    scale_and_shift,
    serialized,
    wide,
)

KINDS = (keras.layers.BatchNormalization, keras.layers.Normalization, keras.layers.Rescaling)


@keras.saving.register_keras_serializable("keras_opt")
class QuantizedAffine(keras.Layer):
    """A norm that no layer before it can take in, or a preprocessing that scales: one operation and one range in int8.

    Args:
        layer: A BatchNormalization, Normalization or Rescaling that works on the last axis.
        activation: `None`, `"relu"` or `"relu6"`.

    Call arguments and what is returned: as those of `QuantizedKernel`.
    """

    def __init__(self, layer: keras.Layer, activation: str | None = None, **kwargs: Any):
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.layer = layer
        self.activation = activation
        self._activate = keras.activations.get(activation)
        self._depthwise = keras.layers.DepthwiseConv2D(1)

    def build(self, input_shape: Any) -> None:
        self.layer.build(input_shape)

    def call(self, inputs: Any, step: Any = None, training: bool = False) -> Any:
        ops, added = keras.ops, list(range(1, 5 - len(inputs.shape)))
        scale, shift = _scale_and_shift(self.layer, inputs.shape[-1])
        kernel, kernel_step = fake_quant_kernel(ops.reshape(scale, (1, 1, 1, -1)), per_channel=True)
        unit = None if step is None else step * kernel_step
        if training and isinstance(self.layer, keras.layers.BatchNormalization):
            outputs = self.layer(inputs, training=True)
        else:
            shift = shift if step is None else rounded_bias(shift, unit)
            pixels = ops.expand_dims(inputs, added) if added else inputs
            kernel, spread = (ops.reshape(each, (1, 1, -1, 1)) for each in (kernel, kernel_step))
            outputs = device_linear(self._depthwise, pixels, kernel, shift, step, kernel_step, spread)
            outputs = ops.squeeze(outputs, added) if added else outputs
        outputs = self._activate(outputs)
        return outputs if step is None else [outputs, unit]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "layer": serialized(self.layer), "activation": self.activation}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "QuantizedAffine":
        return cls(**{**config, "layer": keras.saving.deserialize_keras_object(config["layer"])})


def _scale_and_shift(layer, channels):
    ops = keras.ops
    if isinstance(layer, keras.layers.BatchNormalization):
        scale, shift = scale_and_shift(layer)
    elif isinstance(layer, keras.layers.Rescaling):
        scale, shift = layer.scale, layer.offset
    else:
        mean, variance = (wide(ops.reshape(each, (-1,))) for each in (layer.mean, layer.variance))
        deviation = ops.maximum(ops.sqrt(variance), keras.config.epsilon())
        scale, shift = 1 / deviation, -mean / deviation
    return tuple(ops.broadcast_to(narrow(each), (channels,)) for each in (scale, shift))


def fits(layer: keras.Layer) -> bool:
    """Whether `layer` scales and shifts the last axis alone, of at most four."""
    rank = len(layer.input.shape)
    if rank > 4 or getattr(layer, "invert", False):
        return False
    axis = getattr(layer, "axis", -1)
    return axis in (-1, rank - 1, (-1,), (rank - 1,))
