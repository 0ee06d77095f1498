"""Criteria that say when training should stop, combined with `&` and `|`."""

import math
from typing import Any, Protocol, TypeVar

import keras

from keras_opt.callbacks.monitors import better, check_mode_is_known, monitored_value, resolve_mode
from keras_opt.core.errors import argument_error, check_at_least, check_choice, is_number


class Criterion(Protocol):
    """What `EarlyStopping` asks of a criterion."""

    reason: str
    """One readable sentence on why it holds; empty while it does not."""

    def reset(self) -> None:
        """Forget what was seen; called when training begins."""

    def update(self, epoch: int, logs: dict[str, Any]) -> bool:
        """Look at the logs of an ended epoch (counted from 0); say whether the criterion holds now."""


C = TypeVar("C", bound=type)


def combinable(cls: C) -> C:
    """Give a criterion class `&` and `|`, and refuse `and` and `or`, which would drop one side without a word."""

    def refuse(self):
        raise TypeError(
            f"{type(self).__name__} has no truth value: combine criteria with & or |, not with `and`, `or`, `not`."
        )

    cls.__and__ = lambda self, other: Both(self, other)
    cls.__or__ = lambda self, other: Either(self, other)
    cls.__bool__ = refuse
    return cls


@keras.saving.register_keras_serializable("keras_opt")
@combinable
class Plateau:
    """Holds while the monitored value has not improved for `patience` epochs.

    The best value is the lowest or highest finite one seen; NaN and inf are never best, and a tie is no improvement. It
    lets go as soon as the value improves.

    Args:
        monitor: A name in the logs, for example `"val_loss"`.
        patience: Int of at least 0, the epochs without improvement that are still endured.
        min_delta: Float of at least 0; a smaller change is no improvement. Default 0.
        relative: Whether `min_delta` is a fraction of the best value instead of an absolute difference.
        mode: `"min"`, `"max"`, or `"auto"`, which knows losses, errors and the common scores by name, and inside
            `EarlyStopping` also the compiled metric of that name.
        baseline: A value that must be beaten for patience to start anew, as in Keras's EarlyStopping.
        start_from_epoch: Int of at least 0; earlier epochs are not looked at.

    Raises:
        ValueError: An argument is out of its range; at the first epoch, the direction of `monitor` is not known.

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
        patience: int,
        min_delta: float = 0,
        relative: bool = False,
        mode: str = "auto",
        baseline: float | None = None,
        start_from_epoch: int = 0,
    ):
        check_at_least("Plateau", "patience", patience, 0)
        check_at_least("Plateau", "start_from_epoch", start_from_epoch, 0)
        if not is_number(min_delta):
            raise argument_error("Plateau", "min_delta", min_delta, "a finite number", "Give 0 for any improvement.")
        check_choice("Plateau", "mode", mode, ("auto", "min", "max"))
        self.monitor = monitor
        self.patience = patience
        self.min_delta = abs(min_delta)
        self.relative = relative
        self.mode = resolve_mode(monitor, mode)
        self.baseline = baseline
        self.start_from_epoch = start_from_epoch
        self.reset()

    def reset(self) -> None:
        self.best: float | None = None
        self.best_epoch = 0
        self.wait = 0
        self.reason = ""

    def update(self, epoch: int, logs: dict[str, Any]) -> bool:
        value = monitored_value(self.monitor, logs, "Plateau")
        check_mode_is_known("Plateau", self.monitor, self.mode)
        if value is None or epoch < self.start_from_epoch:
            return False
        self.wait += 1
        improves = self._improves(value, self.best)
        if improves:
            self.best, self.best_epoch = value, epoch
            if self.baseline is None or self._improves(value, self.baseline):
                self.wait = 0
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
            "baseline": self.baseline,
            "start_from_epoch": self.start_from_epoch,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Plateau":
        return cls(**config)

    def _improves(self, value: float, reference: float | None) -> bool:
        if not math.isfinite(value):
            return False
        if reference is None:
            return True
        delta = self.min_delta * abs(reference) if self.relative else self.min_delta
        return better(value - delta if self.mode == "max" else value + delta, reference, self.mode)

    def _sentence(self) -> str:
        by = f" by {self.min_delta:g}{' of itself' if self.relative else ''}" if self.min_delta else ""
        epochs = f"{self.wait} epoch{'s' if self.wait != 1 else ''}"
        if self.best is None:
            return f"{self.monitor} has not been finite for {epochs}"
        best = f"best {self.best:.4g} at epoch {self.best_epoch + 1}"
        return f"{self.monitor} has not improved{by} for {epochs}; {best}"


@keras.saving.register_keras_serializable("keras_opt")
@combinable
class Target:
    """Holds from the epoch on in which the monitored value reaches `value`.

    Args:
        monitor: A name in the logs, for example `"val_accuracy"`.
        value: The finite number to reach.
        mode: `"min"`, `"max"`, or `"auto"`, which knows losses, errors and the common scores by name, and inside
            `EarlyStopping` also the compiled metric of that name.

    Raises:
        ValueError: `value` is not finite; at the first epoch, the direction of `monitor` is not known.

    Example:
        >>> import keras_opt
        >>> target = keras_opt.callbacks.Target("val_accuracy", 0.9)
        >>> [target.update(epoch, {"val_accuracy": accuracy}) for epoch, accuracy in enumerate([0.5, 0.92])]
        [False, True]
        >>> target.reason
        'val_accuracy reached 0.9 with 0.92 at epoch 2'
    """

    def __init__(self, monitor: str, value: float, mode: str = "auto"):
        if not is_number(value):
            raise argument_error("Target", "value", value, "a finite number", "Give the value to reach.")
        check_choice("Target", "mode", mode, ("auto", "min", "max"))
        self.monitor = monitor
        self.value = value
        self.mode = resolve_mode(monitor, mode)
        self.reset()

    def reset(self) -> None:
        self.reason = ""

    def update(self, epoch: int, logs: dict[str, Any]) -> bool:
        value = monitored_value(self.monitor, logs, "Target")
        check_mode_is_known("Target", self.monitor, self.mode)
        if not self.reason and value is not None and (value == self.value or better(value, self.value, self.mode)):
            self.reason = f"{self.monitor} reached {self.value:g} with {value:.4g} at epoch {epoch + 1}"
        return bool(self.reason)

    def get_config(self) -> dict[str, Any]:
        return {"monitor": self.monitor, "value": self.value, "mode": self.mode}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Target":
        return cls(**config)


class _Pair:
    """Two criteria and what they say together."""

    def __init__(self, first: Criterion, second: Criterion):
        for name, criterion in (("first", first), ("second", second)):
            if not is_criterion(criterion):
                cure = "Combine criteria such as Plateau and Target."
                raise argument_error(type(self).__name__, name, criterion, "a criterion", cure)
        self.first = first
        self.second = second
        self.reason = ""

    def reset(self) -> None:
        self.first.reset()
        self.second.reset()
        self.reason = ""

    def update(self, epoch: int, logs: dict[str, Any]) -> bool:
        # Every single criterion is asked each time, for each keeps its own count; and once, however often it is used.
        return self._combine({id(leaf): leaf.update(epoch, logs) for leaf in leaves(self)})

    def _combine(self, held: dict[int, bool]) -> bool:
        """What the pair says, given what each single criterion said."""
        parts = (self.first, self.second)
        holding = [part for part in parts if (part._combine(held) if isinstance(part, _Pair) else held[id(part)])]
        holds = len(holding) >= self.needed
        self.reason = " and ".join(part.reason for part in holding) if holds else ""
        return holds


@combinable
class Both(_Pair):
    """Holds when both criteria hold at the same check; made by `&`."""

    needed = 2


@combinable
class Either(_Pair):
    """Holds when one criterion holds; made by `|`."""

    needed = 1


def is_criterion(value: object) -> bool:
    """Whether `value` has what `EarlyStopping` asks of a criterion."""
    return all(hasattr(value, name) for name in ("reason", "reset", "update"))


def leaves(criterion: Criterion) -> list[Criterion]:
    """The single criteria of a combination in reading order, each once."""
    if not isinstance(criterion, _Pair):
        return [criterion]
    used = leaves(criterion.first) + leaves(criterion.second)
    return list({id(leaf): leaf for leaf in used}.values())
