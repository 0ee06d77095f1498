"""Which optimizers `StepHooks` can hook."""

from collections.abc import Callable
from typing import Any

import keras

PRIVATE_METHODS = ("_all_reduce_sum_gradients", "_clip_gradients")


def parts(optimizer: keras.optimizers.Optimizer) -> list[keras.optimizers.Optimizer]:
    """The optimizers in a `MultiOptimizer`, all of them once it is built; none in any other."""
    return list(getattr(optimizer, "optimizers", ()))


def check_hookable(optimizer: keras.optimizers.Optimizer, replicas: int, own: Callable[..., Any] | None = None) -> None:
    """Raise a RuntimeError that names the cure if `optimizer` makes its updates in a way that cannot be hooked.

    Args:
        optimizer: Without its `LossScaleOptimizer`.
        replicas: How many replicas train.
        own: The hub's wrapper of `apply`, if it is on.
    """
    for one in (optimizer, *parts(optimizer)):
        check_methods(one, own)
    if any(part.gradient_accumulation_steps for part in parts(optimizer)):
        raise RuntimeError(
            "StepHooks: an optimizer in the MultiOptimizer has gradient_accumulation_steps set. Leave that out and use "
            "the callback GradientAccumulation."
        )
    if optimizer.gradient_accumulation_steps and replicas > 1:
        raise RuntimeError(
            "StepHooks: Keras cannot accumulate gradients over several replicas. Leave gradient_accumulation_steps out "
            "of the optimizer and use the callback GradientAccumulation."
        )


def check_methods(optimizer: keras.optimizers.Optimizer, own: Callable[..., Any] | None = None) -> None:
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
