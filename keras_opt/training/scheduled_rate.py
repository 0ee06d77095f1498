"""A schedule that sets the optimizer's rate from inside the compiled step."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_opt.core.learning_rates import single_optimizers
from keras_opt.core.replicas import assign_all, replica_variable
from keras_opt.training.step_plugin import StepPlugin

UNITS = ("epoch", "batch", "update")


class ScheduledRate(StepPlugin):
    """Sets the rate before each update to `schedule(count)`, in every part of a `MultiOptimizer`.

    The rate stays a variable of the optimizer, so that it is saved with it and any callback can read it.

    Args:
        model: A compiled model.
        schedule: A function of an int64 tensor, with a scalar tensor as its value.
        unit: What is counted. `"update"`: the updates made; `"batch"`: the batches begun before this one, which differ
            from them where micro-batches are gathered or a `LossScaleOptimizer` skips an update; `"epoch"`: what
            `set_count` says.
        check: Is called, outside the graph, before the first update, when all parts of the optimizer are known.
    """

    owner = "ScheduleLearningRate"
    is_single = True

    def __init__(self, model: keras.Model, schedule: Callable[[Any], Any], unit: str, check: Callable[[], None]):
        self.needs_train_step = unit == "batch"
        self._optimizer = model.optimizer
        self._schedule = schedule
        self._unit = unit
        self._check = check
        with model.distribute_strategy.scope():
            self._count = replica_variable(0, tf.int64, "schedule_count")

    @property
    def count(self) -> int:
        """The epochs, batches or updates so far."""
        return int(self._count.numpy())

    def set_count(self, count: int) -> None:
        """Go on from `count`; outside the step."""
        self._count.assign(count)

    def build(self, variables: list[keras.Variable]) -> None:
        self._check()

    def begin_batch(self) -> None:
        if self._unit == "batch":
            self._count.assign_add(1)

    def on_gradients(self, gradients: list[Any], variables: list[keras.Variable]) -> None:
        rate = self._schedule(self._count - 1 if self._unit == "batch" else self._count.read_value())
        targets = [single.learning_rate for single in single_optimizers(self._optimizer)]
        assign_all(targets, [tf.cast(rate, target.dtype) for target in targets])

    def after_update(self, variables: list[keras.Variable]) -> None:
        if self._unit == "update":
            self._count.assign_add(1)
