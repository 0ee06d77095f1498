"""Arithmetic on gradients, dense or `tf.IndexedSlices`."""

import math
from typing import Any

import tensorflow as tf

from keras_opt.core.replicas import replica_count, sum_over_replicas


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


def squared_norm(gradient: Any) -> tf.Tensor:
    """The sum of squares in float32, or in float64 of a float64 gradient; duplicates must be summed before."""
    values = gradient.values if isinstance(gradient, tf.IndexedSlices) else tf.convert_to_tensor(gradient)
    if values.dtype not in (tf.float32, tf.float64):
        values = tf.cast(values, tf.float32)
    return 2 * tf.nn.l2_loss(values)


def global_norm(gradients: list[Any]) -> tf.Tensor:
    """The L2 norm of all gradients together."""
    squares = [squared_norm(gradient) for gradient in gradients]
    widest = tf.float64 if any(square.dtype == tf.float64 for square in squares) else tf.float32
    return tf.sqrt(tf.add_n([tf.cast(square, widest) for square in squares]))


def agree_on_overflow(gradients: list[Any]) -> list[Any]:
    """An overflow on one replica as a NaN on all: a `LossScaleOptimizer` asks only the first whether to skip."""
    present = [place for place, gradient in enumerate(gradients) if gradient is not None]
    if replica_count() == 1 or not present:
        return gradients
    finite = [tf.reduce_all(tf.math.is_finite(_values(gradients[place]))) for place in present]
    (overflows,) = sum_over_replicas([tf.cast(~tf.reduce_all(finite), tf.int32)])
    first = gradients[present[0]]
    poisoned = tf.where(overflows > 0, tf.cast(math.nan, first.dtype), _values(first))
    if isinstance(first, tf.IndexedSlices):
        poisoned = tf.IndexedSlices(poisoned, first.indices, first.dense_shape)
    return [*gradients[: present[0]], poisoned, *gradients[present[0] + 1 :]]


def _values(gradient: Any) -> Any:
    return gradient.values if isinstance(gradient, tf.IndexedSlices) else gradient
