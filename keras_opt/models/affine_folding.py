"""How a scale and a shift of each channel go into the weights of the layer before or behind them."""

import keras
import numpy as np

from keras_opt.layers.drop_block import DropBlock
from keras_opt.layers.scheduled_dropout import ScheduledDropout
from keras_opt.layers.stochastic_depth import StochasticDepth

DENSE = (keras.layers.Dense,)
CONVOLUTIONS = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
SEPARABLE = (keras.layers.SeparableConv1D, keras.layers.SeparableConv2D)
TRANSPOSED = (keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose, keras.layers.Conv3DTranspose)

# What inference does not see.
IDENTITIES = (
    DropBlock,
    ScheduledDropout,
    StochasticDepth,
    keras.layers.AlphaDropout,
    keras.layers.Dropout,
    keras.layers.GaussianDropout,
    keras.layers.GaussianNoise,
    keras.layers.Identity,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
)
MAXIMA = (
    keras.layers.GlobalMaxPooling1D,
    keras.layers.GlobalMaxPooling2D,
    keras.layers.GlobalMaxPooling3D,
    keras.layers.MaxPooling1D,
    keras.layers.MaxPooling2D,
    keras.layers.MaxPooling3D,
)
AVERAGES = (
    keras.layers.AveragePooling1D,
    keras.layers.AveragePooling2D,
    keras.layers.AveragePooling3D,
    keras.layers.GlobalAveragePooling1D,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.GlobalAveragePooling3D,
)


def scale_and_shift(norm: keras.layers.BatchNormalization) -> tuple[np.ndarray, np.ndarray]:
    """What `norm` does at inference: `scale * x + shift`, in float64."""
    scale = (array(norm.gamma) if norm.scale else 1.0) / np.sqrt(array(norm.moving_variance) + norm.epsilon)
    return scale, (array(norm.beta) if norm.center else 0.0) - array(norm.moving_mean) * scale


def weights_with_bias(layer: keras.Layer) -> list[np.ndarray]:
    """The kernels of `layer` and its bias, of zeros if it has none, in float64."""
    weights = [array(weight) for weight in layer.weights]
    return weights if layer.use_bias else [*weights, np.zeros(_outputs(layer))]


def folded_behind(layer: keras.Layer, weights: list, scale: np.ndarray, shift: np.ndarray) -> list[np.ndarray]:
    """The weights with which `layer`, linear, gives `scale * its outputs + shift`."""
    *others, kernel, bias = weights
    if type(layer) in DEPTHWISE:
        kernel = kernel * scale.reshape(kernel.shape[-2:])
    elif type(layer) in TRANSPOSED:
        kernel = kernel * scale[:, np.newaxis]
    else:
        kernel = kernel * scale
    return [*others, kernel, bias * scale + shift]


def folded_before(layer: keras.Layer, weights: list, scale: np.ndarray, shift: np.ndarray) -> list[np.ndarray]:
    """The weights with which `layer` makes of x what it makes of `scale * x + shift`, where it pads nothing.

    A Dense behind a Flatten sees each channel once for every position.
    """
    kernel, *others, bias = weights
    space = tuple(range(kernel.ndim - 2))
    if type(layer) in DENSE:
        positions = kernel.shape[0] // len(scale)
        scale, shift = (np.tile(values, positions)[:, np.newaxis] for values in (scale, shift))
        return [kernel * scale, bias + (kernel * shift).sum(0)]
    if type(layer) in CONVOLUTIONS:
        channels = _input_channels(layer, kernel)
        return [kernel * scale[channels], bias + (kernel.sum(space) * shift[channels]).sum(0)]
    scale, shift = scale[:, np.newaxis], shift[:, np.newaxis]
    passed_on = (kernel.sum(space) * shift).reshape(-1)
    for pointwise in others:
        passed_on = passed_on @ pointwise.reshape(pointwise.shape[-2:])
    return [kernel * scale, *others, bias + passed_on]


def array(variable: keras.Variable) -> np.ndarray:
    """The values of `variable` in float64."""
    return keras.ops.convert_to_numpy(variable).astype(np.float64)


def _outputs(layer):
    if type(layer) in DENSE:
        return layer.units
    if type(layer) in DEPTHWISE:
        return layer.kernel.shape[-2] * layer.kernel.shape[-1]
    return layer.filters


def _input_channels(layer, kernel):
    """Which input channel each row of a kernel reads, for each filter: with groups not the same."""
    rows, filters = kernel.shape[-2:]
    group = np.arange(filters) // (filters // layer.groups)
    return group * rows + np.arange(rows)[:, np.newaxis]
