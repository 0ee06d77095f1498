"""The criterion that a monitored value has stopped to improve."""

import math
from typing import Any

from keras_opt.callbacks.criteria.criterion import single_criterion
from keras_opt.callbacks.criteria.training_meter import Meter, meter_of
from keras_opt.callbacks.monitors import better, check_mode_is_known, monitored_value, resolve_mode
from keras_opt.core.errors import argument_error, check_at_least, check_choice, check_fraction, check_name, is_number

PATIENCE_UNITS = ("epoch", "update", "second")


@single_criterion("best", "best_epoch", "wait", "reason", "_checks", "_mark", "_smoothed")
class Plateau:
    """Holds while the monitored value has not improved for `patience` epochs, updates or seconds.

    The best value is the lowest or highest finite one seen; NaN and inf are never best, and a tie is no improvement. It
    lets go as soon as the value improves. An epoch without the value, by `validation_freq`, changes nothing.

    Improvement over the best value b, for a value v that is better when lower:

        v + min_delta < b                  or, with `relative`,   v + min_delta * |b| < b

    With `smoothing` s, v is the exponential moving average of the finite values x seen so far, v = s * v + (1 - s) * x,
    from the first of them on. Use it where the value jumps from epoch to epoch by more than it improves; the best epoch
    is then that of the best average.

    Args:
        monitor: A name in the logs, for example `"val_loss"`.
        patience: Number of at least 0, whole for epochs and updates: how long no improvement is endured.
        min_delta: Float; a change smaller than its absolute value is no improvement. Default 0.
        relative: Whether `min_delta` is a fraction of the best value instead of an absolute difference.
        mode: `"min"`, `"max"`, or `"auto"`, which knows losses, errors and the common scores by name, and inside
            `EarlyStopping` also the compiled metric of that name.
        smoothing: Fraction in [0, 1). Default 0, the value itself.
        patience_unit: What `patience` counts: `"epoch"` (those with a value), `"update"` of the weights, or `"second"`
            of training. The value is looked at after each epoch in any case. Default `"epoch"`.
        start_from_epoch: Int of at least 0; earlier epochs are not looked at.
        baseline: A value that must be beaten for patience to start anew, as in Keras's EarlyStopping.

    Raises:
        ValueError: An argument is out of its range; at the first epoch, the direction of `monitor` is not known.
        RuntimeError: Updates or seconds are to be counted outside of `EarlyStopping`, which measures them.

    Example:
        >>> import keras_opt
        >>> plateau = keras_opt.callbacks.Plateau("val_loss", patience=2)
        >>> [plateau.update(epoch, {"val_loss": loss}) for epoch, loss in enumerate([0.9, 0.5, 0.6, 0.7])]
        [False, False, False, True]
        >>> plateau.reason
        'val_loss has not improved for 2 epochs; best 0.5 at epoch 2'
    """

    def __init__(
        self,
        monitor: str,
        patience: float,
        min_delta: float = 0,
        relative: bool = False,
        mode: str = "auto",
        smoothing: float = 0.0,
        patience_unit: str = "epoch",
        start_from_epoch: int = 0,
        baseline: float | None = None,
    ):
        check_choice("Plateau", "patience_unit", patience_unit, PATIENCE_UNITS)
        check_at_least("Plateau", "patience", patience, 0, whole=patience_unit != "second")
        check_at_least("Plateau", "start_from_epoch", start_from_epoch, 0)
        if not is_number(min_delta):
            raise argument_error("Plateau", "min_delta", min_delta, "a finite number", "Give 0 for any improvement.")
        if baseline is not None and not is_number(baseline):
            raise argument_error("Plateau", "baseline", baseline, "a finite number or None", "Give the value to beat.")
        check_choice("Plateau", "mode", mode, ("auto", "min", "max"))
        check_fraction("Plateau", "smoothing", smoothing)
        check_name("Plateau", "monitor", monitor)
        self.monitor = monitor
        self.patience = patience
        self.min_delta = abs(min_delta)
        self.relative = relative
        self.mode = resolve_mode(monitor, mode)
        self.smoothing = smoothing
        self.patience_unit = patience_unit
        self.start_from_epoch = start_from_epoch
        self.baseline = baseline
        self.monitors = (monitor,)
        self.meter: Meter | None = None
        self.reset()

    def reset(self) -> None:
        self.best: float | None = None
        self.best_epoch = 0
        self.wait = 0
        self.reason = ""
        self._checks = 0
        self._smoothed: float | None = None
        self._mark = 0 if self.meter is None else self._position()

    def update(self, epoch: int, logs: dict[str, Any]) -> bool:
        value = monitored_value(self.monitor, logs, "Plateau")
        check_mode_is_known("Plateau", self.monitor, self.mode)
        if epoch < self.start_from_epoch:
            self._mark = self._position()
            return False
        if value is None:
            return self.reason != ""
        self._checks += 1
        self.wait = self._position() - self._mark
        value = self._smooth(value)
        improves = self._improves(value, self.best)
        if improves:
            self.best, self.best_epoch = value, epoch
            if self.baseline is None or self._improves(value, self.baseline):
                self._mark, self.wait = self._position(), 0
        # Keras never stops in the very first epoch, nor in one that improves without beating the baseline.
        holds = not improves and self.wait >= self.patience and epoch > 0
        self.reason = self._sentence() if holds else ""
        return holds

    def get_config(self) -> dict[str, Any]:
        return {
            "monitor": self.monitor,
            "patience": self.patience,
            "min_delta": self.min_delta,
            "relative": self.relative,
            "mode": self.mode,
            "smoothing": self.smoothing,
            "patience_unit": self.patience_unit,
            "start_from_epoch": self.start_from_epoch,
            "baseline": self.baseline,
        }

    def _position(self) -> float:
        """Where training stands, in units of patience."""
        if self.patience_unit == "epoch":
            return self._checks
        meter = meter_of(self, f"patience_unit={self.patience_unit!r}")
        return meter.updates if self.patience_unit == "update" else meter.seconds

    def _smooth(self, value: float) -> float:
        if not math.isfinite(value):
            return value
        first = self._smoothed is None
        self._smoothed = value if first else self.smoothing * self._smoothed + (1 - self.smoothing) * value
        return self._smoothed

    def _improves(self, value: float, reference: float | None) -> bool:
        if not math.isfinite(value):
            return False
        if reference is None:
            return True
        delta = self.min_delta * abs(reference) if self.relative else self.min_delta
        return better(value - delta if self.mode == "max" else value + delta, reference, self.mode)

    def _sentence(self) -> str:
        name = f"{self.monitor} (smoothed)" if self.smoothing else self.monitor
        by = f" by {self.min_delta:g}{' of itself' if self.relative else ''}" if self.min_delta else ""
        count = f"{self.wait:.1f}" if self.patience_unit == "second" else f"{self.wait}"
        waited = f"{count} {self.patience_unit}{'s' if self.wait != 1 else ''}"
        if self.best is None:
            return f"{name} has not been finite for {waited}"
        return f"{name} has not improved{by} for {waited}; best {self.best:.4g} at epoch {self.best_epoch + 1}"
