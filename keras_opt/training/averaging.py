"""Averages of the weights as a plugin of the compiled step."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from keras_opt.core.replicas import across_replicas, assign_all, cond
from keras_opt.training.plugin_state import PluginState
from keras_opt.training.step_plugin import StepPlugin

_NOT_YET = tf.int64.max


class WeightAverager(StepPlugin):
    """Averages the weights of `model` after its updates; puts the averages into the model and takes them out again.

    All three kinds are one formula, `average += step_size * (weight - average)`:

    | kind | step_size | afterwards |
    |---|---|---|
    | exponential moving average | 1 - momentum | |
    | stochastic weight averaging | 1 / n in the n-th averaging: the mean of n snapshots | |
    | lookahead | that of the slow weights | weight = average |

    The first and the last start from the weights at update `start`, so no bias is to be corrected. Every weight of a
    floating type is averaged, BatchNorm statistics among them; those of lookahead are the fast weights', as in its
    authors' code. Each replica averages its own copy; the first one's is what goes into the model.

    Args:
        model: A compiled model.
        step_size: See the table; `None` means 1 / n.
        start: The update, from 0, at which averaging starts; `None` waits for `begin`.
        every: Updates between two averagings; `None` waits for `take_snapshot`.
        lookahead: Whether trainable weights are set to their averages at each averaging.
    """

    def __init__(
        self, model: keras.Model, step_size: float | None, start: int | None, every: int | None, lookahead: bool = False
    ):
        self._model = model
        self._step_size = step_size
        self._first = start  # as known when the step is traced; the variable `_start` is the truth
        self._every = every
        self._lookahead = lookahead
        self._state = PluginState()
        self._weights: dict[int, _Weight] = {}
        self._updates: tf.Variable | None = None
        self._raw: list[tuple[tf.Variable, tf.Tensor]] | None = None
        self._is_closed = False
        self._compiled_average = tf.function(self._average, autograph=False)

    # --- inside the step ---------------------------------------------------------------------------------------------

    def run_step(self, train_step: Callable[[Any], dict[str, Any]], data: Any) -> dict[str, Any]:
        # Not in `build`: an eager step has changed BatchNorm's statistics by then.
        across_replicas(self._make_state)
        return train_step(data)

    def build(self, variables: list[keras.Variable]) -> None:
        self._make_state()  # in a loop that calls `optimizer.apply` by itself there is no `run_step`

    def after_update(self, variables: list[keras.Variable]) -> None:
        self._updates.assign_add(1)
        if self._every is None:
            return
        if self._first == 0 and self._every == 1:
            self._average()
            return
        since = self._updates - self._start
        first = 1 if self._step_size is None else 0  # snapshots begin after the first update, averages with a copy
        cond((since >= first) & (since % self._every == 0), self._average, _nothing)

    def _average(self) -> None:
        is_start = tf.equal(self._updates, self._start)  # the weights are copied then, which counts as no averaging
        self._taken.assign_add(tf.where(is_start, tf.constant(0, tf.int64), 1))
        if self._step_size is None:
            step_size = 1 / tf.cast(self._taken, tf.float64)
        else:
            step_size = tf.where(is_start, tf.constant(1, tf.float64), tf.constant(self._step_size, tf.float64))
        averaged = [entry for entry in self._weights.values() if entry.average is not None]
        for entry in averaged:
            weight, average = tf.convert_to_tensor(entry.weight.value), entry.average
            average.assign_add(step_towards(tf.cast(weight, average.dtype), average.read_value(), step_size))
        if self._lookahead:
            slow = [entry.constrained(entry.average.read_value()) for entry in averaged]
            assign_all([entry.weight for entry in averaged], slow)

    def _make_state(self) -> None:
        with tf.init_scope():
            if self._updates is None:
                self._taken = self._state.variable("averagings", 0, tf.int64)
                self._start = self._state.variable("start", _NOT_YET if self._first is None else self._first, tf.int64)
                self._updates = self._state.variable("updates", 0, tf.int64)
            for place, weight in enumerate(self._model.weights):
                if tf.as_dtype(weight.dtype).is_floating:
                    parts = self._model.distribute_strategy.experimental_local_results(weight.value)
                    entry = self._weights.setdefault(id(weight), _Weight(weight, parts))
                    if entry.average is None and (weight.trainable or not self._lookahead):
                        entry.average = self._state.variable(f"average_{place}", _wide_value(weight))

    # --- outside the step --------------------------------------------------------------------------------------------

    @property
    def updates(self) -> int:
        """How many updates there were."""
        return int(self._state.value("updates", 0))

    @property
    def averagings(self) -> int:
        """How often the weights were averaged."""
        return int(self._state.value("averagings", 0))

    def begin(self) -> None:
        """Start averaging at this update."""
        if self._updates is None:
            self._first = 0
            return
        self._start.assign(self.updates)
        if self._step_size is not None:
            self._model.distribute_strategy.run(self._compiled_average)

    def take_snapshot(self) -> None:
        """Average the weights as they are now, if there was an update since the start."""
        if self._updates is not None and self.updates > int(self._start.numpy()):
            self._model.distribute_strategy.run(self._compiled_average)

    def put_in_place(self) -> bool:
        """Put the averages into the model, unless there are none or they are there; say whether that was done."""
        if self._is_closed or self._raw is not None or not self.averagings:
            return False
        self._raw = [(part, tf.identity(part)) for entry in self._weights.values() for part in entry.parts]
        self._write_averages()
        return True

    def take_out(self) -> None:
        """Put the raw weights back, if the averages are in the model."""
        if self._raw is not None and not self._is_closed:
            for part, value in self._raw:
                part.assign(value)
            self._raw = None

    def finish(self) -> None:
        """Leave the weights in the model for good as they are."""
        self._is_closed = True
        self._raw = None

    def on_interrupt(self) -> None:
        # It runs wherever the interrupt struck, in the middle of a swap too.
        if not self._is_closed and self.averagings:
            self._write_averages()
        self.finish()

    def close(self) -> None:
        # Of a fit that an exception has ended: whose weights the model has by now is not known.
        self.finish()

    def state_dict(self) -> dict[str, Any]:
        """The averages, and the raw weights while the averages are in the model."""
        return {
            "variables": self._state.state_dict(),
            "first": self._first,
            "raw": None if self._raw is None else [value.numpy() for _, value in self._raw],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was called; the model is built, and has the weights that it had then."""
        self._state.load_state_dict(state["variables"])
        if self._updates is None:
            self._first = state["first"]
        if state["variables"]:  # there may be no further step, and averages to put in place or to take out
            with self._model.distribute_strategy.scope():
                self._make_state()
        parts = [part for entry in self._weights.values() for part in entry.parts]
        self._raw = None if state["raw"] is None else list(zip(parts, state["raw"], strict=True))

    def _write_averages(self) -> None:
        for entry in self._weights.values():
            if entry.average is not None:
                value = entry.constrained(tf.convert_to_tensor(entry.average))
                for part in entry.parts:
                    part.assign(value)


@dataclass
class _Weight:
    """A weight, its copies on the replicas, and its average if it has one."""

    weight: keras.Variable
    parts: tuple[tf.Variable, ...]
    average: tf.Variable | None = None

    def constrained(self, average: tf.Tensor) -> tf.Tensor:
        """What the weight is when it takes the value of its average."""
        value = tf.cast(average, self.weight.dtype)
        is_constrained = self.weight.constraint is not None and self.weight.trainable
        return self.weight.constraint(value) if is_constrained else value


def step_towards(weight: tf.Tensor, average: tf.Tensor, step_size: tf.Tensor) -> tf.Tensor:
    """What an averaging adds to the average: `step_size * (weight - average)`."""
    return tf.cast(step_size, average.dtype) * (weight - average)


def _wide_value(weight: keras.Variable) -> tf.Tensor:
    """The value in float32 at least: in half precision a small step towards the weight would be lost."""
    value = tf.convert_to_tensor(weight.value)
    return value if value.dtype.size >= 4 else tf.cast(value, tf.float32)


def _nothing() -> None:
    """The other branch of an averaging that is not due."""
