"""A convolution or dense layer whose kernel is rounded to 8 bits, with the norm that a device folds into it."""

from typing import Any

import keras
import numpy as np

from keras_opt.compression.qat.fake_quant import fake_quant_kernel, nearest, straight_through
from keras_opt.core.quantized_ranges import is_written_for_a_device

_DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
_CONVOLUTIONS = (keras.layers.Conv1D, keras.layers.Conv2D)
_TRANSPOSED = (keras.layers.Conv2DTranspose,)
KINDS = (keras.layers.Dense, *_CONVOLUTIONS, *_DEPTHWISE, *_TRANSPOSED)


@keras.saving.register_keras_serializable("keras_opt")
class QuantizedKernel(keras.Layer):
    """What a device runs as one operation: a linear layer with its norm and rectifier, and a max-pooling between them.

    At inference the norm is a scale and a shift of each channel, which go into kernel and bias, and these are rounded
    (as is a rescaling of the inputs):

        outputs = pooling(activation(layer(inputs; kernel = rounded(kernel * scale), bias = bias * scale + shift)))

    In training the norm is live, on the statistics of the batch, and the kernel has the same rounding:

        outputs = activation(norm(pooling(layer(inputs; kernel = rounded(kernel * scale) / scale))))

    with the gradient of the kernel that is not rounded (straight through). The kernel of a convolution has a step for
    each channel, that of a dense or transposed layer one step, which is what the converter takes; that of a
    shared dense layer it rounds by channel.

    At inference with a known step the products are summed up as on a device, in whole numbers, which float32 holds
    exactly to 2^24:

        outputs = (layer(inputs / step; kernel / kernel_step) + bias / unit) * unit        unit = step * kernel_step

    Args:
        layer: A linear Dense, Conv1D, Conv2D, DepthwiseConv1D, DepthwiseConv2D or Conv2DTranspose.
        norm: A BatchNormalization of the last axis, or `None`.
        pooling: A max-pooling between `layer` and `norm`, or `None`.
        activation: `None`, `"relu"` or `"relu6"`.
        keep_zeros: Whether weights that are 0 get no gradient: a pruned kernel stays as sparse as it came.
        rescaling: A Rescaling by one scale and offset before `layer`, or `None`.
        shared: Whether the model calls the layer more than once.

    Call arguments:
        inputs: The layer's inputs, already rounded.
        step: The step between two values of `inputs`. If given, the bias is rounded to int32 as on a device.

    Returns: The outputs; with a `step` a list of the outputs and their unit, one number or one for each channel.

    Source: B. Jacob et al., 2018, section 3.2; R. Krishnamoorthi, 2018, "Quantizing deep convolutional networks for
        efficient inference", section 3.2.
    """

    def __init__(
        self,
        layer: keras.Layer,
        norm: keras.layers.BatchNormalization | None = None,
        pooling: keras.Layer | None = None,
        activation: str | None = None,
        keep_zeros: bool = False,
        rescaling: keras.layers.Rescaling | None = None,
        shared: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.layer = layer
        self.norm = norm
        self.pooling = pooling
        self.activation = activation
        self.keep_zeros = keep_zeros
        self.rescaling = rescaling
        self.shared = shared
        self._activate = keras.activations.get(activation)

    def build(self, input_shape: Any) -> None:
        self.layer.build(input_shape)
        shape = self.layer.compute_output_shape(input_shape)
        if self.pooling is not None:
            shape = self.pooling.compute_output_shape(shape)
        if self.norm is not None:
            self.norm.build(shape)

    def call(self, inputs: Any, step: Any = None, training: bool = False) -> Any:
        if training:
            bias = self.layer.bias if self.layer.use_bias else None
            inputs = inputs if self.rescaling is None else self.rescaling(inputs)
            kernel, kernel_step = self._training_kernel()
            outputs = self._pool(linear(self.layer, inputs, kernel, bias))
            outputs = self._activate(outputs if self.norm is None else self.norm(outputs, training=True))
        else:
            kernel, kernel_step, bias = self.device_weights(step)
            spread = self._by_output(kernel_step) if len(kernel_step.shape) else kernel_step
            outputs = device_linear(self.layer, inputs, kernel, bias, step, kernel_step, spread)
            outputs = self._pool(self._activate(outputs))
        return outputs if step is None else [outputs, step * kernel_step]

    def device_weights(self, step: Any = None) -> tuple[Any, Any, Any]:
        """The kernel, its step and the bias, or `None`, as a device holds them: with the norm in them, and rounded.

        What is folded is computed in float64, and so has the same float32 bits in `predict` and in the converter, which
        multiply in another order.
        """
        kernel, bias = wide(self._kernel()), wide(self.layer.bias) if self.layer.use_bias else None
        if self.norm is not None:
            scale, shift = scale_and_shift(self.norm)
            kernel = kernel * self._by_output(scale)
            bias = shift if bias is None else bias * scale + shift
        if self.rescaling is not None:
            kernel = kernel * self.rescaling.scale
        exact = narrow(kernel)
        kernel, kernel_step = self._rounded(exact)
        if self.rescaling is not None and self.rescaling.offset:
            # Of the rounded kernel, but not from it: the converter knows a rounding with one user only.
            by_output = keras.ops.reshape(exact, (-1, self._outputs()))
            sums = keras.ops.sum(wide(rounded_bias(by_output, kernel_step)), 0)
            shift = sums * (self.rescaling.offset / self.rescaling.scale)
            bias = shift if bias is None else bias + shift
        if bias is not None:
            bias = narrow(bias) if step is None else rounded_bias(narrow(bias), step * kernel_step)
        return kernel, kernel_step, bias

    def _training_kernel(self):
        """The kernel with the rounding that it will have on a device, and the gradient of one without; and its step."""
        ops, kernel, scale = keras.ops, self._kernel(), 1.0
        if self.norm is not None:
            scale = narrow(scale_and_shift(self.norm)[0])
            scale = self._by_output(ops.where(scale == 0, 1.0, scale))
        rounded, step = self._rounded(kernel * scale)
        if self.keep_zeros:
            kernel = kernel * ops.cast(kernel != 0, kernel.dtype)
        return straight_through(rounded / scale, kernel), step

    def _pool(self, outputs):
        return outputs if self.pooling is None else self.pooling(outputs)

    def _kernel(self):
        kernel = keras.ops.convert_to_tensor(self.layer.kernel)
        return keras.ops.expand_dims(kernel, 0) if _is_flat(self.layer) else kernel

    def _rounded(self, kernel):
        if isinstance(self.layer, _DEPTHWISE):
            flat = keras.ops.reshape(kernel, (*kernel.shape[:-2], 1, -1))  # the converter knows this form
            rounded, step = fake_quant_kernel(flat, per_channel=True)
            return keras.ops.reshape(rounded, kernel.shape), step
        shared = self.shared and isinstance(self.layer, keras.layers.Dense)
        return fake_quant_kernel(kernel, per_channel=shared or isinstance(self.layer, _CONVOLUTIONS))

    def _by_output(self, scale):
        """`scale`, one number for each output channel, in the shape that multiplies the kernel."""
        if isinstance(self.layer, _DEPTHWISE):
            return keras.ops.reshape(scale, self.layer.kernel.shape[-2:])
        return scale[:, None] if isinstance(self.layer, _TRANSPOSED) else scale

    def _outputs(self):
        *_, inner, outer = self.layer.kernel.shape
        return inner * outer if isinstance(self.layer, _DEPTHWISE) else outer

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "layer": serialized(self.layer),
            "norm": serialized(self.norm),
            "pooling": serialized(self.pooling),
            "activation": self.activation,
            "keep_zeros": self.keep_zeros,
            "rescaling": serialized(self.rescaling),
            "shared": self.shared,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "QuantizedKernel":
        names = ("layer", "norm", "pooling", "rescaling")
        layers = {name: keras.saving.deserialize_keras_object(config.get(name)) for name in names}
        return cls(**{**config, **layers})


def takes_in(layer: keras.Layer, rescaling: keras.Layer) -> bool:
    """Whether the kernel and bias of `layer` can do what `rescaling`, before it, does."""
    if type(rescaling) is not keras.layers.Rescaling or np.ndim(rescaling.scale) or np.ndim(rescaling.offset):
        return False
    if not isinstance(layer, KINDS) or not rescaling.scale:
        return False
    # An offset has no place where zeros are padded.
    padded = isinstance(layer, _TRANSPOSED) or getattr(layer, "padding", "valid") != "valid"
    return not (rescaling.offset and padded)


def scale_and_shift(norm: keras.layers.BatchNormalization) -> tuple[Any, Any]:
    """What `norm` does at inference: `scale * x + shift`, both in float64."""
    scale = keras.ops.rsqrt(wide(norm.moving_variance) + norm.epsilon)
    scale = scale * wide(norm.gamma) if norm.scale else scale
    shift = -wide(norm.moving_mean) * scale
    return scale, shift + wide(norm.beta) if norm.center else shift


def wide(values: Any) -> Any:
    """`values` in float64."""
    return keras.ops.cast(values, "float64")


def narrow(values: Any) -> Any:
    """`values` in float32."""
    return keras.ops.cast(values, "float32")


def linear(layer: keras.Layer, inputs: Any, kernel: Any, bias: Any) -> Any:
    """What `layer` makes of `inputs` with another kernel and bias, in the form that the converter knows.

    One-dimensional convolutions are two-dimensional ones of height 1, as on a device; the kernel has that axis too.
    """
    ops = keras.ops
    if isinstance(layer, keras.layers.Dense):
        outputs = ops.matmul(inputs, kernel)
        return outputs if bias is None else outputs + bias
    if isinstance(layer, _TRANSPOSED):
        outputs = ops.conv_transpose(
            inputs, kernel, layer.strides, layer.padding, layer.output_padding, dilation_rate=layer.dilation_rate
        )
        return outputs if bias is None else outputs + bias
    strides, dilation, padding = layer.strides, layer.dilation_rate, layer.padding
    if padding == "causal":
        inputs = ops.pad(inputs, ((0, 0), (dilation[0] * (layer.kernel_size[0] - 1), 0), (0, 0)))
        padding = "valid"
    if _is_flat(layer):
        inputs, strides, dilation = ops.expand_dims(inputs, 1), strides * 2, dilation * 2
    convolve = ops.depthwise_conv if isinstance(layer, _DEPTHWISE) else ops.conv
    outputs = convolve(inputs, kernel, strides, padding, dilation_rate=dilation)
    outputs = outputs if bias is None else outputs + bias
    return ops.squeeze(outputs, 1) if _is_flat(layer) else outputs


def device_linear(
    layer: keras.Layer, inputs: Any, kernel: Any, bias: Any, step: Any, kernel_step: Any, spread: Any
) -> Any:
    """As `linear`, in the whole numbers of a device: the sums are exact.

    Args:
        layer: As are `inputs`, `kernel` and `bias`, what `linear` takes, the last three rounded.
        step: The step between two values of the inputs; `None` where it is not known, and floats are summed up.
        kernel_step: That of the kernel, one number or one for each channel of the outputs.
        spread: The same in a shape that divides the kernel.
    """
    if step is None or is_written_for_a_device():
        return linear(layer, inputs, kernel, bias)

    def whole(values, unit):
        return straight_through(nearest(values / unit), values / unit)

    unit = step * kernel_step
    bias = None if bias is None else whole(bias, unit)
    return linear(layer, whole(inputs, step), whole(kernel, spread), bias) * unit


def _is_flat(layer):
    return isinstance(layer, (keras.layers.Conv1D, keras.layers.DepthwiseConv1D))


def serialized(layer: keras.Layer | None) -> dict[str, Any] | None:
    """The config of an inner layer, which is built by the one around it and has then its path in front."""
    if layer is None:
        return None
    config = keras.saving.serialize_keras_object(layer)
    return {key: value for key, value in config.items() if key != "build_config"}


def rounded_bias(bias: Any, step: Any) -> Any:
    """`bias` in whole steps: a device keeps it in int32, with the steps of inputs and kernel multiplied."""
    return nearest(bias / step) * step
