"""Histograms of gradients, counted in the compiled step."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_opt.core.replicas import replica_variable
from keras_opt.training.every_nth import every_nth
from keras_opt.training.gradients import values_of
from keras_opt.training.plugin_state import PluginState
from keras_opt.training.step_plugin import StepPlugin

LOWEST_OCTAVE, HIGHEST_OCTAVE, BINS_AN_OCTAVE = -48, 16, 4
MAGNITUDES = (HIGHEST_OCTAVE - LOWEST_OCTAVE) * BINS_AN_OCTAVE
NOT_FINITE = 2 * MAGNITUDES + 1  # the bin after the last
_UPPER_EDGES = 2.0 ** (LOWEST_OCTAVE + np.arange(MAGNITUDES + 1) / BINS_AN_OCTAVE)
EDGES = np.concatenate([-_UPPER_EDGES[::-1], _UPPER_EDGES])


def bin_of(values: tf.Tensor) -> tf.Tensor:
    """The bin of each value: a quarter of an octave of its magnitude, with its sign.

    Bin i lies between `EDGES[i]` and `EDGES[i + 1]`. The middle one holds what is smaller than 2**-48, the outermost
    also what is larger than 2**16; what is not finite comes into one more.
    """
    values = values if values.dtype == tf.float64 else tf.cast(values, tf.float32)
    octave = tf.math.log(tf.abs(values)) / np.log(2.0)
    magnitude = tf.clip_by_value(tf.floor((octave - LOWEST_OCTAVE) * BINS_AN_OCTAVE), -1, MAGNITUDES - 1) + 1
    place = MAGNITUDES + tf.sign(values) * magnitude
    return tf.cast(tf.where(tf.math.is_finite(values), place, NOT_FINITE), tf.int32)


def count_bins(values: tf.Tensor) -> tf.Tensor:
    """How many of `values` lie in each bin, in fixed shapes, as XLA wants: int32, (`NOT_FINITE + 1`,)."""
    places = tf.reshape(bin_of(values), [-1])
    return tf.math.unsorted_segment_sum(tf.ones_like(places), places, NOT_FINITE + 1)


class GradientHistogram(StepPlugin):
    """Counts the elements of every variable's gradient in fixed bins of their magnitude and sign.

    Args:
        every: Int of at least 1; counts each `every`-th update.
    """

    def __init__(self, every: int):
        self.every = every
        self._state = PluginState()
        self._counts: tf.Variable | None = None
        self._unread: dict[str, np.ndarray] = {}

    def build(self, variables: list[keras.Variable]) -> None:
        self._take()  # other variables may be trained from now on, in the middle of a fit
        self._layers = [variable.path.rpartition("/")[0] or variable.path for variable in variables]
        self._sizes = np.array([np.prod(variable.shape, dtype=int) for variable in variables])
        self._updates = self._state.variable("updates_seen", self._state.value("updates_seen", 0), tf.int64)
        self._counts = replica_variable(np.zeros((len(variables), NOT_FINITE + 1)), tf.int64, "gradient_histograms")
        self._before = np.zeros(self._counts.shape, int)
        self._counted_before = self._counted()

    def on_gradients(self, gradients: list[Any], variables: list[keras.Variable]) -> None:
        def count() -> None:
            counts = [count_bins(values_of(gradient)) for gradient in gradients]
            self._counts.assign_add(tf.cast(tf.stack(counts), tf.int64))

        every_nth(self._updates, self.every, count)

    def read(self) -> dict[str, np.ndarray]:
        """What was counted since the last read: for each layer, rows of left edge, right edge and count."""
        self._take()
        counts, self._unread = self._unread, {}
        return {layer: buckets(count) for layer, count in counts.items()}

    def state_dict(self) -> dict[str, Any]:
        """The count of updates, and what was not read yet, by layer."""
        self._take()
        return {"variables": self._state.state_dict(), "unread": dict(self._unread)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on counting where `state_dict` was called."""
        self._take()
        self._state.load_state_dict(state["variables"])
        self._unread, self._counted_before = dict(state["unread"]), self._counted()

    def _counted(self) -> int:
        """How many updates were counted in."""
        return -(-int(self._state.value("updates_seen", 0)) // self.every)

    def _take(self) -> None:
        """Take what the variable has, if it is made already, to what is unread."""
        if self._counts is None:
            return
        total, counted = self._counts.numpy(), self._counted()
        counts = total - self._before
        # Rows that an embedding did not look up are zeros, and those that stand for a repeated id are none.
        elements = (counted - self._counted_before) * self._sizes
        counts[:, MAGNITUDES] += elements - counts.sum(axis=1)
        self._before, self._counted_before = total, counted
        for layer, count in zip(self._layers, counts, strict=True):
            self._unread[layer] = self._unread.get(layer, 0) + count


def buckets(counts: np.ndarray) -> np.ndarray:
    """Counts by bin as rows (left edge, right edge, count), from the first bin that is not empty to the last."""
    counts = counts[:NOT_FINITE]
    filled = np.flatnonzero(counts)
    if not len(filled):
        return np.zeros((0, 3))
    kept = slice(filled[0], filled[-1] + 1)
    return np.stack([EDGES[:-1][kept], EDGES[1:][kept], counts[kept].astype("float64")], axis=1)
