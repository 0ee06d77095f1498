"""Norms of gradients, and ratios of updates to weights, recorded in the compiled step into one ring buffer."""

from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_opt.core.replicas import replica_number, replica_variable
from keras_opt.training.every_nth import every_nth
from keras_opt.training.gradients import global_norm, norms
from keras_opt.training.plugin_state import PluginState
from keras_opt.training.step_plugin import StepPlugin


class Recorded(NamedTuple):
    """Updates that a `NormRecorder` has recorded, oldest first.

    Args:
        step: The numbers of the updates from 0, (rows,). A gap means that the ring was full before it was read.
        layers: The paths of the layers; none if the recorder does not tell them apart.
        norms: L2 norms of the layers' gradients, (rows, layers).
        global_norm: L2 norms of all gradients together, (rows,).
        ratios: |change| / |weight before it| of each layer, (rows, layers); `None` if they were not asked for.
        global_ratio: The same of all weights together, (rows,).
    """

    step: np.ndarray
    layers: tuple[str, ...]
    norms: np.ndarray
    global_norm: np.ndarray
    ratios: np.ndarray | None
    global_ratio: np.ndarray | None


class NormRecorder(StepPlugin):
    """Writes the norms of an update into a ring of `capacity` rows; `read` takes the rows out.

    A step adds one sum of squares for each variable, with `ratios` three, and one scatter. Norms are float64 if a
    variable is, else float32.

    Args:
        every: Int of at least 1; records each `every`-th update.
        capacity: Int of at least 1, the rows held between two reads; the oldest are overwritten.
        per_layer: Whether layers are told apart.
        ratios: Whether the change of the weights and the weights themselves are recorded too. Not with an optimizer
            that accumulates gradients by itself, where the phases of an update cannot see each other's tensors.
    """

    def __init__(self, every: int, capacity: int, per_layer: bool = True, ratios: bool = False):
        self.every = every
        self.capacity = capacity
        self._per_layer = per_layer
        self._ratios = ratios
        self._state = PluginState()
        self._ring: tf.Variable | None = None
        self._unread: list[Recorded] = []
        self._read_rows = 0
        # By replica, for they are traced in turns: what on_gradients leaves for after_update.
        self._seen: dict[int, tuple[list[Any], list[tf.Tensor]]] = {}

    def build(self, variables: list[keras.Variable]) -> None:
        self._unread = self.read()  # other variables may be trained from now on, in the middle of a fit
        self._layers = [variable.path.rpartition("/")[0] or variable.path for variable in variables]
        self._dtype = tf.float64 if any(variable.dtype == "float64" for variable in variables) else tf.float32
        self._columns = len(variables) if self._per_layer else 1
        width = (3 if self._ratios else 1) * self._columns
        self._ring = replica_variable(tf.zeros((self.capacity, width), self._dtype), name="recorded_norms")
        self._updates = self._state.variable("updates_seen", self._state.value("updates_seen", 0), tf.int64)

    def on_gradients(self, gradients: list[Any], variables: list[keras.Variable]) -> None:
        if self._ratios:
            self._seen[replica_number()] = gradients, _tensors(variables)
        else:
            every_nth(self._updates, self.every, lambda: self._write(gradients))

    def after_update(self, variables: list[keras.Variable]) -> None:
        if not self._ratios:
            return
        gradients, before = self._seen.pop(replica_number())

        def record() -> None:
            changes = [new - old for new, old in zip(_tensors(variables), before, strict=True)]
            self._write(gradients, changes, before)

        every_nth(self._updates, self.every, record)

    def read(self) -> list[Recorded]:
        """What was recorded since the last read: one entry for each set of variables that was trained, or none."""
        unread, self._unread = self._unread, []
        if self._ring is None:
            return unread
        written = self._written()
        rows = np.arange(max(self._read_rows, written - self.capacity), written)
        self._read_rows = written
        if not len(rows):
            return unread
        table = self._ring.numpy()[rows % self.capacity].astype("float64")
        return [*unread, self._recorded(rows * self.every, table.reshape(len(rows), -1, self._columns))]

    def state_dict(self) -> dict[str, Any]:
        """The count of updates, in a call right after `read`: what was recorded is with the reader."""
        return self._state.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on counting where `state_dict` was called."""
        self._state.load_state_dict(state)
        self._unread, self._read_rows = [], self._written()

    def _written(self) -> int:
        """How many rows were ever written."""
        return -(-int(self._state.value("updates_seen", 0)) // self.every)

    def _write(self, *quantities: list[Any]) -> None:
        """The norms of each variable, or of all together, for each of the quantities."""
        row = [norms(values) if self._per_layer else global_norm(values)[tf.newaxis] for values in quantities]
        row = tf.concat([tf.cast(part, self._dtype) for part in row], 0)
        recorded = self._updates if self.every == 1 else self._updates // self.every
        # By its handle, because the variable's own method refuses to scatter in a replica.
        tf.raw_ops.ResourceScatterUpdate(resource=self._ring.handle, indices=recorded % self.capacity, updates=row)

    def _recorded(self, steps: np.ndarray, table: np.ndarray) -> Recorded:
        """Norms (rows, quantities, variables) as what is told outside."""
        layers = tuple(dict.fromkeys(self._layers)) if self._per_layer else ()
        columns = [[at for at, name in enumerate(self._layers) if name == layer] for layer in layers]
        dtype = self._dtype.as_numpy_dtype
        in_total = np.hypot.reduce(table, axis=-1)
        by_layer = np.zeros((*in_total.shape, len(layers)))
        for at, own in enumerate(columns):
            by_layer[..., at] = np.hypot.reduce(table[..., own], axis=-1)
        with np.errstate(divide="ignore", invalid="ignore"):  # of weights that are all 0
            return Recorded(
                steps,
                layers,
                by_layer[:, 0].astype(dtype),
                in_total[:, 0].astype(dtype),
                (by_layer[:, 1] / by_layer[:, 2]).astype(dtype) if self._ratios else None,
                (in_total[:, 1] / in_total[:, 2]).astype(dtype) if self._ratios else None,
            )


def _tensors(variables: list[keras.Variable]) -> list[tf.Tensor]:
    return [tf.convert_to_tensor(variable.value) for variable in variables]
