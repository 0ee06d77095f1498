"""Early stopping by one monitored value, as in Keras, or by a combination of criteria."""

import copy
import os
import warnings
from typing import Any

import keras

from keras_opt.callbacks.best_weights import BestWeights
from keras_opt.callbacks.copying import copy_without_fit
from keras_opt.callbacks.criteria.criterion import Criterion, holds, is_criterion, leaves, load_states, states_of
from keras_opt.callbacks.criteria.plateau import Plateau
from keras_opt.callbacks.criteria.time_budget import TimeBudget
from keras_opt.callbacks.criteria.training_meter import TrainingMeter, check_one_worker
from keras_opt.callbacks.monitored_logs import MonitoredLogs
from keras_opt.callbacks.monitors import check_mode_is_known, resolve_modes
from keras_opt.callbacks.replay import Replay, ReplayMeter, logs_by_epoch, replay
from keras_opt.callbacks.siblings import siblings
from keras_opt.core.errors import argument_error, check_at_least, check_name
from keras_opt.training.callers import Training
from keras_opt.training.interrupt import Interrupt
from keras_opt.training.step_hooks import StepHooks

_CLASSIC_DEFAULTS = {"min_delta": 0, "patience": 0, "mode": "auto", "baseline": None, "start_from_epoch": 0}


class EarlyStopping(keras.callbacks.Callback):
    """Stops training when a criterion holds, and can put the best weights back.

    With a name for `monitor` it takes Keras's arguments and stops at the same epoch, with these differences: NaN and
    inf are never best; the best weights are put back after Ctrl-C too; and the state can be saved and resumed, where a
    plain second `fit` starts anew as in Keras. A value that equals the best one is no improvement, as in Keras; the
    snippet that goes round among PyTorch users counts it as one. `baseline` does not stop training when it is reached
    (`Target` does): it must be beaten for patience to start anew.

    With a criterion it stops when that holds, for example
    `Plateau("val_loss", patience=5) & Plateau("val_accuracy", patience=5) | Target("val_accuracy", 0.99)`.

    A monitored value may come from any callback listed before, for example one that evaluates a second validation set
    under a prefix of its own. It must be in the logs of the first epoch; in later ones it may be missing.

    Args:
        monitor: A name in the logs, or a criterion, which then says all of the five arguments marked *.
        min_delta: * Float; a smaller change is no improvement. Default 0.
        patience: * Int of at least 0, epochs without improvement that are endured. Default 0. With `OneCycle` let it
            cover the rise of the rate (`warmup_fraction` of the training), in which losses often stand still or grow;
            the best epochs come at the end.
        verbose: 1 prints why training stopped.
        mode: * `"auto"`, `"min"` or `"max"`; `"auto"` asks the name, then the compiled metric of that name.
        baseline: * A value that must be beaten for patience to start anew.
        restore_best_weights: Whether the model ends with the weights of the best epoch. The best epoch is that of the
            first `Plateau` in reading order, or of `best`. They are cut to the constraints of the model as they are
            now: beside `PruneLowMagnitude`, let `start_from_epoch` be the epoch (from 0) in which the final sparsity is
            reached.
        start_from_epoch: * Int of at least 0; earlier epochs are not looked at.
        best: With `restore_best_weights`, the name in the logs whose best value says which epoch is best. Its direction
            must be known as with mode `"auto"`. Default `None`.
        filepath: With `restore_best_weights`, a file ending in `.weights.h5` that holds the best weights so far,
            instead of a copy in memory. It is whole at any moment, and stays. Default `None`.

    Attributes:
        stopped_because: One sentence on why it stopped training, empty if it did not. `history.stop_reason` says why
            training ended in any case.
        stopped_epoch, best, best_epoch, wait: As in Keras; epochs count from 0.

    Raises:
        ValueError: An argument is out of its range, or a criterion came with one of the arguments marked *; while
            training, a monitored name is not in the logs, or its direction is not known.

    Warns:
        NoEffectWarning: An epoch ended without the validation that a criterion looks at; such epochs are not counted.
        UserWarning: The best weights are from before a pruning, and were cut to its mask without training after it.

    Cost: with `restore_best_weights` one copy of the weights in host memory, written over at each improvement; with
        `filepath` a file of weights and optimizer state, written at each improvement.

    Source: L. Prechelt, 1998, "Early Stopping - But When?".

    Example:
        >>> import keras_opt
        >>> from keras_opt.callbacks import EarlyStopping, Plateau, Target
        >>> stop = EarlyStopping(Plateau("val_loss", patience=5) | Target("val_accuracy", 0.99))
    """

    def __init__(
        self,
        monitor: str | Criterion = "val_loss",
        min_delta: float = 0,
        patience: int = 0,
        verbose: int = 0,
        mode: str = "auto",
        baseline: float | None = None,
        restore_best_weights: bool = False,
        start_from_epoch: int = 0,
        best: str | None = None,
        filepath: str | os.PathLike | None = None,
    ):
        super().__init__()
        classic = {
            "min_delta": min_delta,
            "patience": patience,
            "mode": mode,
            "baseline": baseline,
            "start_from_epoch": start_from_epoch,
        }
        self._is_classic = isinstance(monitor, str)
        self.criterion = Plateau(monitor, **classic) if self._is_classic else _checked(monitor, classic)
        self.verbose = verbose
        self.restore_best_weights = restore_best_weights
        self.filepath = filepath
        if best is not None:
            check_name("EarlyStopping", "best", best)
        self._plateau = next((leaf for leaf in leaves(self.criterion) if isinstance(leaf, Plateau)), None)
        # What is best is the affair of one Plateau, be it a part of the criterion or not.
        self._tracker = self._plateau if best is None else Plateau(best, 0, start_from_epoch=start_from_epoch)
        self._monitors = list(dict.fromkeys(name for part in self._parts for name in getattr(part, "monitors", ())))
        self._budgets = [leaf for leaf in leaves(self.criterion) if isinstance(leaf, TimeBudget)]
        self._check_restoring(best)
        self._meter: TrainingMeter | None = None
        self._training: Training | None = None
        self._interrupt = Interrupt(self._on_interrupt)
        self._later: list[keras.callbacks.Callback] = []
        self._reset()

    def _check_restoring(self, best: str | None) -> None:
        if not self.restore_best_weights:
            for name, value in (("best", best), ("filepath", self.filepath)):
                if value is not None:
                    cure = "Give restore_best_weights=True, or leave it out."
                    raise argument_error("EarlyStopping", name, value, "None without restore_best_weights", cure)
        elif self._tracker is None:
            cure = 'Add a Plateau, whose monitored value says which epoch is best, or give best="val_loss".'
            raise argument_error("EarlyStopping", "restore_best_weights", True, "False without a Plateau", cure)

    def _reset(self) -> None:
        for part in self._parts:
            part.reset()
        self._weights = BestWeights(self.filepath)
        self._epoch = 0
        self._monitored = MonitoredLogs(self._monitors, self._later)
        self.stopped_epoch = 0
        self.stopped_because = ""

    @property
    def _parts(self) -> list[Any]:
        """The single criteria, and what says which epoch is best if that is none of them."""
        own = [] if self._tracker is self._plateau else [self._tracker]
        return leaves(self.criterion) + own

    @property
    def best(self) -> float | None:
        return None if self._tracker is None else self._tracker.best

    @property
    def best_epoch(self) -> int:
        return 0 if self._tracker is None else self._tracker.best_epoch

    @property
    def best_weights(self) -> list[Any] | None:
        """The best weights so far, if they are kept in memory; written over when there are better ones."""
        return self._weights.arrays

    @property
    def wait(self) -> float:
        return 0 if self._plateau is None else self._plateau.wait

    # --- fit ---------------------------------------------------------------------------------------------------------

    def __deepcopy__(self, memo: dict[int, Any]) -> "EarlyStopping":
        return copy_without_fit(self, memo)

    def set_model(self, model: keras.Model) -> None:
        self._interrupt.disarm()  # armed since a fit that an exception has ended
        super().set_model(model)
        if any(_reads_clock(part) for part in self._parts):
            check_one_worker(model)
        neighbours = siblings(self) or [self]
        self._later = neighbours[neighbours.index(self) + 1 :]

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._interrupt.disarm()
        self._meter = TrainingMeter(self.model)
        for part in self._parts:
            if hasattr(part, "meter"):
                part.meter = self._meter
        self._reset()
        if self.restore_best_weights:
            self._training = Training(self.model)
            self._interrupt = Interrupt(self._on_interrupt)
            self._interrupt.arm()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self._budgets:
            self._meter.begin_execution()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self._budgets:
            self._meter.end_execution()
            for budget in self._budgets:
                budget.check()
            if holds(self.criterion):
                self._stop()

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        if self._meter is not None:
            self._meter.begin_validation()

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        if self._meter is not None:
            self._meter.end_validation()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epoch = epoch
        if isinstance(getattr(self.model, "optimizer", None), keras.optimizers.Optimizer):
            StepHooks.of(self.model).flush()
        logs = self._monitored.look(epoch, logs or {})
        resolve_modes(self._parts, self.model, logs)
        self._check_directions(logs)
        for part in self._parts:
            part.update(epoch, logs)
        if self.restore_best_weights and self.best is not None and self.best_epoch == epoch:
            self._weights.keep(self.model)
        if holds(self.criterion):
            self._stop()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        reason = self._end()
        self._interrupt.disarm()
        self._training = None
        if self.verbose and (self.stopped_because or self._weights.is_kept):
            stopped = f"Stopped after epoch {self.stopped_epoch + 1}: {reason}." if self.stopped_because else ""
            restored = f"The weights are those of epoch {self.best_epoch + 1}." if self._weights.is_kept else ""
            print(f"{stopped} {restored}".strip())

    def _stop(self) -> None:
        if not self.stopped_because:
            self.stopped_epoch = self._epoch
            self.stopped_because = self.criterion.reason
        self.model.stop_training = True

    def _on_interrupt(self) -> None:
        if not self._training.is_running():  # an exception has ended it before
            return
        self.stopped_because = f"interrupted by Ctrl-C in epoch {self._epoch + 1}"
        self._end()
        self._interrupt.disarm()

    def _end(self) -> str:
        """Put the best weights back and tell the history why training ended; return that."""
        if self._weights.is_kept:
            self._warn_of_cut_weights(self._weights.put_back(self.model))
        history = getattr(self.model, "history", None)
        epochs = (self.params or {}).get("epochs", self._epoch + 1)
        last = history.epoch[-1] + 1 if getattr(history, "epoch", None) else epochs
        reason = self.stopped_because or f"all {epochs} epochs were run"
        if last < epochs and not self.stopped_because:
            # Another EarlyStopping may have told why.
            reason = getattr(history, "stop_reason", f"another callback stopped it after epoch {last}")
        if history is not None:
            history.stop_reason = reason
        return reason

    def _check_directions(self, logs: dict[str, Any]) -> None:
        """The criteria of a combination, which have a `mode` of their own, check themselves."""
        if self._is_classic and self._plateau.monitor in logs:
            check_mode_is_known("EarlyStopping", self._plateau.monitor, self._plateau.mode)
        if self._tracker is not self._plateau and self._tracker.monitor in logs and self._tracker.mode == "auto":
            cure = "Leave it out, and let a Plateau(..., mode=...) of that name be the first in reading order."
            name = self._tracker.monitor
            raise argument_error("EarlyStopping", "best", name, "a name whose direction is known", cure)

    def _warn_of_cut_weights(self, cut: list[str]) -> None:
        if cut:
            warnings.warn(
                f"EarlyStopping: the best weights, of epoch {self.best_epoch + 1}, are denser than the model became "
                f"later; {', '.join(cut)} were pruned again, with no training after it. Give EarlyStopping "
                "start_from_epoch=, the epoch (from 0) in which the final sparsity is reached.",
                UserWarning,
                stacklevel=2,
            )

    # --- resume and replay -------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed training needs to stop as this one would: numbers, texts, and arrays of weights."""
        return {
            "criteria": states_of(self._parts),
            "meter": None if self._meter is None else self._meter.state_dict(),
            "monitored": self._monitored.state_dict(),
            "weights": self._weights.state_dict(),
            "stopped_epoch": self.stopped_epoch,
            "stopped_because": self.stopped_because,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was called. Training must have begun, since `on_train_begin` starts anew.

        Raises:
            ValueError: The state is that of other criteria.
        """
        load_states(self._parts, state["criteria"])
        if self._meter is not None and state["meter"] is not None:
            self._meter.load_state_dict(state["meter"])
        self._monitored.load_state_dict(state["monitored"])
        self._weights.load_state_dict(state["weights"])
        self.stopped_epoch = state["stopped_epoch"]
        self.stopped_because = state["stopped_because"]

    def replay(
        self,
        history: Any,
        validation_freq: int = 1,
        steps_per_epoch: int | None = None,
        seconds_per_epoch: float | None = None,
    ) -> Replay:
        """Runs the criteria over a finished history, and says where this callback would have stopped that training.

        Args:
            history: What `fit` returned, or a dict of lists.
            validation_freq: As it was in `fit`. Default 1.
            steps_per_epoch: Updates of an epoch, for `Plateau(patience_unit="update")`. Default: what a `History`
                knows.
            seconds_per_epoch: Seconds of an epoch, for `TimeBudget` and `Plateau(patience_unit="second")`.

        Returns:
            A `Replay`: a named tuple of `epoch` and `best_epoch` (from 0, as in `history.epoch`; `None` if it would not
            have stopped), `reason` and `best`. Print it for a sentence, where epochs count from 1 as in `reason`.

        Raises:
            ValueError: A monitored name is not in the history, its direction is not known, or a criterion counts
                updates or seconds that are not known.

        Example:
            >>> from keras_opt.callbacks import EarlyStopping
            >>> EarlyStopping("val_loss", patience=1).replay({"val_loss": [3.0, 2.0, 2.5, 1.0]}).epoch
            2
        """
        check_at_least("replay", "validation_freq", validation_freq, 1)
        epochs = logs_by_epoch("replay", history, self._monitors, validation_freq)
        params = getattr(history, "params", None) or {}
        meter = ReplayMeter(steps_per_epoch or params.get("steps"), seconds_per_epoch)
        # Copies, so that a running training is not disturbed; in place of its meter the new one.
        meters = {} if self._meter is None else {id(self._meter): meter}
        criterion, tracker = copy.deepcopy((self.criterion, self._tracker), meters)
        resolve_modes([*leaves(criterion), tracker], getattr(history, "model", None), epochs[-1][1] if epochs else {})
        return replay(criterion, tracker, meter, epochs)


def _checked(criterion: Any, classic: dict[str, Any]) -> Criterion:
    if not is_criterion(criterion):
        cure = 'Give "val_loss", or for example Plateau("val_loss", patience=5).'
        raise argument_error("EarlyStopping", "monitor", criterion, "a name in the logs or a criterion", cure)
    for name, value in classic.items():
        if value != _CLASSIC_DEFAULTS[name]:
            cure = "Give it to the criterion, for example Plateau(..., patience=5)."
            raise argument_error("EarlyStopping", name, value, "left out beside a criterion", cure)
    return criterion


def _reads_clock(leaf: Any) -> bool:
    return isinstance(leaf, TimeBudget) or getattr(leaf, "patience_unit", None) == "second"
