"""A lower learning rate when a monitored value no longer improves, with or without a schedule."""

import math
import warnings
from typing import Any

import keras
import numpy as np

from keras_opt.callbacks.copying import copy_without_fit
from keras_opt.callbacks.cuttable_rates import CuttableRate, cuttable_rates, follow_scaled_schedules
from keras_opt.callbacks.log_sources import adds_to_logs, warn_of_early_readers
from keras_opt.callbacks.monitored_logs import MonitoredLogs
from keras_opt.callbacks.monitors import better, check_mode_is_known, mode_in_model, resolve_mode
from keras_opt.callbacks.siblings import siblings
from keras_opt.core.errors import NoEffectWarning, argument_error, check_at_least, check_choice, check_name, is_number
from keras_opt.core.learning_rates import rate_names, rate_of, single_optimizers
from keras_opt.training.callers import is_called_by_evaluation
from keras_opt.training.step_hooks import StepHooks


@adds_to_logs("learning_rate")
class ReduceLROnPlateau(keras.callbacks.Callback):
    """Cuts the learning rate when a monitored value has stopped improving.

    It takes Keras's arguments and cuts at the same epochs to the same rate, with these differences: it lives with a
    schedule, which Keras's only refuses when it wants to cut for the first time, hours in maybe; NaN and inf are never
    best (a first NaN stays best for ever in Keras's); a monitored value that is not there is an error after the first
    epoch and not a warning in each; and its state can be saved and resumed, where a plain second `fit` starts anew, at
    the rate that the first one left, as in Keras.

    After an epoch whose value is the `patience`-th in a row that is not better than the best one by `min_delta`, the
    epochs in a cooldown not counted, with r the rate that the next update would have (with `ScheduleLearningRate`, that
    the last one had),

        r becomes max(r * factor, min_lr)     if r > min_lr

    A constant rate is set to that. A schedule is multiplied for good by the same ratio, max(factor, min_lr / r), and
    goes on: `min_lr` bounds the cuts, not what the schedule does later. For that a schedule in the optimizer becomes
    `keras_opt.schedules.ScaledSchedule(schedule)` when training begins (one that is there already is used), and stays
    so after the fit, with its multiplier: the rate stays cut, as a constant one does, and a saved model needs
    `import keras_opt` to be loaded. A `ScheduleLearningRate` in the same fit is multiplied, until that fit ends. Parts
    of a `MultiOptimizer` are cut each by itself.

    `history.history` gains `learning_rate`, the rate after the epoch and before its cut, as in Keras; for a
    `MultiOptimizer` `learning_rate_<name>` of each part.

    Args:
        monitor: A name in the logs. Default `"val_loss"`.
        factor: Float in [0, 1), what the rate is multiplied by. Default 0.1.
        patience: Int of at least 0, epochs without improvement before a cut; 0 is as 1. Default 10.
        verbose: 1 prints each cut.
        mode: `"auto"`, `"min"` or `"max"`; `"auto"` asks the name, then the compiled metric of that name.
        min_delta: Float; a smaller change is no improvement. Default 1e-4.
        cooldown: Int of at least 0; the first `cooldown - 1` epochs after a cut are not counted, as in Keras, where 0
            and 1 are alike. Default 0.
        min_lr: Float of at least 0; no cut goes below it. Default 0.

    Raises:
        ValueError: An argument is out of its range; before training, the rate of the optimizer is a Python function;
            after the first epoch, `monitor` is not in the logs or its direction is not known.

    Warns:
        NoEffectWarning: An epoch ended without the validation that `monitor` needs, and was not counted; or something
            else has set the rate back after a cut.
        UserWarning: A logger, or a monitor of `learning_rate`, is listed before it.

    Cost: none in the step; for a schedule one scalar variable and one trace.

    Example:
        >>> import keras, keras_opt
        >>> from keras_opt.callbacks import ReduceLROnPlateau
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        >>> model.compile(keras.optimizers.Adam(keras_opt.schedules.CosineDecay(1e-3, 10_000)), "mse")
        >>> cut = ReduceLROnPlateau("loss", factor=0.5, patience=3, min_lr=1e-6)
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        verbose: int = 0,
        mode: str = "auto",
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
    ):
        super().__init__()
        if not is_number(factor) or not 0 <= factor < 1:
            cure = "The rate is multiplied by it: to halve it, give 0.5."
            raise argument_error("ReduceLROnPlateau", "factor", factor, "a fraction in [0, 1)", cure)
        if not is_number(min_delta):
            raise argument_error("ReduceLROnPlateau", "min_delta", min_delta, "a finite number", "Give 0 for any.")
        check_at_least("ReduceLROnPlateau", "patience", patience, 0)
        check_at_least("ReduceLROnPlateau", "cooldown", cooldown, 0)
        check_at_least("ReduceLROnPlateau", "min_lr", min_lr, 0, whole=False)
        check_choice("ReduceLROnPlateau", "mode", mode, ("auto", "min", "max"))
        check_name("ReduceLROnPlateau", "monitor", monitor)
        self.monitor = monitor
        self.factor = factor
        self.patience = patience
        self.verbose = verbose
        self.mode = resolve_mode(monitor, mode)
        self.min_delta = abs(min_delta)
        self.cooldown = cooldown
        self.min_lr = min_lr
        self._siblings: list[keras.callbacks.Callback] = []
        self._reset()

    def _reset(self) -> None:
        self.best: float | None = None
        self.wait = 0
        self.cooldown_counter = 0
        place = self._siblings.index(self) + 1 if self._siblings else 0
        self._monitored = MonitoredLogs([self.monitor], self._siblings[place:], "ReduceLROnPlateau")
        # By their place among all, the rates that constant optimizers were cut to.
        self._cut_to: dict[int, float] = {}

    def in_cooldown(self) -> bool:
        """Whether a cut is so recent that epochs are not counted."""
        return self.cooldown_counter > 0

    def __deepcopy__(self, memo: dict[int, Any]) -> "ReduceLROnPlateau":
        return copy_without_fit(self, memo)

    def set_model(self, model: keras.Model) -> None:
        super().set_model(model)
        if is_called_by_evaluation(model):
            return
        self._siblings = siblings(self) or []
        self._rates()
        warn_of_early_readers(self)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._reset()
        follow_scaled_schedules(self.model)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        StepHooks.of(self.model).flush()
        follow_scaled_schedules(self.model)  # a MultiOptimizer may have made its parts in the first batch
        logs = {} if logs is None else logs
        optimizer = self.model.optimizer
        for name, single in zip(rate_names(optimizer), single_optimizers(optimizer), strict=True):
            logs[name] = rate_of(single)
        self._warn_if_set_back()
        value = self._monitored.look(epoch, logs).get(self.monitor)
        if value is None:
            return
        if self.mode == "auto":
            self.mode = mode_in_model(self.monitor, self.model)
        check_mode_is_known("ReduceLROnPlateau", self.monitor, self.mode)
        if self._is_due(float(value)) and self._cut(epoch):
            self.cooldown_counter = self.cooldown
            self.wait = 0

    def _is_due(self, value: float) -> bool:
        """Count an epoch; whether the rate is to be cut after it."""
        if self.in_cooldown():
            self.cooldown_counter -= 1
            self.wait = 0
        if improves(value, self.best, self.min_delta, self.mode):
            self.best = value
            self.wait = 0
            return False
        if self.in_cooldown():
            return False
        self.wait += 1
        return self.wait >= self.patience

    def _cut(self, epoch: int) -> bool:
        """Cut every rate that is above `min_lr`; whether there was one."""
        was_cut = False
        for place, rate in enumerate(self._rates()):
            before = rate.read()
            after = max(before * self.factor, self.min_lr)
            if before <= np.float32(self.min_lr) or after >= before:  # a float32 rate may stand a rounding above it
                continue
            was_cut = True
            rate.change(before, after)
            if rate.is_constant:
                self._cut_to[place] = after
            if self.verbose:
                print(f"Epoch {epoch + 1}: ReduceLROnPlateau cuts {rate.name} from {before:.6g} to {after:.6g}.")
        return was_cut

    def _rates(self) -> list[CuttableRate]:
        return cuttable_rates(self.model.optimizer, self._siblings)

    def _warn_if_set_back(self) -> None:
        for place, rate in enumerate(self._rates()):
            cut_to = self._cut_to.pop(place, None)
            if cut_to is not None and rate.is_constant and rate.read() > cut_to * 1.001:
                warnings.warn(
                    f"ReduceLROnPlateau: {rate.name} is {rate.read():.6g}, but was cut to {cut_to:.6g} an epoch ago: "
                    "something else sets it, such as keras.callbacks.LearningRateScheduler. Give its schedule to "
                    "ScheduleLearningRate, which this callback multiplies.",
                    NoEffectWarning,
                    stacklevel=3,
                )

    def state_dict(self) -> dict[str, Any]:
        """What a resumed training needs to cut at the same epochs; a constant rate is a variable of the optimizer."""
        multipliers = [rate.multiplier for rate in self._rates()]
        return {
            "best": self.best,
            "wait": self.wait,
            "cooldown_counter": self.cooldown_counter,
            "mode": self.mode,
            "monitored": self._monitored.state_dict(),
            "cut_to": {str(place): rate for place, rate in self._cut_to.items()},
            "multipliers": [None if each is None else float(keras.ops.convert_to_numpy(each)) for each in multipliers],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was called. Training must have begun, since `on_train_begin` starts anew."""
        self.best = state["best"]
        self.wait = state["wait"]
        self.cooldown_counter = state["cooldown_counter"]
        self.mode = state["mode"]
        self._monitored.load_state_dict(state["monitored"])
        self._cut_to = {int(place): rate for place, rate in state["cut_to"].items()}
        for rate, value in zip(self._rates(), state["multipliers"], strict=True):
            if value is not None:
                rate.multiplier.assign(value)


def improves(value: float, best: float | None, min_delta: float, mode: str) -> bool:
    """Whether `value` is finite and better than `best` by more than `min_delta`; any finite one if there is no best."""
    if not math.isfinite(value):
        return False
    return best is None or better(value - min_delta if mode == "max" else value + min_delta, best, mode)
