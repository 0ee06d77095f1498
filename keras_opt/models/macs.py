"""Multiply-accumulate operations of a model, counted from its layers."""

import inspect
import math
from typing import Any

import keras

from keras_opt.core.errors import InputError
from keras_opt.models.convolutions import CONVOLUTIONS, TRANSPOSED_CONVOLUTIONS
from keras_opt.models.graph import serialized_calls, shapes

# Layers that are not counted: Embedding multiplies nothing, BatchNorm and scales are folded into their neighbours by
# the exporter, and other norms and activations are left out as those are.
_FREE = (
    keras.layers.BatchNormalization,
    keras.layers.Embedding,
    keras.layers.GroupNormalization,
    keras.layers.LayerNormalization,
    keras.layers.Normalization,
    keras.layers.PReLU,
    keras.layers.RMSNormalization,
    keras.layers.Rescaling,
)
_RECURRENT = (keras.layers.GRU, keras.layers.LSTM, keras.layers.SimpleRNN)


def macs(model: keras.Model) -> int:
    """Counts the multiply-accumulates of one forward pass at batch 1.

    Products of weights with values are counted, in dense, convolutional and recurrent layers (at each step) and in
    attention, there also those of queries with keys and of weights with values. Bias, activation and the products
    inside of a recurrent cell are not, and BatchNorm is taken as folded. This is the figure that mobile papers call
    MACs or Mult-Adds.

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
    graph = serialized_calls(model)
    return sum(_called_macs(layer, graph[layer.name]) for layer in model.layers)


def _called_macs(layer, calls):
    if not layer.weights or isinstance(layer, _FREE):
        return 0
    if len(calls) > 1:
        cure = "keras_opt counts layers that are called once: count one call alone and multiply."
        raise InputError(f"macs: layer `{layer.name}` is called {len(calls)} times. {cure}")
    if isinstance(layer, keras.Model):
        return macs(layer)
    arguments = _arguments(layer, *calls)
    if isinstance(layer, keras.layers.MultiHeadAttention):
        inputs = {name: shapes(arguments[name])[0] for name in ("query", "value", "key") if arguments.get(name)}
        return _attention_macs(layer, **inputs)
    return _layer_macs(layer, shapes(list(arguments.values()))[0])


def _arguments(layer: keras.Layer, call: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a serialised call by name, in the order in which the layer's `call` names them."""
    return inspect.signature(layer.call).bind(*call["args"], **call["kwargs"]).arguments


def _layer_macs(layer, inputs):
    """Those of a layer that is given a tensor of the shape `inputs`, with the batch first.

    From the sizes of the layer where it can be quantized, which packs several rows of a kernel into one.
    """
    if not layer.weights or isinstance(layer, _FREE):
        return 0
    if isinstance(layer, keras.Model):
        return macs(layer)
    if isinstance(layer, keras.layers.TimeDistributed):
        return _product(layer, inputs[1:2]) * _layer_macs(layer.layer, (inputs[0], *inputs[2:]))
    if isinstance(layer, keras.layers.Bidirectional):
        return sum(_layer_macs(one, inputs) for one in (layer.forward_layer, layer.backward_layer))
    if isinstance(layer, _RECURRENT):
        return _product(layer, inputs[1:2]) * _kernels(layer)
    if isinstance(layer, keras.layers.Dense):
        # A Dense on (batch, ..., n) multiplies its kernel once for every position.
        return _product(layer, inputs[1:]) * layer.units
    if isinstance(layer, CONVOLUTIONS):
        # Of a separable one the depthwise half has strides; the pointwise half works on what it leaves.
        return _positions(layer, layer.compute_output_shape(inputs)) * _kernels(layer)
    if isinstance(layer, TRANSPOSED_CONVOLUTIONS):
        return _positions(layer, inputs) * _kernels(layer)
    raise InputError(
        f"macs: layer `{layer.name}` ({type(layer).__name__}) has weights, and keras_opt does not know how often "
        "they are multiplied. Count it by hand, or replace it by Dense and convolution layers."
    )


def _attention_macs(layer, query, value, key=None):
    """Four projections, the scores of each query with each key, and as many weighted sums of values."""
    if len(query) != 3 or len(value) != 3:
        cure = "keras_opt counts attention along one axis: give it tensors of (batch, length, features)."
        raise InputError(f"macs: layer `{layer.name}` attends to a tensor of the shape {tuple(value)}. {cure}")
    queries, keys = _product(layer, query[1:2]), _product(layer, value[1:2])
    outputs = layer.compute_output_shape(query, value)[-1]
    by_query = layer.key_dim * query[-1] + layer.value_dim * outputs
    by_key = layer.key_dim * (key or value)[-1] + layer.value_dim * value[-1]
    scores = queries * keys * (layer.key_dim + layer.value_dim)
    return layer.num_heads * (queries * by_query + keys * by_key + scores)


def _kernels(layer):
    return sum(math.prod(weight.shape) for weight in layer.weights if weight.name.endswith("kernel"))


def _positions(layer, shape):
    """The spatial positions: the shape without batch and channels."""
    return _product(layer, shape[2:] if layer.data_format == "channels_first" else shape[1:-1])


def _product(layer, sizes):
    if None in sizes:
        cure = "Build the model with a fixed input size."
        raise InputError(f"macs: layer `{layer.name}` has a tensor of no fixed size, {tuple(sizes)}. {cure}")
    return math.prod(sizes)
