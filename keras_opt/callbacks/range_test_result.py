"""What a learning-rate range test has found, and how it reads the curve."""

from typing import Any, NamedTuple

import numpy as np

from keras_opt.core.axes import plot_axes

# The part of the fall that is done at the suggestion.
FALL = 0.8
# A rise by this many times the first level is divergence.
DIVERGENCE = 3.0
# A fall by less than this many standard deviations of one batch's loss is chance.
NOISE = 1.5


class Curve(NamedTuple):
    """The curve of a range test, one entry an update.

    Args:
        rates: The learning rates, rising.
        losses: The loss of each update's batch, before the update.
        smoothed: Its bias-corrected exponential moving average.
    """

    rates: np.ndarray
    losses: np.ndarray
    smoothed: np.ndarray


class RangeTestResult:
    """What `find_learning_rate` returns; printed, it says what was found.

    Attributes:
        suggestion: The learning rate to begin with, or to let a schedule peak at; `None` if the loss never fell.
        curve: The `Curve`; `pandas.DataFrame(result.curve._asdict())` works.
        reason: One sentence: where the suggestion lies, or why there is none.
    """

    def __init__(self, rates: np.ndarray, losses: np.ndarray, smoothing: float):
        # The losses are fewer than the rates if the test ended early.
        self.curve = Curve(rates[: len(losses)], losses, smooth(losses, smoothing))
        self._first = first_level(losses, len(rates))
        place = place_of_fall(losses, self.curve.smoothed, len(rates))
        self.suggestion = None if place is None else float(rates[place])
        self.reason = self._reason()

    def _reason(self) -> str:
        rates, _, smoothed = self.curve
        if len(rates) == 0:
            return "the loss of the first batch is not finite"
        tried = f"{len(rates)} update{'s' * (len(rates) != 1)} with rates from {rates[0]:.2g} to {rates[-1]:.2g}"
        if self.suggestion is None:
            return f"in {tried} the smoothed loss, {self._first:.4g} at first, never fell by more than chance"
        lowest = smoothed.argmin()
        seen = (
            f"in {tried} the smoothed loss fell from {self._first:.4g} to {smoothed[lowest]:.4g} (at "
            f"{rates[lowest]:.2g}), and {FALL:.0%} of that was done at {self.suggestion:.2g}"
        )
        still_falling = lowest == len(rates) - 1
        return f"{seen}; it was still falling: test up to a higher rate" if still_falling else seen

    def __repr__(self) -> str:
        suggestion = None if self.suggestion is None else float(f"{self.suggestion:.3g}")
        return f"{type(self).__name__}(suggestion={suggestion}, updates={len(self.curve.rates)})"

    def __str__(self) -> str:
        found = "No learning rate to suggest" if self.suggestion is None else f"Learning rate {self.suggestion:.2g}"
        return f"{found}: {self.reason}."

    def plot(self, ax: Any = None) -> Any:
        """Draws the losses over the rates, the suggestion marked, and returns the Matplotlib axes.

        Args:
            ax: Matplotlib axes to draw on. Default: those of a new figure.

        Raises:
            ImportError: Matplotlib is missing.
        """
        rates, losses, smoothed = self.curve
        ax = plot_axes(ax, title="Learning-rate range test", xlabel="learning rate", ylabel="loss")
        ax.set_xscale("log")
        ax.plot(rates, losses, alpha=0.3, label="loss of the batch")
        ax.plot(rates, smoothed, label="smoothed")
        if self.suggestion is not None:
            ax.axvline(self.suggestion, color="black", linestyle="--", label=f"suggestion {self.suggestion:.2g}")
            margin = (self._first - smoothed.min()) / 2
            ax.set_ylim(smoothed.min() - margin, self._first + margin)  # else the divergence hides the fall
        ax.legend(fontsize="small")
        return ax


def growing_rates(minimum: float, maximum: float, count: int) -> np.ndarray:
    """`count` rates from `minimum` to `maximum`, each the same multiple of the one before."""
    return np.geomspace(minimum, maximum, count)


def smooth(losses: np.ndarray, smoothing: float) -> np.ndarray:
    """The exponential moving average, corrected for its begin at zero as in Adam:

    average(i) = smoothing * average(i - 1) + (1 - smoothing) * loss(i);  smoothed(i) = average(i) / (1 - smoothing^i)
    """
    average, smoothed = 0.0, np.empty(len(losses))
    for number, loss in enumerate(losses, start=1):
        average = smoothing * average + (1 - smoothing) * loss
        smoothed[number - 1] = average / (1 - smoothing**number)
    return smoothed


def first_level(losses: np.ndarray, steps: int) -> float:
    """The mean of the losses in the first tenth of a test of `steps` updates, at rates too low to change anything."""
    return float(np.mean(losses[: max(1, steps // 10)])) if len(losses) else 0.0


def has_diverged(losses: np.ndarray, smoothing: float, steps: int) -> bool:
    """Whether, after the first tenth, the smoothed loss is above its level by `DIVERGENCE` times its magnitude."""
    if len(losses) <= steps // 10:
        return False
    first = first_level(losses, steps)
    return bool(smooth(losses, smoothing)[-1] - first > DIVERGENCE * abs(first))


def place_of_fall(losses: np.ndarray, smoothed: np.ndarray, steps: int) -> int | None:
    """The last place where not yet more than `FALL` of the way is done from the first level to the lowest value after.

    `None` if that way is no longer than `NOISE` standard deviations of what the losses up to there differ by chance
    from one batch to the next.
    """
    begin = max(1, steps // 10)
    if len(losses) <= begin:
        return None
    end = begin + smoothed[begin:].argmin() + 1
    fall = first_level(losses, steps) - smoothed[end - 1]
    chance = np.std(np.diff(losses[:end])) / np.sqrt(2)
    places = np.flatnonzero(smoothed[:end] >= smoothed[end - 1] + (1 - FALL) * fall)
    return int(places[-1]) if fall > NOISE * chance and len(places) else None
