"""The one-cycle schedule: a short rise to a high rate, then a long fall to almost nothing."""

import math
from typing import Any

import keras
from keras import ops

from keras_opt.core.errors import argument_error, check_at_least, check_fraction, check_positive


@keras.saving.register_keras_serializable("keras_opt")
class OneCycle(keras.optimizers.schedules.LearningRateSchedule):
    """Rises from `max_learning_rate / initial_divisor` to the maximum, then falls far below the start.

    The high rate in the middle lets a network with BatchNorm reach in a few epochs what a constant rate reaches in
    many; the fall at the end is where most of the accuracy comes, so train to the end of the cycle. It does not suit
    training of unknown length: the cycle must be known beforehand.

    With t the step, p = warmup_fraction * total_steps - 1 the peak and n = total_steps - 1 the end:

        rate(t) = anneal(max / initial_divisor, max, t / p)                                   for t <= p
        rate(t) = anneal(max, max / (initial_divisor * final_divisor), (t - p) / (n - p))     for t > p
        anneal(a, b, x) = b + (a - b) * (1 + cos(pi * x)) / 2

    These are the steps of `torch.optim.lr_scheduler.OneCycleLR`. After the last step the rate stays at its end.

    Args:
        max_learning_rate: Float above 0, the peak; for Adam about ten times a good constant rate.
        total_steps: Int of at least 2, the updates in the cycle (epochs * steps per epoch).
        warmup_fraction: Float in [0, 1), the share of the steps that rise. Default 0.3.
        initial_divisor: Float above 0; the cycle starts at `max_learning_rate / initial_divisor`. Default 25.
        final_divisor: Float above 0; the cycle ends at its start divided by this. Default 10,000.
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

    def __init__(
        self,
        max_learning_rate: float,
        total_steps: int,
        warmup_fraction: float = 0.3,
        initial_divisor: float = 25.0,
        final_divisor: float = 1e4,
        name: str = "OneCycle",
    ):
        super().__init__()
        check_positive("OneCycle", "max_learning_rate", max_learning_rate)
        check_at_least("OneCycle", "total_steps", total_steps, 2)
        check_fraction("OneCycle", "warmup_fraction", warmup_fraction)
        check_positive("OneCycle", "initial_divisor", initial_divisor)
        check_positive("OneCycle", "final_divisor", final_divisor)
        if warmup_fraction * total_steps > total_steps - 1:
            raise argument_error(
                "OneCycle",
                "warmup_fraction",
                warmup_fraction,
                f"small enough to leave a step of the {total_steps} for the fall",
                "Lower it, or raise `total_steps`.",
            )
        self.max_learning_rate = max_learning_rate
        self.total_steps = total_steps
        self.warmup_fraction = warmup_fraction
        self.initial_divisor = initial_divisor
        self.final_divisor = final_divisor
        self.name = name

    def __call__(self, step: Any) -> Any:
        """The rate at `step` (an int or scalar tensor), as a float32 scalar tensor."""
        step = ops.cast(step, "float32")
        peak_step = self.warmup_fraction * self.total_steps - 1.0
        start = self.max_learning_rate / self.initial_divisor
        rise = _anneal(start, self.max_learning_rate, step / max(peak_step, 1.0))
        fall_steps = self.total_steps - 1.0 - peak_step
        fall = _anneal(self.max_learning_rate, start / self.final_divisor, (step - peak_step) / fall_steps)
        return ops.where(step < peak_step, rise, fall)

    def get_config(self) -> dict[str, Any]:
        return {
            "max_learning_rate": self.max_learning_rate,
            "total_steps": self.total_steps,
            "warmup_fraction": self.warmup_fraction,
            "initial_divisor": self.initial_divisor,
            "final_divisor": self.final_divisor,
            "name": self.name,
        }


def _anneal(start: float, end: float, progress: Any) -> Any:
    """Cosine from `start` (progress 0) to `end` (progress 1 and above)."""
    progress = ops.clip(progress, 0.0, 1.0)
    return end + (start - end) * (1.0 + ops.cos(math.pi * progress)) / 2.0
