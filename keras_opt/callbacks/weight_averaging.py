"""Averaged weights for validation, for checkpoints and at the end of training."""

import math
import warnings
from typing import Any

import keras
import tensorflow as tf

from keras_opt.callbacks.copying import copy_without_fit
from keras_opt.callbacks.early_stopping import EarlyStopping
from keras_opt.callbacks.fit_params import epochs_of
from keras_opt.callbacks.siblings import siblings
from keras_opt.core.errors import (
    InputError,
    NoEffectWarning,
    argument_error,
    check_at_least,
    check_choice,
    check_fraction,
    check_positive,
)
from keras_opt.core.optimizers import uses_ema
from keras_opt.models.batch_norms import norms_in
from keras_opt.models.batches import check_inputs, check_is_repeatable
from keras_opt.models.reestimate_batch_norm import reestimate_batch_norm as reestimate
from keras_opt.training.averaging import WeightAverager
from keras_opt.training.step_hooks import StepHooks

_DEFAULT_START = {"ema": 0, "swa": 0.75, "lookahead": 0}
_DEFAULT_EVERY = {"ema": 1, "swa": None, "lookahead": 5}
# The share that the weights at the start have in an exponential average: what is warned of, and what is advised.
_MAX_START_SHARE = 0.1
_START_SHARE_TO_ADVISE = 0.01
_SEES_AVERAGES = (EarlyStopping, keras.callbacks.EarlyStopping, keras.callbacks.ModelCheckpoint)


class WeightAveraging(keras.callbacks.Callback):
    """Trains as usual, and validates, saves and ends with an average of the weights.

    An average over many updates lies nearer the middle of the valley in which the weights jump about, and often has the
    better test accuracy, above all at a rate that was not decayed. It does not help a model that is still far from its
    valley: an average looks back.

    With w the weights, a their average and n the number of averagings so far:

        ema        a = ema_momentum * a + (1 - ema_momentum) * w, from the weights at `start`; so no bias is corrected
        swa        a = a + (w - a) / n, the mean of n snapshots; the weights at `start` themselves are not among them
        lookahead  a = a + slow_step_size * (w - a), then w = a: the slow weights, which change training itself

    The averages are in the model during the validation of `fit`, from the end of an epoch for the callbacks listed
    after this one to its begin of the next, and after training, also one that Ctrl-C ended. Training, the callbacks
    listed before at the end of an epoch, and checkpoints within an epoch see the raw weights, and everybody does until
    averaging has started. Weights that another callback sets while the averages are in place are lost. So list
    EarlyStopping and ModelCheckpoint after this callback. A second `fit` starts anew, from the weights as they are
    then.

    Every weight of a floating type is averaged, BatchNorm statistics too; lookahead leaves those of the fast weights,
    as its authors do. Constraints are applied to the averages when they are put in place, so weights pruned by
    `PruneLowMagnitude` stay zero, wherever in the list that stands.

    Args:
        kind: `"ema"` (exponential moving average), `"swa"` (stochastic weight averaging) or `"lookahead"`.
        ema_momentum: Fraction in [0, 1), for ema. The average reaches back 1 / (1 - ema_momentum) averagings: choose it
            well below the updates that you make. Default 0.999.
        start: Int of at least 0, the update of this fit at which averaging starts; or a float between 0 and 1, that
            fraction of the epochs, rounded down to the begin of an epoch. Default 0, for swa 0.75.
        every: Int of at least 1, the updates between two averagings. Default 1 for ema, 5 for lookahead; swa takes its
            snapshots at the end of each epoch. With accumulation, only real updates count, here and in `start`.
        reestimate_batch_norm: Arrays, or a dataset that ends and is no iterator, for it is gone through once an epoch;
            see `models.reestimate_batch_norm`. BatchNorm statistics are then not averaged but taken from it whenever
            the averages are put in place; not after Ctrl-C, which does not wait. Default `None`.
        slow_step_size: Fraction in (0, 1], for lookahead. Default 0.5.

    Raises:
        ValueError: An argument is out of its range; the optimizer has `use_ema`; or the list of callbacks has another
            average, or a wrong order.
        RuntimeError: `start` is a fraction, and a `CallbackList` of your own has no number of epochs.

    Warns:
        NoEffectWarning: Averaging never started.
        UserWarning: There were so few averagings that the weights at the start, which may be random ones, still make up
            more than a tenth of an exponential average.

    Cost: one variable of its size for each weight; while the averages are in place, the raw weights once more. With
        `reestimate_batch_norm` one forward pass over it an epoch.

    Source: P. Izmailov et al., 2018, "Averaging Weights Leads to Wider Optima and Better Generalization", algorithm 1;
        M. Zhang et al., 2019, "Lookahead Optimizer: k steps forward, 1 step back", algorithm 1; B. Polyak and
        A. Juditsky, 1992, "Acceleration of Stochastic Approximation by Averaging".

    Example:
        >>> import keras_opt
        >>> average = keras_opt.callbacks.WeightAveraging("swa", start=0.5)
    """

    def __init__(
        self,
        kind: str = "ema",
        ema_momentum: float = 0.999,
        start: int | float | None = None,
        every: int | None = None,
        reestimate_batch_norm: Any = None,
        slow_step_size: float = 0.5,
    ):
        super().__init__()
        check_choice("WeightAveraging", "kind", kind, _DEFAULT_START)
        check_fraction("WeightAveraging", "ema_momentum", ema_momentum)
        check_positive("WeightAveraging", "slow_step_size", slow_step_size)
        check_fraction("WeightAveraging", "slow_step_size", slow_step_size, one_allowed=True)
        self.kind = kind
        self.ema_momentum = ema_momentum
        self.start = _DEFAULT_START[kind] if start is None else start
        self.every = _DEFAULT_EVERY[kind] if every is None else every
        self.reestimate_batch_norm = reestimate_batch_norm
        self.slow_step_size = slow_step_size
        if isinstance(self.start, float) and not 0 < self.start < 1:
            cure = "Give an int for updates, or a fraction of the epochs."
            raise argument_error("WeightAveraging", "start", start, "an int, or a float between 0 and 1", cure)
        if not isinstance(self.start, float):
            check_at_least("WeightAveraging", "start", self.start, 0)
        if self.every is not None:
            check_at_least("WeightAveraging", "every", self.every, 1)
        if reestimate_batch_norm is not None:
            check_is_repeatable("WeightAveraging", "reestimate_batch_norm", reestimate_batch_norm)
        self._hooks: StepHooks | None = None
        self._plugin: WeightAverager | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> "WeightAveraging":
        memo[id(self.reestimate_batch_norm)] = self.reestimate_batch_norm  # tf.data sets cannot be copied
        return copy_without_fit(self, memo, "_hooks", "_plugin")

    def set_model(self, model: keras.Model) -> None:
        StepHooks.prepare(model)
        super().set_model(model)
        _check_optimizer(model)
        _check_order(self, siblings(self) or [self])
        if self.reestimate_batch_norm is not None:
            check_inputs("WeightAveraging", "reestimate_batch_norm", self.reestimate_batch_norm, model)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        if self._plugin is not None:
            self._hooks.remove(self._plugin)
        self._hooks = StepHooks.of(self.model)
        step_size = {"ema": 1 - self.ema_momentum, "swa": None, "lookahead": self.slow_step_size}[self.kind]
        self._waits_for_epoch = isinstance(self.start, float)
        start = None if self._waits_for_epoch else self.start
        # Rounded first: 0.29 * 100 is a little less than 29.
        self._start_epoch = math.floor(round(self.start * epochs_of(self), 6)) if self._waits_for_epoch else None
        self._plugin = WeightAverager(self.model, step_size, start, self.every, lookahead=self.kind == "lookahead")
        self._snapshot_is_due = self._is_in_for_test = False
        self._statistics: tuple[int, list[Any]] | None = None
        self._hooks.add(self._plugin)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._plugin.take_out()
        self._snapshot_is_due = self.every is None
        if self._waits_for_epoch and epoch >= self._start_epoch:
            self._waits_for_epoch = False
            self._hooks.flush()
            self._plugin.begin()

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        if self._plugin is not None:
            self._is_in_for_test = self._put_in_place()

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        if self._plugin is not None and self._is_in_for_test:
            self._plugin.take_out()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._put_in_place()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._put_in_place()
        plugin, self._plugin = self._plugin, None
        plugin.finish()
        self._hooks.remove(plugin)
        self._warn_of_little_effect(plugin.updates, plugin.averagings)

    def state_dict(self) -> dict[str, Any]:
        """The averages, and while they are in the model the raw weights: what a resumed training goes on with."""
        statistics = None
        if self._statistics is not None:
            updates, values = self._statistics
            statistics = {"updates": updates, "values": [value.numpy() for value in values]}
        return {
            "averages": self._plugin.state_dict(),
            "waits_for_epoch": self._waits_for_epoch,
            "snapshot_is_due": self._snapshot_is_due,
            "statistics": statistics,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was called. Training must have begun, since `on_train_begin` starts anew."""
        self._plugin.load_state_dict(state["averages"])
        self._waits_for_epoch = state["waits_for_epoch"]
        self._snapshot_is_due = state["snapshot_is_due"]
        statistics = state["statistics"]
        self._statistics = None if statistics is None else (statistics["updates"], statistics["values"])

    def _warn_of_little_effect(self, updates: int, averagings: int) -> None:
        share = self.ema_momentum**averagings if self.kind == "ema" else 0
        if not averagings:
            epochs = f" of {epochs_of(self)} epochs" if isinstance(self.start, float) else ""
            warnings.warn(
                f"WeightAveraging: the fit made {updates} updates, and none of them was averaged with "
                f"start={self.start}{epochs} and every={self.every}; the model has its raw weights. Start earlier, or "
                "train longer.",
                NoEffectWarning,
                stacklevel=3,
            )
        elif share > _MAX_START_SHARE:
            warnings.warn(
                f"WeightAveraging: after {averagings} averagings the weights at the start still make up {share:.0%} of "
                f"the average. For so few, ema_momentum={self.ema_momentum} is too high: "
                f"{_START_SHARE_TO_ADVISE ** (1 / averagings):.2g} would leave {_START_SHARE_TO_ADVISE:.0%} of them.",
                UserWarning,
                stacklevel=3,
            )

    def _put_in_place(self) -> bool:
        """Put the averages of now into the model, unless they are there; say whether that was done."""
        self._hooks.flush()
        if self._snapshot_is_due:
            self._snapshot_is_due = False
            self._plugin.take_snapshot()
        is_put = self._plugin.put_in_place()
        if is_put and self.reestimate_batch_norm is not None:
            self._put_statistics()
        return is_put

    def _put_statistics(self) -> None:
        """Statistics for the averages in the model; the same until there is another update."""
        updates = self._plugin.updates
        if self._statistics is None or self._statistics[0] != updates:
            reestimate(self.model, self.reestimate_batch_norm)
            self._statistics = (updates, [tf.convert_to_tensor(each.value) for each in _statistics_of(self.model)])
        for variable, value in zip(_statistics_of(self.model), self._statistics[1], strict=True):
            variable.assign(value)


def _statistics_of(model: keras.Model) -> list[keras.Variable]:
    norms = norms_in(model)
    return [statistic for norm in norms for statistic in (norm.moving_mean, norm.moving_variance)]


def _check_optimizer(model: keras.Model) -> None:
    if uses_ema(getattr(model, "optimizer", None)):
        raise InputError(
            "WeightAveraging: the optimizer has use_ema=True, which would average the weights a second time. Leave "
            "use_ema out of the optimizer, or leave this callback out."
        )


def _check_order(callback: WeightAveraging, callbacks: list[keras.callbacks.Callback]) -> None:
    place = next(place for place, each in enumerate(callbacks) if each is callback)
    before, after = callbacks[:place], callbacks[place + 1 :]
    for each in before + after:
        if isinstance(each, WeightAveraging | keras.callbacks.SwapEMAWeights):
            raise InputError(
                f"WeightAveraging: {type(each).__name__} in the same list averages the weights too. Keep one of them."
            )
    for each in before:
        within_epochs = isinstance(each, keras.callbacks.ModelCheckpoint) and each.save_freq != "epoch"
        if isinstance(each, _SEES_AVERAGES) and not within_epochs:
            raise _order_error(type(each).__name__, "before", "raw", "averaged", "[WeightAveraging, {}]")
    for each in after:
        if isinstance(each, keras.callbacks.BackupAndRestore):
            raise _order_error(type(each).__name__, "after", "averaged", "raw", "[{}, WeightAveraging]")


def _order_error(name: str, place: str, sees: str, should_see: str, order: str) -> InputError:
    return InputError(
        f"WeightAveraging: {name} is listed {place} it, where it sees the {sees} weights at the end of an epoch, not "
        f"the {should_see} ones. List them as callbacks={order.format(name)}."
    )
