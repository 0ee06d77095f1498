"""A linear rise before any schedule."""

from typing import Any

import keras
from keras import ops

from keras_opt.core.errors import argument_error, check_at_least, check_fraction
from keras_opt.schedules.extent import Extent, extent
from keras_opt.schedules.nested import LearningRateSchedule, as_schedule, from_config, rate_at, to_config
from keras_opt.schedules.plot import plot
from keras_opt.schedules.precision import as_rate


@keras.saving.register_keras_serializable("keras_opt")
class WarmUp(LearningRateSchedule):
    """Rises in a line to the first rate of a schedule, then follows that schedule from its step 0.

    Early gradients are large and Adam's second moments are guesses: a few hundred gentle updates let large batches,
    high rates and Transformers start at all. Small models at usual rates do without, and `OneCycle` brings its own.

        rate(t) = schedule(0) * (f + (1 - f) * t / warmup_steps)     for t < warmup_steps, f = initial_fraction
        rate(t) = schedule(t - warmup_steps)                          from then on

    So the whole lasts `warmup_steps` updates longer than `schedule`. With `initial_fraction` 0 the rate of the first
    update is 0, as in Keras's `CosineDecay(0.0, ..., warmup_target=...)` and in Hugging Face's schedules.

    Args:
        schedule: Any `LearningRateSchedule`, Keras's included; or a float above 0, a constant rate.
        warmup_steps: Int of at least 0, the updates that rise; at most the length of `schedule`, where it has one.
        initial_fraction: Float in [0, 1), the share of the schedule's first rate to start from. Default 0.
        name: Name of the schedule.

    Raises:
        ValueError: An argument is out of its range, the warm-up is longer than the schedule, or the schedule starts
            at 0, so that there is nothing to rise to.

    Cost: none that can be measured; the schedule is computed twice, a few scalar operations a step.

    Source: P. Goyal et al., 2017, "Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour", section 2.2.

    Example:
        >>> from keras_opt.schedules import CosineDecay, WarmUp
        >>> schedule = WarmUp(CosineDecay(0.1, decay_steps=1000), warmup_steps=100)
        >>> [round(float(schedule(step)), 3) for step in (0, 50, 100, 600, 1100)]
        [0.0, 0.05, 0.1, 0.05, 0.0]
    """

    plot = plot

    def __init__(
        self,
        schedule: LearningRateSchedule | float,
        warmup_steps: int,
        initial_fraction: float = 0.0,
        name: str = "WarmUp",
    ):
        super().__init__()
        schedule = as_schedule("WarmUp", "schedule", schedule)
        check_at_least("WarmUp", "warmup_steps", warmup_steps, 0)
        check_fraction("WarmUp", "initial_fraction", initial_fraction)
        known = extent(schedule)
        if known is not None and known.ends and warmup_steps > known.steps:
            must_be = f"at most {known.steps}, the updates in `schedule`"
            cure = "Warm up for a tenth of the training or less; count updates, not samples."
            raise argument_error("WarmUp", "warmup_steps", warmup_steps, must_be, cure)
        if float(ops.convert_to_numpy(rate_at(schedule, 0))) <= 0:
            cure = "It has a warm-up of its own: use it without WarmUp."
            raise argument_error("WarmUp", "schedule", schedule, "one that starts above 0", cure)
        self.schedule = schedule
        self.warmup_steps = int(warmup_steps)
        self.initial_fraction = float(initial_fraction)
        self.name = name

    def __call__(self, step: Any) -> Any:
        """The rate at `step` (an int or scalar tensor), as a scalar tensor."""
        step = ops.convert_to_tensor(step)
        done = as_rate(step) / max(self.warmup_steps, 1)
        rise = rate_at(self.schedule, 0) * (self.initial_fraction + (1.0 - self.initial_fraction) * done)
        follow = rate_at(self.schedule, ops.maximum(step - self.warmup_steps, 0))
        return ops.where(step < self.warmup_steps, rise, follow)

    def get_config(self) -> dict[str, Any]:
        return {
            "schedule": to_config(self.schedule),
            "warmup_steps": self.warmup_steps,
            "initial_fraction": self.initial_fraction,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "WarmUp":
        return cls(**{**config, "schedule": from_config(config["schedule"])})


@extent.register
def _extent(schedule: WarmUp) -> Extent | None:
    inner = extent(schedule.schedule)
    return inner and inner.after(schedule.warmup_steps)
