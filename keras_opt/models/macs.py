"""Multiply-accumulate operations of a model, counted from its layers."""

import math

import keras

from keras_opt.core.errors import InputError
from keras_opt.models.graph import calls

# Layers that are not counted: Embedding multiplies nothing, the exporter folds the others into their neighbours, and
# GroupNormalization is left out as every norm is.
_FREE = (
    keras.layers.BatchNormalization,
    keras.layers.Embedding,
    keras.layers.GroupNormalization,
    keras.layers.Normalization,
    keras.layers.Rescaling,
)
_CONVOLUTIONS = (
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.DepthwiseConv1D,
    keras.layers.DepthwiseConv2D,
)
_TRANSPOSED = (keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose, keras.layers.Conv3DTranspose)
_SEPARABLE = (keras.layers.SeparableConv1D, keras.layers.SeparableConv2D)


def macs(model: keras.Model) -> int:
    """Counts the multiply-accumulates of one forward pass at batch 1.

    Dense layers and convolutions are counted (bias and activation are not, and BatchNorm is taken as folded), which is
    the figure that mobile papers call MACs or Mult-Adds.

    Args:
        model: A built functional or Sequential model with a fixed input size; nested models are followed.

    Raises:
        ValueError: A layer has weights and no known count, is called more than once, or has no fixed size; the message
            names it.

    Example:
        >>> import keras_opt
        >>> keras_opt.models.macs(keras_opt.models.convnet((32, 64), (28, 28, 1), 10))
        2440960
    """
    if not getattr(model, "inputs", None):
        cure = "Give a functional or Sequential model; the layers of any other are called where no one can count them."
        raise InputError(f"macs: model `{model.name}` ({type(model).__name__}) has no graph of layers. {cure}")
    graph = calls(model)
    return sum(_layer_macs(layer, len(graph[layer.name])) for layer in model.layers)


def _layer_macs(layer: keras.layers.Layer, times: int) -> int:
    if not layer.weights or isinstance(layer, _FREE):
        return 0
    if times > 1:
        cure = "keras_opt counts layers that are called once: count one call alone and multiply."
        raise InputError(f"macs: layer `{layer.name}` is called {times} times. {cure}")
    if isinstance(layer, keras.Model):
        return macs(layer)
    if isinstance(layer, keras.layers.Dense):
        # A Dense on (batch, ..., n) multiplies its kernel once for every position.
        return _product(layer, layer.output.shape[1:-1]) * math.prod(layer.kernel.shape)
    if isinstance(layer, _TRANSPOSED):
        return _positions(layer, layer.input) * math.prod(layer.kernel.shape)
    if isinstance(layer, _SEPARABLE):
        # The depthwise half has strides; the pointwise half works on what it leaves.
        kernels = math.prod(layer.depthwise_kernel.shape) + math.prod(layer.pointwise_kernel.shape)
        return _positions(layer, layer.output) * kernels
    if isinstance(layer, _CONVOLUTIONS):
        return _positions(layer, layer.output) * math.prod(layer.kernel.shape)
    raise InputError(
        f"macs: layer `{layer.name}` ({type(layer).__name__}) has weights, and keras_opt does not know how often "
        "they are multiplied. Count it by hand, or replace it by Dense and convolution layers."
    )


def _positions(layer, tensor) -> int:
    """The spatial positions of `tensor`: its shape without batch and channels."""
    return _product(layer, tensor.shape[2:] if layer.data_format == "channels_first" else tensor.shape[1:-1])


def _product(layer, sizes) -> int:
    if None in sizes:
        cure = "Build the model with a fixed input size."
        raise InputError(f"macs: layer `{layer.name}` has an output of no fixed size, {tuple(sizes)}. {cure}")
    return math.prod(sizes)
