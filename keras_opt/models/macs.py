"""Multiply-accumulate operations of a model, counted from its layers."""

import math

import keras

from keras_opt.core.errors import InputError

# Layers whose weights cost no multiplication on the device: the exporter folds the first two into their neighbours.
_FREE = (keras.layers.BatchNormalization, keras.layers.Rescaling, keras.layers.Normalization)


def macs(model: keras.Model) -> int:
    """Counts the multiply-accumulates of one forward pass at batch 1.

    Dense layers and convolutions are counted (bias and activation are not, and BatchNorm is taken as folded), which is
    the figure that mobile papers call MACs or Mult-Adds.

    Args:
        model: A built functional or Sequential model; nested models are followed.

    Raises:
        ValueError: A layer has weights and no known count; the message names it.

    Example:
        >>> import keras_opt
        >>> keras_opt.models.macs(keras_opt.models.convnet((32, 64), (28, 28, 1), 10))
        2440960
    """
    return sum(_layer_macs(layer) for layer in model.layers)


def _layer_macs(layer: keras.layers.Layer) -> int:
    if isinstance(layer, keras.Model):
        return macs(layer)
    if isinstance(layer, keras.layers.Dense):
        # A Dense on (batch, ..., n) multiplies its kernel once for every position.
        return math.prod(layer.output.shape[1:-1]) * math.prod(layer.kernel.shape)
    if isinstance(layer, (keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose, keras.layers.Conv3DTranspose)):
        return _positions(layer, layer.input) * math.prod(layer.kernel.shape)
    if isinstance(layer, (keras.layers.SeparableConv1D, keras.layers.SeparableConv2D)):
        kernels = math.prod(layer.depthwise_kernel.shape) + math.prod(layer.pointwise_kernel.shape)
        return _positions(layer, layer.output) * kernels
    if isinstance(
        layer,
        (
            keras.layers.Conv1D,
            keras.layers.Conv2D,
            keras.layers.Conv3D,
            keras.layers.DepthwiseConv1D,
            keras.layers.DepthwiseConv2D,
        ),
    ):
        return _positions(layer, layer.output) * math.prod(layer.kernel.shape)
    if layer.weights and not isinstance(layer, _FREE) and any(w.trainable for w in layer.weights):
        raise InputError(
            f"macs: layer `{layer.name}` ({type(layer).__name__}) has weights, and keras_opt does not know how often "
            "they are multiplied. Count it by hand, or replace it by Dense and convolution layers."
        )
    return 0


def _positions(layer, tensor) -> int:
    """The spatial positions of `tensor`: its shape without batch and channels."""
    spatial = tensor.shape[2:] if layer.data_format == "channels_first" else tensor.shape[1:-1]
    return math.prod(spatial)
