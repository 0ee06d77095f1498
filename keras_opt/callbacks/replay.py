"""Criteria run over the history of a training that is over."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from keras_opt.callbacks.criteria.criterion import Criterion, holds, leaves
from keras_opt.callbacks.criteria.plateau import Plateau
from keras_opt.callbacks.monitors import missing_monitor
from keras_opt.core.errors import InputError, argument_error


class Replay(NamedTuple):
    """Where a training would have stopped; printed, it is a sentence, in which epochs count from 1.

    Args:
        epoch: The epoch after which it would have stopped, from 0; `None` if it would have run to its end.
        reason: One sentence on why; empty if it would have run to its end.
        best_epoch: The epoch, from 0, whose weights `restore_best_weights` would have put back; `None` without a value.
        best: Its value.
    """

    epoch: int | None
    reason: str
    best_epoch: int | None
    best: float | None

    def __str__(self) -> str:
        best = "" if self.best is None else f" The best value, {self.best:.5g}, is that of epoch {self.best_epoch + 1}."
        if self.epoch is None:
            return f"It would not have stopped.{best}"
        return f"It would have stopped after epoch {self.epoch + 1}: {self.reason}.{best}"


class ReplayMeter:
    """The meter of a replay, set forward epoch by epoch.

    Args:
        steps_per_epoch: Updates of an epoch; `None` if not known.
        seconds_per_epoch: Seconds of an epoch; `None` if not known.
    """

    validation_seconds = 0.0

    def __init__(self, steps_per_epoch: int | None, seconds_per_epoch: float | None):
        self._steps_per_epoch = steps_per_epoch
        self._seconds_per_epoch = seconds_per_epoch
        self.epochs = 0

    @property
    def updates(self) -> int:
        return self.epochs * self._known("updates", "steps_per_epoch", self._steps_per_epoch)

    @property
    def seconds(self) -> float:
        return self.epochs * self._known("seconds", "seconds_per_epoch", self._seconds_per_epoch)

    def _known(self, what: str, name: str, value: float | None) -> float:
        if value is None:
            must_be = f"known, for a criterion counts {what}, which a history does not hold"
            raise argument_error("replay", name, value, must_be, f"Give {name}=, the {what} that one epoch took.")
        return value


def replay(criterion: Criterion, tracker: Plateau | None, meter: ReplayMeter, epochs: list[Any]) -> Replay:
    """Run `criterion` over what `logs_by_epoch` gives, and `tracker`, which says what is best."""
    parts = leaves(criterion)
    if tracker is not None and tracker not in parts:
        parts.append(tracker)
    for part in parts:
        if hasattr(part, "meter"):
            part.meter = meter
        part.reset()
    stopped = None
    for epoch, logs in epochs:
        meter.epochs += 1
        for part in parts:
            part.update(epoch, logs)
        if holds(criterion):
            stopped = epoch
            break
    reason = criterion.reason if stopped is not None else ""
    if tracker is None or tracker.best is None:
        return Replay(stopped, reason, None, None)
    return Replay(stopped, reason, tracker.best_epoch, tracker.best)


def logs_by_epoch(
    owner: str, history: Any, names: Sequence[str], validation_freq: int = 1
) -> list[tuple[int, dict[str, Any]]]:
    """The values of `names` in a `History`, or a dict of lists: the number of each epoch and its logs.

    A value is `None` in the epochs without validation.

    Raises:
        ValueError: A name is not in the history, or its values do not fit the number of epochs.
    """
    columns = getattr(history, "history", history)
    numbers = getattr(history, "epoch", None) or range(max(map(len, columns.values()), default=0))
    validated = [number for number in numbers if (number + 1) % validation_freq == 0]
    by_epoch: dict[int, dict[str, Any]] = {number: dict.fromkeys(names) for number in numbers}
    for name in names:
        if name not in columns:
            raise missing_monitor(owner, name, columns, "")
        values = columns[name]
        if len(values) not in (len(numbers), len(validated)):
            raise InputError(
                f"{owner}: argument `history` must have a value of {name!r} for each of its {len(numbers)} epochs, or "
                f"for the {len(validated)} with validation. Received: {len(values)} values. Give validation_freq= as "
                "it was in `fit`."
            )
        for number, value in zip(numbers if len(values) == len(numbers) else validated, values, strict=True):
            by_epoch[number][name] = value
    return list(by_epoch.items())
