"""Which models and optimizers `StepHooks` can hook."""

from collections.abc import Callable
from typing import Any

import keras

from keras_opt.core.optimizers import inner, parts
from keras_opt.core.process_strategy import is_ours
from keras_opt.training.instance_wrappers import InstanceWrappers

PRIVATE_METHODS = ("_all_reduce_sum_gradients", "_clip_gradients")


def check_hookable(
    model: keras.Model, optimizer: keras.optimizers.Optimizer, wrappers: InstanceWrappers | None = None
) -> None:
    """Raise a RuntimeError that names the cure if steps of `model`, or updates of `optimizer`, cannot be hooked.

    Args:
        optimizer: As `model` was compiled with it.
        wrappers: Those of the hub, which may be on.
    """
    unscaled = inner(optimizer)
    for one in (optimizer, unscaled, *parts(unscaled)):
        _check_methods(one, wrappers and wrappers.wrapper_of(one, "apply"))
    if any(part.gradient_accumulation_steps for part in parts(unscaled)):
        raise RuntimeError(
            "StepHooks: an optimizer in the MultiOptimizer has gradient_accumulation_steps set. Leave that out and use "
            "the callback GradientAccumulation."
        )
    replicas = model.distribute_strategy.num_replicas_in_sync
    if unscaled.gradient_accumulation_steps and replicas > 1:
        raise RuntimeError(
            "StepHooks: Keras cannot accumulate gradients over several replicas. Leave gradient_accumulation_steps out "
            "of the optimizer and use the callback GradientAccumulation."
        )
    if replicas > 1 and any(each.use_ema and each.ema_overwrite_frequency for each in (unscaled, *parts(unscaled))):
        raise RuntimeError(
            "StepHooks: Keras cannot overwrite the weights by their averages over several replicas. Leave "
            "ema_overwrite_frequency out of the optimizer, or use the callback WeightAveraging instead of use_ema."
        )
    if model.steps_per_execution > 1 and replicas > 1 and not is_ours(model.distribute_strategy):
        raise RuntimeError(
            f"StepHooks: Keras cannot run several steps in one execution over several replicas. Received: "
            f"steps_per_execution={model.steps_per_execution} in `compile`, and {replicas} replicas. Leave "
            "steps_per_execution out of `compile`, or make the strategy with keras_opt.distribute.strategy."
        )


def _check_methods(optimizer: keras.optimizers.Optimizer, own: Callable[..., Any] | None) -> None:
    """Raise unless `apply` and the private methods of `optimizer` are Keras's, or `apply` is the wrapper `own`."""
    kind = type(optimizer)
    overrider = next(base for base in kind.__mro__ if "apply" in vars(base))
    if overrider.__module__.partition(".")[0] != "keras":
        raise RuntimeError(
            f"StepHooks: optimizer {kind.__name__} overrides `apply`, so keras_opt cannot tell what an update is. "
            "Override `update_step` instead, as Keras documents, or compile with an optimizer of Keras."
        )
    replacement = vars(optimizer).get("apply")
    if replacement is not None and replacement is not own:
        raise RuntimeError(
            f"StepHooks: `apply` of the optimizer {optimizer.name!r} is already replaced by {replacement!r}, which is "
            "not of this model's hub. Detach that first, or compile this model with an optimizer of its own."
        )
    missing = [method for method in PRIVATE_METHODS if not hasattr(kind, method)]
    if missing:
        raise RuntimeError(
            f"StepHooks: Keras {keras.__version__} has moved {', '.join(missing)} of its optimizers, which keras_opt "
            "hooks. Install an earlier Keras, or a newer keras_opt."
        )
