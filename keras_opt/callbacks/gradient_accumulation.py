"""Batches larger than the memory, from micro-batches."""

import numbers
from typing import Any

import keras

from keras_opt.callbacks.copying import copy_without_fit
from keras_opt.callbacks.loss_reduction import (
    are_activities_summed,
    common_reduction,
    layers_with_activity_regularizer,
)
from keras_opt.core.errors import InputError, argument_error
from keras_opt.core.optimizers import inner, parts
from keras_opt.training.accumulation import GradientAccumulator, check_unregularized
from keras_opt.training.step_hooks import StepHooks, has_own_train_step
from keras_opt.training.weighed_shares import are_shares_weighed


class GradientAccumulation(keras.callbacks.Callback):
    """Makes one update from the gradients of several micro-batches: exactly that of the batch they make up.

    Use it where the batch you want does not fit into memory, with the micro-batch as the batch size of `fit`. It saves
    no time: a batch that fits is faster.

    With `g_i` the gradient of micro-batch i and `w_i` its samples, the optimizer gets `sum(w_i g_i) / sum(w_i)`, over
    the micro-batches of all replicas. For a loss with reduction `"mean_with_sample_weight"`, `w_i` is the sum of the
    sample weights; for reduction `"sum"` the optimizer gets `sum(g_i)`. Schedules, clipping, weight decay, averaging
    and `optimizer.iterations` count updates, not micro-batches: a schedule's `decay_steps` are those of the big batch.

    Micro-batches left over at an epoch's end make an update of their own, before the validation and before any callback
    sees the epoch's end; nothing is carried into the next epoch or the next fit. Where `fit` does not know the number
    of batches (from a Python generator), or a callback listed after this one stops training in mid-epoch, that update
    comes when this callback sees the validation begin or the epoch end: list it before all that look at the weights.
    Ctrl-C drops them; so does the next fit with a callback of keras_opt after one that an exception ended, until which
    the model stays hooked (`keras_opt.training.attach` is the `finally` that `fit` lacks). Under a `LossScaleOptimizer`
    a micro-batch that overflowed is left out, and the next one takes its place.

    Not exactly the big batch:

    - BatchNormalization normalizes each micro-batch by itself, and its moving statistics move with each. The weights of
      a convnet with two of them moved 12% otherwise with 4 x 16 samples than with 64, 29% with 8 x 8 and 4% with 4 x 32
      (relative deviation of the weight change after five epochs of SGD on 1536 8x8 digits in float64).
    - Dropout and noise are drawn for each micro-batch.
    - A masked loss is a mean over the steps that are not masked; its micro-batches weigh by their samples all the same.
      So does a mean over the pixels or steps of inputs whose size differs between micro-batches.
    - What cannot be looked into must be a mean over the samples (beside a compiled loss of reduction `"sum"`, a sum): a
      `compute_loss` of the model's own, a loss function of your own, what layers give to `add_loss`. One that compares
      samples with one another, as contrastive losses do, is another function of the big batch.

    Args:
        gradient_accumulation_steps: Int of at least 1, the micro-batches to an update; or a dict `{epoch: steps}` with
            an entry for epoch 0, in which the last entry at or before the epoch (counted from 0) holds.

    Raises:
        ValueError: The argument is out of its range; or, before training, what is compiled leaves it open what the big
            batch is: a `train_step` of its own, a loss of Keras's that is no mean over samples (`Circle`; `Dice` and
            `Tversky` over all axes; `ignore_class`, but for reduction `"sum"`), reductions that differ between the
            outputs, reduction `None`, reduction `"sum"` beside a weight regularizer or an `activity_regularizer`, of
            which Keras takes the mean (in 3.12 the sum: there a mean beside it),
            `gradient_accumulation_steps` of the optimizer, float8 weights.
        RuntimeError: A second `GradientAccumulation` is in the fit; see also `keras_opt.training.StepHooks`.

    Cost: a variable of the size of every trainable variable (in float32 at least; dense for an embedding too, however
        few of its rows a batch looks up), on each replica; a micro-batch costs one addition into it, and no update.

    Source: P. Goyal et al., 2017, "Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour", section 3: normalize by
        the samples of the whole batch, not by those of each part.

    Example:
        >>> import keras, keras_opt, numpy as np
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        >>> model.compile("adam", "mse")
        >>> accumulation = keras_opt.callbacks.GradientAccumulation(4)
        >>> history = model.fit(np.ones((40, 3)), np.ones((40, 1)), batch_size=4, verbose=0, callbacks=[accumulation])
        >>> int(model.optimizer.iterations)  # ten micro-batches: 4 + 4 + 2
        3
    """

    def __init__(self, gradient_accumulation_steps: int | dict[int, int]):
        super().__init__()
        _check_steps(gradient_accumulation_steps)
        scheduled = isinstance(gradient_accumulation_steps, dict)
        self.gradient_accumulation_steps = gradient_accumulation_steps
        self._schedule = dict(gradient_accumulation_steps) if scheduled else {0: gradient_accumulation_steps}
        self._hooks: StepHooks | None = None
        self._accumulator: GradientAccumulator | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> "GradientAccumulation":
        return copy_without_fit(self, memo, "_hooks", "_accumulator")

    def set_model(self, model: keras.Model) -> None:
        if has_own_train_step(model):
            raise InputError(
                f"GradientAccumulation: the model {model.name!r} has a `train_step` of its own. It may call the "
                "optimizer more than once in a batch, so what belongs to one big batch is not known. Override "
                "`compute_loss` instead, with a mean over the samples, or accumulate inside your `train_step`."
            )
        _check_optimizer(model)
        _check_regularizers(model, common_reduction(model))
        StepHooks.prepare(model)
        super().set_model(model)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._leave()
        self._hooks = StepHooks.of(self.model)
        steps, weighed = steps_in_epoch(self._schedule, 0), are_shares_weighed(self.model)
        self._accumulator = GradientAccumulator(common_reduction(self.model), steps, weighed)
        self._hooks.add(self._accumulator)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._accumulator.set_steps(steps_in_epoch(self._schedule, epoch))

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        batches = (self.params or {}).get("steps")
        if self.model.stop_training or (batches is not None and batch + 1 >= batches):
            self._hooks.flush()

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        if self._accumulator is not None:
            self._hooks.flush()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._hooks.flush()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._hooks.flush()
        self._leave()

    def state_dict(self) -> dict[str, Any]:
        """The micro-batches that wait for their update: what a training resumed within an epoch goes on with."""
        return {"micro_batches": self._accumulator.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was called. Training must have begun, since `on_train_begin` starts anew."""
        self._accumulator.load_state_dict(state["micro_batches"])

    def _leave(self) -> None:
        if self._accumulator is not None:
            self._hooks.remove(self._accumulator)
        self._hooks = self._accumulator = None


def steps_in_epoch(schedule: dict[int, int], epoch: int) -> int:
    """The steps of the last entry of `schedule` at or before `epoch`."""
    return schedule[max(start for start in schedule if start <= epoch)]


def _check_steps(value: Any) -> None:
    schedule = value if isinstance(value, dict) else {0: value}
    whole = all(_is_whole(number) for number in (*schedule, *schedule.values()))
    if whole and 0 in schedule and min(schedule) >= 0 and min(schedule.values()) >= 1:
        return
    must_be = "an integer of at least 1, or a dict {epoch: integer of at least 1} with an entry for epoch 0"
    cure = "Give 4, for example, or {0: 1, 5: 4} to gather 4 from the sixth epoch on."
    raise argument_error("GradientAccumulation", "gradient_accumulation_steps", value, must_be, cure)


def _is_whole(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


# --- what is compiled ------------------------------------------------------------------------------------------------


def _check_optimizer(model: keras.Model) -> None:
    optimizer = inner(model.optimizer)
    for single in parts(optimizer) or [optimizer]:
        steps = getattr(single, "gradient_accumulation_steps", None)
        if steps:
            raise InputError(
                f"GradientAccumulation: the optimizer {single.name!r} is compiled with gradient_accumulation_steps="
                f"{steps!r}, so micro-batches would be gathered twice. Leave that out of the optimizer: it forgets "
                "left-over micro-batches and lets schedules count micro-batches."
            )
    if any(getattr(variable, "overwrite_with_gradient", False) for variable in model.trainable_variables):
        raise InputError(
            f"GradientAccumulation: the model {model.name!r} has float8 weights, whose scales Keras overwrites in each "
            "step: there is no mean of them over micro-batches. Train in bfloat16, or without this callback."
        )


def _check_regularizers(model: keras.Model, reduction: str) -> None:
    if reduction == "sum":
        check_unregularized(model.trainable_variables)
    active, is_summed = layers_with_activity_regularizer(model), are_activities_summed()
    if active and is_summed != (reduction == "sum"):
        taken, fitting = ("sum", "sum") if is_summed else ("mean", "sum_over_batch_size")
        raise InputError(
            f"GradientAccumulation: the loss has reduction={reduction!r}, and of the activity_regularizer of layer "
            f"{active[0]!r} Keras takes the {taken} over the batch: no weight of a micro-batch is right for both. "
            f"Leave it out, or compile the loss with reduction={fitting!r}."
        )
