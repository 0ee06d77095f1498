"""The outputs of several models as one: each way a few plain Keras layers, so that the graph needs no keras_opt."""

from collections.abc import Sequence
from typing import Any

import keras

METHODS = ("mean", "geometric", "vote", "weighted")
WEIGHTS_LAYER = "weighing"


def combine(outputs: Sequence[Any], method: str, activation: str | None) -> Any:
    """The output of the ensemble.

    Args:
        outputs: One symbolic tensor a member, (batch, ..., outputs). They are combined in float32, or float64 if one
            is, whatever the global dtype policy.
        method: One of `METHODS`.
        activation: In which all members end, "softmax" or "sigmoid"; `None` if they do not. For "geometric" `outputs`
            are what went into it.
    """
    if method == "vote":
        return _mean([_vote(each, is_sigmoid=activation == "sigmoid") for each in outputs])
    if method == "weighted":
        return _weighted(outputs)
    if method == "geometric":
        return keras.layers.Activation(activation, name="ensemble_normalised", dtype=_wide(outputs))(_mean(outputs))
    return _mean(outputs)


def _wide(outputs: Sequence[Any]) -> str:
    return keras.backend.result_type("float32", *(each.dtype for each in outputs))


def _mean(outputs: Sequence[Any]) -> Any:
    if len(outputs) == 1:
        return outputs[0]
    return keras.layers.Average(name="ensemble_mean", dtype=_wide(outputs))(outputs)


def _vote(output: Any, *, is_sigmoid: bool) -> Any:
    """One where the member has its highest output, shared if there are several; or where it is above 0.5.

    Not by `one_hot`, whose check for negative classes LiteRT has no operation for.
    """
    if output.shape[-1] == 1 or is_sigmoid:
        return keras.ops.cast(output > 0.5, output.dtype)
    highest = keras.ops.cast(output >= keras.ops.max(output, axis=-1, keepdims=True), output.dtype)
    return highest / keras.ops.sum(highest, axis=-1, keepdims=True)


def _weighted(outputs: Sequence[Any]) -> Any:
    columns = [keras.ops.expand_dims(each, -1) for each in outputs]
    table = keras.layers.Concatenate(axis=-1, dtype=_wide(outputs))(columns)
    equal = keras.initializers.Constant(1 / len(outputs))
    weigh = keras.layers.Dense(1, use_bias=False, kernel_initializer=equal, name=WEIGHTS_LAYER, dtype=_wide(outputs))
    return keras.ops.squeeze(weigh(table), -1)
