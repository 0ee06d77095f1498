"""The precision that rates are computed in."""

from typing import Any

import keras
from keras import ops


def rate_dtype() -> str:
    """float64 where Keras's floatx is; float32 otherwise, for half precision cannot count a thousand steps apart."""
    return "float64" if keras.config.floatx() == "float64" else "float32"


def as_rate(value: Any) -> Any:
    """A step or a rate (number, variable or tensor) as a tensor in that precision."""
    return ops.convert_to_tensor(value, rate_dtype())


def as_whole(step: Any) -> Any:
    """A step as an int64 tensor: whole numbers divide exactly, compiled or not, and at any step."""
    return ops.convert_to_tensor(step, "int64")
