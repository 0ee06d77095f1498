"""A softmax over the last axis: which layers end in one, and the range of its logits that matters."""

from typing import Any

import keras

MARGIN = 16.0  # exp(-16) = 1e-7


def is_softmax(layer: Any) -> bool:
    """Whether the last that `layer` does is a softmax over the last axis."""
    if isinstance(layer, keras.layers.Softmax):
        return layer.axis == -1
    return getattr(layer, "activation", None) is keras.activations.softmax


def logit_ends(logits: Any) -> tuple[Any, Any]:
    """The ends of a range that holds all of `logits` that a softmax over the last axis needs, and 0.

    Of each row

        low = max(smallest, largest - 16)        high = min(largest, second largest + 16)

    hold what changes a probability by more than 1e-7. The range goes from the lowest `low` to the highest `high`, which
    is 16 above it or the largest of all logits. So one class that is foreseen with a logit of 400, or ruled out with
    -400, does not take the steps of 8 bits from all others, which decide in steps of less than 1.

    Args:
        logits: A tensor or array (..., two or more classes).

    Returns:
        Two scalar tensors, the first not above 0 and the second not below.
    """
    ops = keras.ops
    largest, second = ops.unstack(ops.top_k(logits, 2)[0], axis=-1)
    low = ops.minimum(ops.min(ops.maximum(ops.min(logits, axis=-1), largest - MARGIN)), 0.0)
    high = ops.maximum(ops.max(ops.minimum(largest, second + MARGIN)), low + MARGIN)
    return low, ops.maximum(ops.minimum(high, ops.max(largest)), 0.0)
