"""How the compiled losses make one number of the samples of a batch: what micro-batches must add up to."""

import functools
from typing import Any

import keras
import numpy as np

from keras_opt.core.all_layers import all_layers
from keras_opt.core.errors import InputError

# Keras chooses one of the cross-entropies by the shapes; none of them looks beyond a sample.
_CHOSEN_BY_SHAPE = ("crossentropy", "ce")


def common_reduction(model: keras.Model) -> str:
    """The reduction that all compiled losses of `model` have, which all are sums or means over the samples.

    Raises:
        ValueError: A loss is neither; the reductions differ; or there is none.
    """
    for loss in losses_of(model):
        fault = fault_of(loss)
        if fault is not None:
            raise _error(*fault)
    reductions = reductions_of(model)
    names = ", ".join(sorted(map(repr, reductions)))
    if len(reductions) > 1:
        raise InputError(
            f"GradientAccumulation: the compiled losses have the reductions {names}, so no weight of a micro-batch is "
            "right for all of them. Compile them with one reduction."
        )
    (reduction,) = reductions
    if reduction is None:
        raise InputError(
            "GradientAccumulation: the compiled loss has reduction None, so how samples make up a batch is not known. "
            'Compile it with reduction="sum_over_batch_size", or with "sum".'
        )
    return reduction


def losses_of(model: keras.Model) -> list[Any]:
    """The compiled losses of `model`."""
    return [_resolved(loss) for loss in keras.tree.flatten(model.loss) if loss is not None]


def reductions_of(model: keras.Model) -> set[str | None]:
    """The reductions of its compiled losses: "sum_over_batch_size", "sum", "mean_with_sample_weight", `None`."""
    return {_reduction_of(loss) for loss in losses_of(model)} or {"sum_over_batch_size"}


def layers_with_activity_regularizer(model: keras.Model) -> list[str]:
    """Their names."""
    return [layer.name for layer in all_layers(model) if getattr(layer, "activity_regularizer", None) is not None]


@functools.cache
def are_activities_summed() -> bool:
    """Whether this Keras sums the penalty of an activity over the batch, as 3.12 does; 3.15 takes the mean."""
    layer = keras.layers.ActivityRegularization(l2=1.0)
    layer(np.ones((2, 1), "float32"))
    return float(layer.losses[0]) > 1.5


def _resolved(loss: Any) -> Any:
    """What Keras makes of a loss that was given as a name, a class, a function or a `Loss`."""
    return loss if str(loss).lower() in _CHOSEN_BY_SHAPE else keras.losses.get(loss)


def _reduction_of(loss: Any) -> str | None:
    reduction = getattr(loss, "reduction", "sum_over_batch_size")  # which Keras gives to a function
    return {"mean": "sum_over_batch_size", "none": None}.get(reduction, reduction)


def fault_of(loss: Any) -> tuple[str, str, str] | None:
    """Why the loss of a batch is not the sum or the mean of what its samples, each by itself, have.

    Returns:
        The name of the loss, the reason and a cure; `None` if it is.
    """
    function, settings = _function_and_settings(loss)
    name = getattr(loss, "name", None) or getattr(function, "__name__", str(loss))
    if function is keras.losses.circle:
        reason = "compares the samples of a batch with one another"
        return name, reason, "Train with the big batch itself, or with a loss of single samples"
    if function in (keras.losses.dice, keras.losses.tversky) and _takes_in_samples(settings["axis"]):
        kind = {keras.losses.dice: "Dice", keras.losses.tversky: "Tversky"}[function]
        cure = f"Compile keras.losses.{kind}(axis=(1, 2, 3)), with the axes of one sample, which is a mean over samples"
        return name, f"takes its sums over the whole batch (axis={settings['axis']!r})", cure
    if settings["ignore_class"] is not None and _reduction_of(loss) != "sum":
        reason = f"is a mean over what ignore_class={settings['ignore_class']!r} leaves, more or less of each sample"
        return name, reason, 'Compile it with reduction="sum" and a lower learning rate'
    return None


def _function_and_settings(loss: Any) -> tuple[Any, dict[str, Any]]:
    """The function of Keras that computes `loss`, if it is one, and the two settings that matter here."""
    keywords = {}
    if isinstance(loss, keras.losses.Loss):
        own_call = type(loss).call is not keras.losses.Dice.call  # a loss of Keras's passes its function through
        function = None if own_call else getattr(loss, "fn", None)
    else:
        function = loss
        while isinstance(function, functools.partial):
            keywords = function.keywords | keywords
            function = function.func
    return function, {name: getattr(loss, name, keywords.get(name)) for name in ("axis", "ignore_class")}


def _takes_in_samples(axis: int | tuple[int, ...] | None) -> bool:
    return axis is None or 0 in keras.tree.flatten(axis)


def _error(name: str, reason: str, cure: str) -> InputError:
    return InputError(
        f"GradientAccumulation: the loss {name!r} {reason}, so the losses of micro-batches do not make up that of "
        f"their batch. {cure}."
    )
