"""Arithmetic on gradients, dense or `tf.IndexedSlices`."""

import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_opt.core.replicas import replica_count, sum_over_replicas

# A sum of squares below it has lost digits, for squares below 1e-38 and 1e-308 are none any more.
_SMALLEST_SQUARE = {tf.float32: 1e-30, tf.float64: 1e-290}


def sum_duplicates(gradient: Any, shape: tuple[int, ...]) -> Any:
    """Sum the rows of an `IndexedSlices` that share an id, so that its squares and norms are those of the dense one.

    An embedding looked up twice with one id has two rows for it. Adam, RMSprop and Adagrad square them apart, and so
    does every norm. Here the first row of an id gets the sum and the others zeros: the shapes stay static for XLA.
    A dense gradient is returned as it is.

    Args:
        gradient: A tensor, or an `IndexedSlices` of n rows.
        shape: The shape of the variable.

    Cost: one integer per row of the variable, one pass over the gradient's rows.
    """
    if not isinstance(gradient, tf.IndexedSlices):
        return gradient
    count = tf.shape(gradient.indices)[0]
    first = tf.math.unsorted_segment_min(tf.range(count), gradient.indices, shape[0])
    values = tf.math.unsorted_segment_sum(gradient.values, tf.gather(first, gradient.indices), count)
    return tf.IndexedSlices(values, gradient.indices, gradient.dense_shape)


def scaled(gradient: Any, factor: Any) -> Any:
    """`gradient * factor`, of the same kind; a factor of the number 1 costs nothing."""
    if isinstance(factor, int | float) and factor == 1:
        return gradient
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(scaled(gradient.values, factor), gradient.indices, gradient.dense_shape)
    # `tf.cast` would round a Python number to float32 on its way.
    return gradient * (factor if isinstance(factor, int | float) else tf.cast(factor, gradient.dtype))


def values_of(gradient: Any) -> tf.Tensor:
    """The elements of a gradient as a tensor: of an `IndexedSlices`, whose duplicates were summed before, its rows."""
    return gradient.values if isinstance(gradient, tf.IndexedSlices) else tf.convert_to_tensor(gradient)


def norms(gradients: list[Any]) -> tf.Tensor:
    """The L2 norm of each gradient, (gradients,), in float32, or in float64 if one of them is.

    Squares overflow above 1e19 and vanish below 1e-22 in float32. Where they did, the gradients are divided by the
    largest of their elements before, so that a norm is exact whenever it is a number of its type.

    Cost: one pass over the gradients; three more in a step in which squares were lost, or in which one is all zeros.
    """
    return _root(_squares(gradients), lambda: _norms_by_largest(gradients))


def global_norm(gradients: list[Any]) -> tf.Tensor:
    """The L2 norm of all gradients together; exact, at the cost, as `norms`."""
    return _root(tf.reduce_sum(_squares(gradients)), lambda: _norm_by_largest(_norms_by_largest(gradients)))


def unit_norms(values: tf.Tensor, axes: tuple[int, ...]) -> tf.Tensor:
    """The L2 norms over `axes`, which stay as axes of length 1; exact, at the cost, as `norms`."""
    values = _wide(values)
    return _root(tf.reduce_sum(tf.square(values), axes, keepdims=True), lambda: _unit_norms_by_largest(values, axes))


def _wide(values: tf.Tensor) -> tf.Tensor:
    return values if values.dtype in (tf.float32, tf.float64) else tf.cast(values, tf.float32)


def _stacked(scalars: list[tf.Tensor]) -> tf.Tensor:
    widest = tf.float64 if any(scalar.dtype == tf.float64 for scalar in scalars) else tf.float32
    return tf.stack([tf.cast(scalar, widest) for scalar in scalars])


def _squares(gradients: list[Any]) -> tf.Tensor:
    return 2 * _stacked([tf.nn.l2_loss(_wide(values_of(gradient))) for gradient in gradients])


def _root(squares: tf.Tensor, careful: Callable[[], tf.Tensor]) -> tf.Tensor:
    """The roots of sums of squares; where those overflowed or vanished, `careful()` instead, which costs only then."""
    lost = (squares <= _SMALLEST_SQUARE[squares.dtype]) | tf.math.is_inf(squares)
    roots = tf.sqrt(squares)
    return tf.cond(tf.reduce_any(lost), lambda: tf.where(lost, careful(), roots), lambda: roots)


def _norms_by_largest(gradients: list[Any]) -> tf.Tensor:
    return _stacked([_norm_by_largest(_wide(values_of(gradient))) for gradient in gradients])


def _norm_by_largest(values: tf.Tensor) -> tf.Tensor:
    return tf.squeeze(_unit_norms_by_largest(tf.reshape(values, [-1]), (0,)), 0)


def _unit_norms_by_largest(values: tf.Tensor, axes: tuple[int, ...]) -> tf.Tensor:
    largest = tf.maximum(tf.reduce_max(tf.abs(values), axes, keepdims=True), 0)  # 0 also where there is no element
    parts = tf.math.divide_no_nan(values, largest)
    norm = largest * tf.sqrt(tf.reduce_sum(tf.square(parts), axes, keepdims=True))
    return tf.where(tf.math.is_inf(largest), largest, norm)


def agree_on_overflow(gradients: list[Any]) -> list[Any]:
    """An overflow on one replica as a NaN on all: a `LossScaleOptimizer` asks only the first whether to skip."""
    present = [place for place, gradient in enumerate(gradients) if gradient is not None]
    if replica_count() == 1 or not present:
        return gradients
    finite = [tf.reduce_all(tf.math.is_finite(values_of(gradients[place]))) for place in present]
    (overflows,) = sum_over_replicas([tf.cast(~tf.reduce_all(finite), tf.int32)])
    first = gradients[present[0]]
    poisoned = tf.where(overflows > 0, tf.cast(math.nan, first.dtype), values_of(first))
    if isinstance(first, tf.IndexedSlices):
        poisoned = tf.IndexedSlices(poisoned, first.indices, first.dense_shape)
    return [*gradients[: present[0]], poisoned, *gradients[present[0] + 1 :]]
