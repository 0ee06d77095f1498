"""The formulas of Prechelt (1998), "Early Stopping - But When?"."""

import math
from typing import Any

from keras_opt.callbacks.monitors import monitored_value
from keras_opt.core.errors import InputError


def generalization_loss(value: float, lowest: float) -> float:
    """By how many percent `value` is above the `lowest` so far: 100 * (value / lowest - 1)."""
    return 100 * (_ratio(value, lowest) - 1)


def training_progress(strip: list[float]) -> float:
    """By how many per mille the mean of the training losses of a strip is above the lowest of them."""
    return 1000 * (_ratio(math.fsum(strip) / len(strip), min(strip)) - 1)


def _ratio(above: float, below: float) -> float:
    if below:
        return above / below
    return math.inf if above else 1.0


def finite_loss(monitor: str, logs: dict[str, Any], owner: str) -> float | None:
    """The monitored loss; `None` if it is NaN, inf or not there.

    Raises:
        ValueError: It is negative.
    """
    value = monitored_value(monitor, logs, owner)
    if value is None or not math.isfinite(value):
        return None
    if value < 0:
        raise InputError(
            f"{owner}: {monitor} must be at least 0, since it is compared by ratios. Received: {value}. Use Plateau."
        )
    return value
