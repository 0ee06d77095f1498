"""One axis of a plot: where a value lies, and which round values are marked."""

import math
import re
from dataclasses import dataclass

import numpy as np

LEAST_SHARE = 1e-4


@dataclass(frozen=True)
class Axis:
    """Maps values between `low` and `high` to positions between `start` and `end`.

    Args:
        low: Smallest value, above 0 on a logarithmic axis.
        high: Largest value, above `low`.
        start: Position of `low`.
        end: Position of `high`.
        log: Logarithmic scale.
        whole: Marks whole numbers only, for epochs and steps.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False
    whole: bool = False

    @classmethod
    def around(
        cls,
        values: np.ndarray,
        start: float,
        end: float,
        *,
        margin: float = 0.0,
        log: bool = False,
        whole: bool = False,
    ) -> "Axis":
        """The axis that shows all `values`, with `margin` (a fraction of the range) free at both ends.

        It spans at least `LEAST_SHARE` of the largest value: nearer marks would all have one text.
        """
        low, high = float(values.min()), float(values.max())
        if log:
            room = (high / low) ** margin if high > low * (1 + LEAST_SHARE) else 2.0
            return cls(low / room, high * room, start, end, log, whole)
        span, least = high - low, LEAST_SHARE * max(abs(low), abs(high))
        room = max(span * margin, (least - span) / 2) if span else abs(high) * 0.1 or 0.5
        return cls(low - room, high + room, start, end, log, whole)

    def place(self, values: np.ndarray) -> np.ndarray:
        """Positions of `values`."""
        values, low, high = (np.log10(v) if self.log else np.asarray(v) for v in (values, self.low, self.high))
        return self.start + (values - low) / (high - low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Two to nine round values inside the axis."""
        return _log_ticks(self.low, self.high) if self.log else _linear_ticks(self.low, self.high, self.whole)


def tick_text(value: float) -> str:
    """A tick's label: `12,000`, `0.001`, `1e-5`."""
    return re.sub(r"e([+-])0*", lambda sign: "e" + sign[1].replace("+", ""), f"{value:,.6g}").replace(
        "-", "\N{MINUS SIGN}"
    )


def _linear_ticks(low, high, whole):
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * (1 - 1e-9))
    if whole:
        step = max(1.0, math.ceil(step))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{index * step:.12g}") for index in range(first, last + 1)]


def _log_ticks(low, high):
    decades = math.log10(high / low)
    if decades < 1:
        return _linear_ticks(low, high, False)
    factors = (1, 2, 5) if decades < 2 else (1,)
    stride = math.ceil(decades / 6)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [float(f"{factor}e{power}") for power in powers if power % stride == 0 for factor in factors]
    return [tick for tick in ticks if low <= tick <= high]
