"""What a training has used up: updates and seconds."""

import statistics
from collections import deque
from typing import Any, Protocol

import keras

from keras_opt.callbacks.validation_batches import validation_batches
from keras_opt.core.clocks import Stopwatch
from keras_opt.core.errors import InputError
from keras_opt.core.optimizers import inner
from keras_opt.core.replicas import this_worker

_RECENT_STEPS = 101


class Meter(Protocol):
    """What criteria read off; `EarlyStopping` gives it to those that have an attribute `meter`."""

    updates: int
    """Updates that the optimizer has made."""

    seconds: float
    """Seconds of training so far, those before it was resumed included."""

    validation_seconds: float
    """Seconds that a validation needs, as far as that is known."""


class TrainingMeter:
    """The meter of a running `fit`; the hooks of a callback are passed on to it.

    Args:
        model: The model that is trained.
    """

    def __init__(self, model: keras.Model):
        self._model = model
        self._watch = Stopwatch()
        self._seconds_before = 0.0
        self._validation_batches = validation_batches(model)
        self._validation_begin: float | None = None
        self._last_validation: float | None = None
        self._execution_begin: float | None = None
        self._executions = 0
        self._steps: deque[float] = deque(maxlen=_RECENT_STEPS)

    @property
    def updates(self) -> int:
        return int(keras.ops.convert_to_numpy(inner(self._model.optimizer).iterations))

    @property
    def seconds(self) -> float:
        return self._seconds_before + self._watch.seconds

    @property
    def validation_seconds(self) -> float:
        if self._last_validation is not None:
            return self._last_validation
        if not self._validation_batches or not self._steps:
            return 0.0
        return self._validation_batches * statistics.median(self._steps) / 2

    def begin_execution(self) -> None:
        self._execution_begin = self._watch.seconds

    def end_execution(self) -> None:
        if self._execution_begin is None:
            return
        self._executions += 1
        if self._executions > 1:  # the first one is traced
            seconds = self._watch.seconds - self._execution_begin
            self._steps.append(seconds / self._model.steps_per_execution)

    def begin_validation(self) -> None:
        self._validation_begin = self._watch.seconds

    def end_validation(self) -> None:
        if self._validation_begin is not None:
            self._last_validation = self._watch.seconds - self._validation_begin

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self.seconds, "last_validation": self._last_validation}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        self._seconds_before = saved["seconds"]
        self._last_validation = saved["last_validation"]
        self._watch = Stopwatch()
        self._execution_begin = self._validation_begin = None


def meter_of(criterion: Any, what: str) -> Meter:
    """The meter that `EarlyStopping` has given to a criterion."""
    if criterion.meter is None:
        name = type(criterion).__name__
        raise RuntimeError(f"{name}: {what} is measured by EarlyStopping. Give the criterion to EarlyStopping and fit.")
    return criterion.meter


def check_one_worker(model: keras.Model) -> None:
    """Raise if several workers train `model`: by clocks of their own they would not stop alike."""
    workers = this_worker(model.distribute_strategy).count
    if workers > 1:
        raise InputError(
            f"EarlyStopping: {workers} workers train together, each with a clock of its own, so they would not stop "
            'alike. Leave out TimeBudget and patience_unit="second"; patience_unit="update" counts alike everywhere.'
        )
