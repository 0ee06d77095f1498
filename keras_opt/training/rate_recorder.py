"""The learning rate of every update, recorded in the compiled step into one ring buffer."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_opt.core.learning_rates import single_optimizers
from keras_opt.core.replicas import replica_variable
from keras_opt.schedules.precision import rate_dtype
from keras_opt.training.step_plugin import StepPlugin


class RateRecorder(StepPlugin):
    """Writes the rate of each update, of each part of a `MultiOptimizer`, into a ring; `read` takes the rows out.

    Args:
        model: A compiled model.
        capacity: Int of at least 1, the updates held between two reads; the oldest are overwritten.
    """

    def __init__(self, model: keras.Model, capacity: int):
        self.capacity = capacity
        self._optimizer = model.optimizer
        self._ring: tf.Variable | None = None
        self._read_rows = 0

    def build(self, variables: list[keras.Variable]) -> None:
        if self._ring is None:  # else other variables are trained from now on, by the same optimizers
            width = len(single_optimizers(self._optimizer))
            self._ring = replica_variable(tf.zeros((self.capacity, width), rate_dtype()), name="recorded_rates")
            self._rows = replica_variable(0, tf.int64, "updates_seen")

    def clip_gradients(self, gradients: list[Any], variables: list[keras.Variable]) -> list[Any]:
        # Not in `on_gradients`, where another plugin may still set the rate.
        rates = [tf.cast(single.learning_rate, self._ring.dtype) for single in single_optimizers(self._optimizer)]
        # By its handle, because the variable's own method refuses to scatter in a replica.
        tf.raw_ops.ResourceScatterUpdate(
            resource=self._ring.handle, indices=self._rows % self.capacity, updates=tf.stack(rates)
        )
        self._rows.assign_add(1)
        return gradients

    def read(self) -> np.ndarray:
        """The rates recorded since the last read, (updates, optimizers); NaN where they were overwritten before."""
        if self._ring is None:
            return np.zeros((0, 0), rate_dtype())
        written = int(self._rows.numpy())
        rows = np.arange(self._read_rows, written)
        self._read_rows = written
        rates = self._ring.numpy()[rows % self.capacity]
        rates[: -self.capacity] = np.nan
        return rates
