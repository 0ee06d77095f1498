"""The one-cycle schedule: a short rise to a high rate, then a long fall to almost nothing."""

import itertools
import math
from typing import Any

import keras
from keras import ops

from keras_opt.core.errors import argument_error, check_at_least, check_choice, check_fraction, check_positive
from keras_opt.schedules.extent import Extent, extent
from keras_opt.schedules.plot import plot
from keras_opt.schedules.precision import as_rate

STRATEGIES = ("cos", "linear")


@keras.saving.register_keras_serializable("keras_opt")
class OneCycle(keras.optimizers.schedules.LearningRateSchedule):
    """Rises from `max_learning_rate / initial_divisor` to the maximum, then falls far below the start.

    The high rate in the middle lets a network with BatchNorm reach in a few epochs what a constant rate reaches in
    many; the fall at the end is where most of the accuracy comes, so train to the end of the cycle. It does not suit
    training of unknown length: the cycle must be known beforehand. An early stop cuts the fall off; if you want one
    against divergence, let its patience cover the rise.

    With t the step, p = warmup_fraction * total_steps - 1 the peak, n = total_steps - 1 the end, and
    low = max_learning_rate / initial_divisor:

        rate(t) = anneal(low, max_learning_rate, t / p)                                       for t <= p
        rate(t) = anneal(max_learning_rate, low / final_divisor, (t - p) / (n - p))           for t > p

        anneal(a, b, x) = b + (a - b) * (1 + cos(pi * x)) / 2                                  "cos"
        anneal(a, b, x) = a + (b - a) * x                                                      "linear"

    With `three_phase` the fall to `low` mirrors the rise, and the rest falls from there:

        rate(t) = anneal(max_learning_rate, low, (t - p) / p)                                 for p < t <= 2 * p
        rate(t) = anneal(low, low / final_divisor, (t - 2 * p) / (n - 2 * p))                 for t > 2 * p

    These are the rates of `torch.optim.lr_scheduler.OneCycleLR`; torch moves the momentum against the rate, too, which
    a schedule of the rate leaves alone. After the last step the rate stays at its end.

    Args:
        max_learning_rate: Float above 0, the peak; for Adam about ten times a good constant rate.
        total_steps: Int of at least 2, the updates in the cycle (epochs * steps per epoch).
        warmup_fraction: Float in [0, 1), the share of the steps that rise. Default 0.3.
        initial_divisor: Float above 0; the cycle starts at `max_learning_rate / initial_divisor`. Default 25.
        final_divisor: Float above 0; the cycle ends at its start divided by this. Default 10,000.
        anneal_strategy: "cos" or "linear", the shape of each phase. Default "cos".
        three_phase: Whether to fall to the start first, as in the paper, and then far below it. Default `False`.
        name: Name of the schedule.

    Raises:
        ValueError: An argument is out of its range.

    Cost: none that can be measured; a few scalar operations a step.

    Source: L. N. Smith and N. Topin, 2018, "Super-Convergence: Very Fast Training of Neural Networks Using Large
        Learning Rates", section 3; cosine annealing as in fast.ai.

    Example:
        >>> import keras, keras_opt
        >>> schedule = keras_opt.schedules.OneCycle(0.01, total_steps=1000)
        >>> optimizer = keras.optimizers.Adam(schedule)
    """

    plot = plot

    def __init__(
        self,
        max_learning_rate: float,
        total_steps: int,
        warmup_fraction: float = 0.3,
        initial_divisor: float = 25.0,
        final_divisor: float = 1e4,
        anneal_strategy: str = "cos",
        three_phase: bool = False,
        name: str = "OneCycle",
    ):
        super().__init__()
        check_positive("OneCycle", "max_learning_rate", max_learning_rate)
        check_at_least("OneCycle", "total_steps", total_steps, 2)
        check_fraction("OneCycle", "warmup_fraction", warmup_fraction)
        check_positive("OneCycle", "initial_divisor", initial_divisor)
        check_positive("OneCycle", "final_divisor", final_divisor)
        check_choice("OneCycle", "anneal_strategy", anneal_strategy, STRATEGIES)
        rise_steps = warmup_fraction * total_steps
        if rise_steps > total_steps - 1:
            must_be = f"small enough to leave a step of the {total_steps} for the fall"
            cure = "Lower it, or raise `total_steps`."
            raise argument_error("OneCycle", "warmup_fraction", warmup_fraction, must_be, cure)
        if three_phase and not 1 < rise_steps < (total_steps + 1) / 2:
            must_be = f"such that {total_steps} steps hold a rise, a fall as long, and a rest"
            cure = "Take 0.3, or raise `total_steps`, or leave `three_phase` out."
            raise argument_error("OneCycle", "warmup_fraction", warmup_fraction, must_be, cure)
        self.max_learning_rate = float(max_learning_rate)
        self.total_steps = int(total_steps)
        self.warmup_fraction = float(warmup_fraction)
        self.initial_divisor = float(initial_divisor)
        self.final_divisor = float(final_divisor)
        self.anneal_strategy = anneal_strategy
        self.three_phase = bool(three_phase)
        self.name = name

    def __call__(self, step: Any) -> Any:
        """The rate at `step` (an int or scalar tensor), as a scalar tensor."""
        step = as_rate(step)
        rate = 0.0
        for (begin, rate_at_begin), (end, rate_at_end) in itertools.pairwise(self._corners()):
            progress = ops.clip((step - begin) / (end - begin), 0.0, 1.0) if end > begin else as_rate(1.0)
            phase = self._anneal(rate_at_begin, rate_at_end, progress)
            rate = ops.where(step < begin, rate, phase)
        return rate

    def get_config(self) -> dict[str, Any]:
        return {
            "max_learning_rate": self.max_learning_rate,
            "total_steps": self.total_steps,
            "warmup_fraction": self.warmup_fraction,
            "initial_divisor": self.initial_divisor,
            "final_divisor": self.final_divisor,
            "anneal_strategy": self.anneal_strategy,
            "three_phase": self.three_phase,
            "name": self.name,
        }

    def _corners(self) -> list[tuple[float, float]]:
        """The step and the rate at both ends and where one phase meets the next."""
        peak_step = self.warmup_fraction * self.total_steps - 1.0
        low = self.max_learning_rate / self.initial_divisor
        fallen = [(2.0 * peak_step, low)] if self.three_phase else []
        end = (self.total_steps - 1.0, low / self.final_divisor)
        return [(0.0, low), (peak_step, self.max_learning_rate), *fallen, end]

    def _anneal(self, start: float, end: float, progress: Any) -> Any:
        """From `start` (progress 0) to `end` (progress 1)."""
        if self.anneal_strategy == "linear":
            return start + (end - start) * progress
        return end + (start - end) * (1.0 + ops.cos(math.pi * progress)) / 2.0


@extent.register
def _extent(schedule: OneCycle) -> Extent:
    return Extent(schedule.total_steps, ends=True)
