"""Gradient norms, recorded in the compiled step into one ring buffer."""

from typing import Any

import numpy as np
import tensorflow as tf


class NormRecorder:
    """A step plugin that writes the norm of every variable's gradient into a ring of `capacity` rows.

    The ring is one `tf.Variable`; a step adds one scatter, also inside `steps_per_execution` and XLA. `read` takes the
    rows out. The buffer is made when the step is traced, because only then is it known which variables have a gradient.

    Args:
        every: Int of at least 1; records each `every`-th update.
        capacity: Int of at least 1, the rows held between two reads; the oldest are overwritten.
    """

    def __init__(self, every: int, capacity: int):
        self.every = every
        self.capacity = capacity
        self.names: list[str] = []
        self._ring: tf.Variable | None = None
        self._seen: tf.Variable | None = None
        self._read = 0

    def on_gradients(self, gradients: list[Any], variables: list[Any]) -> list[Any]:
        with tf.init_scope():
            self._make_buffers(variables)
        norms = tf.stack([_norm(gradient) for gradient in gradients])
        recorded = self._seen // self.every
        due = tf.equal(self._seen % self.every, 0)
        row = tf.cast(recorded % self.capacity, tf.int32)
        value = tf.where(due, norms, tf.gather(self._ring, row))
        self._ring.scatter_update(tf.IndexedSlices(value[tf.newaxis], row[tf.newaxis]))
        self._seen.assign_add(1)
        return gradients

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """What was recorded since the last read, oldest first.

        Returns:
            The numbers of the updates from 0, (rows,), and their norms, float32 (rows, variables). A gap in the numbers
            means that more than `capacity` rows were recorded between two reads.
        """
        if self._ring is None:
            return np.zeros(0, int), np.zeros((0, 0), np.float32)
        written = -(-int(self._seen.numpy()) // self.every)
        first = max(self._read, written - self.capacity)
        self._read = written
        rows = np.arange(first, written)
        return rows * self.every, self._ring.numpy()[rows % self.capacity]

    def _make_buffers(self, variables):
        names = [variable.path for variable in variables]
        if self._ring is None or names != self.names:
            self.names = names
            self._ring = tf.Variable(tf.zeros((self.capacity, len(names))), trainable=False, name="gradient_norms")
            self._seen = tf.Variable(0, dtype=tf.int64, trainable=False, name="updates_seen")
            self._read = 0


def _norm(gradient: Any) -> tf.Tensor:
    """The L2 norm of a gradient in float32; rows of an IndexedSlices that share an id are summed first."""
    if isinstance(gradient, tf.IndexedSlices):
        ids, positions = tf.unique(gradient.indices)
        gradient = tf.math.unsorted_segment_sum(gradient.values, positions, tf.size(ids))
    return tf.norm(tf.cast(gradient, tf.float32))
