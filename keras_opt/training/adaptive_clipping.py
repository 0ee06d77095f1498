"""Adaptive gradient clipping: each unit's gradient is held against the unit's own weights."""

from typing import Any

import keras
import tensorflow as tf

from keras_opt.core.all_layers import all_layers
from keras_opt.training.clipping import Clipped, shrinkage
from keras_opt.training.gradients import unit_norms

EPSILON = 1e-3

_TRANSPOSED = (keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose, keras.layers.Conv3DTranspose)
_DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
_SEPARABLE = (keras.layers.SeparableConv1D, keras.layers.SeparableConv2D)


def clip_adaptively(
    gradients: list[Any],
    variables: list[keras.Variable],
    factor: float,
    axes: dict[int, tuple[int, ...]],
    left_alone: frozenset[int],
) -> Clipped:
    """Scale each unit's gradient G to norm factor * max(|W|, EPSILON) if it is above that, W being the unit's weights.

    Args:
        gradients: Tensors or `IndexedSlices`.
        variables: Their variables.
        factor: The largest ratio of a unit's gradient norm to its weight norm.
        axes: For the id of a variable what `unit_axes` gives.
        left_alone: The ids of variables that are not clipped.
    """
    clipped, any_clipped = [], [tf.constant(False)]
    for gradient, variable in zip(gradients, variables, strict=True):
        if id(variable) not in left_alone:
            gradient, any_unit = clip_units(gradient, variable, factor, axes[id(variable)])
            any_clipped.append(any_unit)
        clipped.append(gradient)
    return clipped, tf.reduce_any(any_clipped)


def clip_units(gradient: Any, weights: keras.Variable, factor: float, axes: tuple[int, ...]) -> tuple[Any, tf.Tensor]:
    """Clip one gradient, and say whether any unit of it was clipped; `axes` are those within a unit."""
    weights = tf.convert_to_tensor(weights.value)
    if isinstance(gradient, tf.IndexedSlices) and axes == tuple(range(1, weights.shape.rank)):
        values, any_unit = _clip_units(gradient.values, tf.gather(weights, gradient.indices), factor, axes)
        return tf.IndexedSlices(values, gradient.indices, gradient.dense_shape), any_unit
    return _clip_units(tf.convert_to_tensor(gradient), weights, factor, axes)


def _clip_units(gradient, weights, factor, axes):
    allowed = factor * tf.maximum(unit_norms(weights, axes), EPSILON)
    shrink = shrinkage(unit_norms(gradient, axes), allowed)
    return gradient * tf.cast(shrink, gradient.dtype), tf.reduce_any(shrink < 1)


def unit_axes(model: keras.Model) -> dict[int, tuple[int, ...]]:
    """For the id of each weight of a built `model` the axes that its units' norms go over.

    A unit is one output of the layer: of a kernel, the axes are all but the output's. A bias or scale is one unit, and
    so is each id's vector of an embedding.
    """
    axes = {id(weight): _within_unit(weight) for weight in model.weights}
    for layer in [layer for layer in all_layers(model) if layer.built]:
        if isinstance(layer, _DEPTHWISE):
            axes[id(layer.kernel)] = tuple(range(len(layer.kernel.shape) - 2))
        elif isinstance(layer, _SEPARABLE):
            axes[id(layer.depthwise_kernel)] = tuple(range(len(layer.depthwise_kernel.shape) - 2))
        elif isinstance(layer, _TRANSPOSED):
            rank = len(layer.kernel.shape)
            axes[id(layer.kernel)] = (*range(rank - 2), rank - 1)
        elif isinstance(layer, keras.layers.EinsumDense):
            kernel, output = layer.equation.partition(",")[2].split("->")
            axes[id(layer.kernel)] = tuple(axis for axis, letter in enumerate(kernel) if letter not in output)
        elif isinstance(layer, keras.layers.Embedding):
            axes[id(layer.embeddings)] = (1,)
    return axes


def _within_unit(weight: keras.Variable) -> tuple[int, ...]:
    rank = len(weight.shape)
    is_kernel = rank > 1 and weight.name != "bias"
    return tuple(range(rank - 1)) if is_kernel else tuple(range(rank))
