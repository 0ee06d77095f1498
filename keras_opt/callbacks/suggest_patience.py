"""What each patience would have cost and kept in a training that is over."""

from typing import Any, NamedTuple

from keras_opt.callbacks.criteria.plateau import Plateau
from keras_opt.callbacks.monitors import check_mode_is_known, resolve_modes
from keras_opt.callbacks.replay import ReplayMeter, logs_by_epoch, replay
from keras_opt.core.errors import InputError, check_at_least

_SHOWN = (1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233)


class PatienceRow(NamedTuple):
    """One patience.

    Args:
        patience: Epochs without improvement that are endured.
        epoch: The epoch after which training would have stopped, from 0; the last one if it would have run to its end.
        best: The best value up to then.
        best_epoch: Its epoch, from 0.
        epochs_saved: The epochs that would not have been run.
    """

    patience: int
    epoch: int
    best: float
    best_epoch: int
    epochs_saved: int


class PatienceTable(NamedTuple):
    """What `suggest_patience` finds; printed, it is a table, in which epochs count from 1.

    Args:
        monitor: The monitored name.
        rows: One for each patience; `pandas.DataFrame(table.rows)` works.
        suggestion: The lowest patience that reaches the best value of the whole training.
    """

    monitor: str
    rows: tuple[PatienceRow, ...]
    suggestion: int

    def __str__(self) -> str:
        lines = [f"patience  stopped after  best {self.monitor}  at epoch  epochs saved"]
        width = len(f"best {self.monitor}")
        for row in self.rows:
            cells = f"{row.patience:8}  {row.epoch + 1:13}  {row.best:{width}.4g}  {row.best_epoch + 1:8}"
            lines.append(f"{cells}  {row.epochs_saved:12}{'  <' if row.patience == self.suggestion else ''}")
        return "\n".join(lines)


def suggest_patience(
    history: Any, monitor: str = "val_loss", mode: str = "auto", min_delta: float = 0, validation_freq: int = 1
) -> PatienceTable:
    """Tabulates what early stopping with each patience would have saved in a finished training, and what it had lost.

    Give it a training that ran without early stopping, or with a generous patience: what would have come after its end
    it cannot know. One training is one draw: look at a few seeds before you cut the patience close.

    Args:
        history: What `fit` returned, or a dict of lists.
        monitor: A name in the history. Default `"val_loss"`.
        mode: `"auto"`, `"min"` or `"max"`, as in `EarlyStopping`.
        min_delta: As in `EarlyStopping`. Default 0.
        validation_freq: As it was in `fit`; patience counts epochs with validation. Default 1.

    Raises:
        ValueError: `monitor` is not in the history or never finite there, or its direction is not known.

    Example:
        >>> import keras_opt
        >>> losses = [0.9, 0.5, 0.6, 0.4, 0.41, 0.42, 0.43, 0.44]
        >>> print(keras_opt.callbacks.suggest_patience({"val_loss": losses}))
        patience  stopped after  best val_loss  at epoch  epochs saved
               1              3            0.5         2             5
               2              6            0.4         4             2  <
               3              7            0.4         4             1
               5              8            0.4         4             0
    """
    check_at_least("suggest_patience", "validation_freq", validation_freq, 1)
    epochs = logs_by_epoch("suggest_patience", history, [monitor], validation_freq)

    def row(patience: int) -> PatienceRow:
        plateau = Plateau(monitor, patience, min_delta, mode=mode)
        resolve_modes([plateau], getattr(history, "model", None), epochs[-1][1])
        check_mode_is_known("suggest_patience", monitor, plateau.mode)
        found = replay(plateau, plateau, ReplayMeter(None, None), epochs)
        last = epochs[-1][0] if found.epoch is None else found.epoch
        saved = sum(number > last for number, _ in epochs)
        return PatienceRow(patience, last, found.best, found.best_epoch, saved)

    best = row(len(epochs)).best if epochs else None
    if best is None:
        raise InputError(
            f"suggest_patience: argument `history` must have a finite value of {monitor!r}. Received: "
            f"{len(epochs)} epochs without one."
        )
    rows = {patience: row(patience) for patience in range(1, max(2, len(epochs)))}
    complete = [patience for patience in rows if rows[patience].best == best]
    shown = [row for patience, row in rows.items() if patience in _SHOWN or patience == complete[0]]
    return PatienceTable(monitor, tuple(shown), complete[0])
