"""Early stopping by one monitored value, as in Keras, or by a combination of criteria."""

import warnings
from typing import Any

import keras

from keras_opt.callbacks.criteria import Criterion, Plateau, is_criterion, leaves
from keras_opt.callbacks.monitors import check_mode_is_known, mode_in_model
from keras_opt.core.errors import NoEffectWarning, argument_error

_CLASSIC_DEFAULTS = {"min_delta": 0, "patience": 0, "mode": "auto", "baseline": None, "start_from_epoch": 0}


class EarlyStopping(keras.callbacks.Callback):
    """Stops training when a criterion holds, and can put the best weights back.

    With a name for `monitor` it takes Keras's arguments and stops at the same epoch, except that NaN and inf are never
    best. With a criterion it stops when that holds, for example
    `Plateau("val_loss", patience=5) & Plateau("val_accuracy", patience=5) | Target("val_accuracy", 0.99)`.

    Args:
        monitor: A name in the logs, or a criterion, which then says all of the five arguments marked *.
        min_delta: * Float; a smaller change is no improvement. Default 0.
        patience: * Int of at least 0, epochs without improvement that are endured. Default 0.
        verbose: 1 prints why training stopped.
        mode: * `"auto"`, `"min"` or `"max"`; `"auto"` asks the name, then the compiled metric of that name.
        baseline: * A value that must be beaten for patience to start anew.
        restore_best_weights: Whether the model ends with the weights of the best epoch. The best epoch is that of the
            first `Plateau` in reading order. They are cut to the constraints of the model as they are now: beside
            `PruneLowMagnitude`, let `start_from_epoch` be the epoch (from 0) in which the final sparsity is reached.
        start_from_epoch: * Int of at least 0; earlier epochs are not looked at.

    Attributes:
        stopped_because: One sentence on why training stopped, empty if it ran to its end. `history.stop_reason` says
            either.
        stopped_epoch, best, best_epoch, wait: As in Keras; epochs count from 0.

    Raises:
        ValueError: An argument is out of its range, or a criterion came with one of the arguments marked *; while
            training, a monitored name is not in the logs, or its direction is not known.

    Warns:
        NoEffectWarning: An epoch ended without the validation that a criterion looks at; such epochs are not counted.
        UserWarning: The best weights are from before a pruning, and were cut to its mask without training after it.

    Cost: with `restore_best_weights` a copy of the weights in host memory at each improvement.

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
        self._plateau = next((leaf for leaf in leaves(self.criterion) if isinstance(leaf, Plateau)), None)
        if restore_best_weights and self._plateau is None:
            cure = "Add a Plateau, whose monitored value says which epoch is best."
            raise argument_error("EarlyStopping", "restore_best_weights", True, "False without a Plateau", cure)
        self._reset()

    def _reset(self) -> None:
        self.criterion.reset()
        self.best_weights: list[Any] | None = None
        self.stopped_epoch = 0
        self.stopped_because = ""
        self._warned = False

    @property
    def best(self) -> float | None:
        return None if self._plateau is None else self._plateau.best

    @property
    def best_epoch(self) -> int:
        return 0 if self._plateau is None else self._plateau.best_epoch

    @property
    def wait(self) -> int:
        return 0 if self._plateau is None else self._plateau.wait

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._reset()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        logs = logs or {}
        self._warn_without_validation(epoch, logs)
        self._resolve_modes(logs)
        holds = self.criterion.update(epoch, logs)
        if self.restore_best_weights and self.best is not None and self.best_epoch == epoch:
            self.best_weights = self.model.get_weights()
        if holds:
            self.stopped_epoch = epoch
            self.stopped_because = self.criterion.reason
            self.model.stop_training = True

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        if self.best_weights is not None:
            self.model.set_weights(self.best_weights)
            self._keep_constraints()
        if getattr(self.model, "history", None) is not None:
            ran_out = f"all {self.params['epochs']} epochs were run"
            self.model.history.stop_reason = self.stopped_because or ran_out
        if self.verbose and self.stopped_because:
            print(f"Stopped after epoch {self.stopped_epoch + 1}: {self.stopped_because}.")

    def _resolve_modes(self, logs: dict[str, Any]) -> None:
        for leaf in leaves(self.criterion):
            if getattr(leaf, "mode", None) == "auto" and leaf.monitor in logs:
                leaf.mode = mode_in_model(leaf.monitor, self.model)
                owner = "EarlyStopping" if self._is_classic else type(leaf).__name__
                check_mode_is_known(owner, leaf.monitor, leaf.mode)

    def _keep_constraints(self) -> None:
        """Apply the constraints, which act in the training step only, to the weights that were put back."""
        cut = []
        for variable in self.model.trainable_variables:
            if variable.constraint is None:
                continue
            before = keras.ops.convert_to_numpy(variable)
            variable.assign(variable.constraint(variable.value))
            if ((before != 0) & (keras.ops.convert_to_numpy(variable) == 0)).any():
                cut.append(variable.path)
        if cut:
            warnings.warn(
                f"EarlyStopping: the best weights, of epoch {self.best_epoch + 1}, are denser than the model became "
                f"later; {', '.join(cut)} were pruned again, with no training after it. Give EarlyStopping "
                "start_from_epoch=, the epoch (from 0) in which the final sparsity is reached.",
                UserWarning,
                stacklevel=2,
            )

    def _warn_without_validation(self, epoch: int, logs: dict[str, Any]) -> None:
        monitors = [leaf.monitor for leaf in leaves(self.criterion) if hasattr(leaf, "monitor")]
        unseen = [name for name in monitors if name.startswith("val_") and name not in logs]
        if unseen and not self._warned:
            self._warned = True
            warnings.warn(
                f"EarlyStopping: epoch {epoch + 1} had no validation, so {unseen[0]!r} is not in its logs. Give `fit` "
                "validation_data; with validation_freq above 1 all is well, and only epochs with validation count.",
                NoEffectWarning,
                stacklevel=2,
            )


def _checked(criterion: Any, classic: dict[str, Any]) -> Criterion:
    if not is_criterion(criterion):
        cure = 'Give "val_loss", or for example Plateau("val_loss", patience=5).'
        raise argument_error("EarlyStopping", "monitor", criterion, "a name in the logs or a criterion", cure)
    for name, value in classic.items():
        if value != _CLASSIC_DEFAULTS[name]:
            cure = "Give it to the criterion, for example Plateau(..., patience=5)."
            raise argument_error("EarlyStopping", name, value, "left out beside a criterion", cure)
    return criterion
