"""Any schedule on any optimizer, for the length of a fit."""

from typing import Any

import keras

from keras_opt.callbacks.copying import copy_without_fit
from keras_opt.callbacks.siblings import siblings
from keras_opt.core.errors import InputError, argument_error, check_choice
from keras_opt.core.learning_rates import rate_source, single_optimizers
from keras_opt.schedules.scaled_schedule import ScaledSchedule
from keras_opt.training.scheduled_rate import UNITS, ScheduledRate
from keras_opt.training.step_hooks import StepHooks

LearningRateSchedule = keras.optimizers.schedules.LearningRateSchedule
_RIVALS = {
    keras.callbacks.LearningRateScheduler: "which sets the rate too. Leave one of them out.",
    keras.callbacks.ReduceLROnPlateau: "whose cuts the schedule would undo. Use keras_opt.callbacks.ReduceLROnPlateau, "
    "which multiplies the schedule.",
}


class ScheduleLearningRate(keras.callbacks.Callback):
    """Lets the optimizer of a model that is compiled already, at a constant rate, follow a schedule in this fit.

    Use it where the schedule belongs to the training and not to the model: a warm-up for one fit, a schedule in epochs,
    any schedule on a `MultiOptimizer`, all of whose parts get the same rate. Where one schedule holds for all fits,
    compile with it instead. For a Python function of the epoch there is Keras's `LearningRateScheduler`.

    Before each update, the rate becomes

        learning_rate = schedule(count)

    with `unit="epoch"`: the number of the epoch, as `fit` counts them from 0, `initial_epoch` included;
    with `unit="update"`: the updates that this fit has made before; gradients that are accumulated, by the callback
    `GradientAccumulation` or by the optimizer, make one update, and those that a `LossScaleOptimizer` drops make none;
    with `unit="batch"`: the batches that this fit has seen before the one that makes the update.

    It is set inside the compiled step, so every step of `steps_per_execution` has its own rate. `"batch"` and
    `"update"` begin at 0 in each fit, where a schedule within the optimizer goes on; a training that `BackupAndRestore`
    resumes goes on at the count where it was. The rate stays what it was to the optimizer, a variable: saved files open
    in plain Keras, every callback can read it, and after the fit it is the rate of the last update, as with Keras's
    `LearningRateScheduler`. keras_opt's `ReduceLROnPlateau` in the same fit multiplies the schedule.

    Args:
        schedule: Any `keras.optimizers.schedules.LearningRateSchedule`, Keras's own included. A `ScaledSchedule` may be
            scaled at any time.
        unit: `"epoch"`, `"batch"` or `"update"`: what the schedule counts. Default `"epoch"`.

    Raises:
        ValueError: An argument is of the wrong kind; or, before training, the optimizer follows a schedule already, or
            another callback in the fit sets the rate. See also `keras_opt.training.StepHooks`.

    Cost: two scalar variables; a few scalar operations a step; one trace of the step.

    Example:
        >>> import keras, keras_opt, numpy as np
        >>> from keras_opt.callbacks import LearningRateMonitor, ScheduleLearningRate
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        >>> model.compile(keras.optimizers.SGD(0.1), "mse")
        >>> schedule, monitor = ScheduleLearningRate(keras_opt.schedules.StepDecay(0.1, 1, 0.5)), LearningRateMonitor()
        >>> data = np.ones((8, 3)), np.ones((8, 1))
        >>> history = model.fit(*data, epochs=3, verbose=0, callbacks=[schedule, monitor])
        >>> [round(rate, 3) for rate in history.history["learning_rate"]]
        [0.1, 0.05, 0.025]
    """

    def __init__(self, schedule: LearningRateSchedule, unit: str = "epoch"):
        super().__init__()
        if not isinstance(schedule, LearningRateSchedule):
            must_be = "a keras.optimizers.schedules.LearningRateSchedule"
            cure = "For a function of the epoch use keras.callbacks.LearningRateScheduler."
            raise argument_error("ScheduleLearningRate", "schedule", schedule, must_be, cure)
        check_choice("ScheduleLearningRate", "unit", unit, UNITS)
        self.schedule = schedule
        self.unit = unit
        self._scaled = schedule if isinstance(schedule, ScaledSchedule) else ScaledSchedule(schedule)
        self._hooks: StepHooks | None = None
        self._rate: ScheduledRate | None = None

    @property
    def multiplier(self) -> keras.Variable:
        """What the schedule is multiplied by: 1 as the fit begins, or that of the `ScaledSchedule` that was given."""
        return self._scaled.multiplier

    def __deepcopy__(self, memo: dict[int, Any]) -> "ScheduleLearningRate":
        return copy_without_fit(self, memo, "_hooks", "_rate")

    def set_model(self, model: keras.Model) -> None:
        for other in siblings(self) or []:
            for kind, what in _RIVALS.items():
                if isinstance(other, kind):
                    raise InputError(
                        f"ScheduleLearningRate: in the same fit is a keras.callbacks.{kind.__name__}, {what}"
                    )
        StepHooks.prepare(model)
        super().set_model(model)
        self._check_is_constant()

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._leave()
        if self._scaled is not self.schedule:
            self.multiplier.assign(1.0)
        self._hooks = StepHooks.of(self.model)
        self._rate = ScheduledRate(self.model, self._scaled, self.unit, self._check_is_constant)
        self._hooks.add(self._rate)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self.unit == "epoch":
            self._rate.set_count(epoch)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._hooks.flush()
        self._leave()

    def state_dict(self) -> dict[str, Any]:
        """What a resumed training needs to go on at the same count."""
        count = 0 if self._rate is None else self._rate.count
        return {"count": count, "multiplier": float(keras.ops.convert_to_numpy(self.multiplier))}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was called. Training must have begun, since `on_train_begin` starts anew."""
        self.multiplier.assign(state["multiplier"])
        if self.unit != "epoch":  # which the beginning of each epoch says
            self._rate.set_count(state["count"])

    def _check_is_constant(self) -> None:
        for single in single_optimizers(self.model.optimizer):
            followed = rate_source(single)
            if followed is not None:
                name = getattr(followed, "name", None) or getattr(followed, "__name__", None)
                kind = type(followed).__name__
                raise InputError(
                    f"ScheduleLearningRate: the optimizer {single.name!r} follows {kind}{_quoted(name, kind)} already, "
                    f"so {type(self.schedule).__name__} cannot set its rate. Compile it with a constant learning_rate, "
                    "or leave this callback out."
                )

    def _leave(self) -> None:
        if self._rate is not None:
            self._hooks.remove(self._rate)
        self._hooks = self._rate = None


def _quoted(name: str | None, kind: str) -> str:
    return "" if name in (None, kind) else f" {name!r}"
