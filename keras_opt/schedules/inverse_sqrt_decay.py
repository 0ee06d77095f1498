"""The rate falls with the inverse square root of the step."""

from typing import Any

import keras
from keras import ops

from keras_opt.core.errors import check_at_least, check_positive
from keras_opt.schedules.extent import Extent, extent, periodic
from keras_opt.schedules.plot import plot
from keras_opt.schedules.precision import as_rate


@keras.saving.register_keras_serializable("keras_opt")
class InverseSqrtDecay(keras.optimizers.schedules.LearningRateSchedule):
    """Lets the rate fall fast at first, then ever slower, without an end.

    Made for training of unknown length: whenever you stop, the rate suits what you did so far. Where the length is
    known, `CosineDecay` or `OneCycle` end lower and better.

        rate(t) = initial_learning_rate / sqrt(1 + t / decay_steps)

    With a warm-up of the same length it is the Transformer's schedule: `WarmUp(InverseSqrtDecay(peak, n), n)` rises to
    `peak` in n updates, then is `peak * sqrt(n / t)`, with t counted from the start of training.

    Args:
        initial_learning_rate: Float above 0, the rate at step 0.
        decay_steps: Int of at least 1; after three times as many updates the rate is half.
        name: Name of the schedule.

    Raises:
        ValueError: An argument is out of its range.

    Cost: none that can be measured; a few scalar operations a step.

    Source: A. Vaswani et al., 2017, "Attention Is All You Need", equation 3 (there d_model gives the peak, and t counts
        from 1).

    Example:
        >>> import keras_opt
        >>> schedule = keras_opt.schedules.InverseSqrtDecay(0.1, decay_steps=100)
        >>> [round(float(schedule(step)), 3) for step in (0, 300, 9900)]
        [0.1, 0.05, 0.01]
    """

    plot = plot

    def __init__(self, initial_learning_rate: float, decay_steps: int, name: str = "InverseSqrtDecay"):
        super().__init__()
        check_positive("InverseSqrtDecay", "initial_learning_rate", initial_learning_rate)
        check_at_least("InverseSqrtDecay", "decay_steps", decay_steps, 1)
        self.initial_learning_rate = float(initial_learning_rate)
        self.decay_steps = int(decay_steps)
        self.name = name

    def __call__(self, step: Any) -> Any:
        """The rate at `step` (an int or scalar tensor), as a scalar tensor."""
        return self.initial_learning_rate / ops.sqrt(1.0 + as_rate(step) / self.decay_steps)

    def get_config(self) -> dict[str, Any]:
        return {
            "initial_learning_rate": self.initial_learning_rate,
            "decay_steps": self.decay_steps,
            "name": self.name,
        }


@extent.register
def _extent(schedule: InverseSqrtDecay) -> Extent:
    return periodic(schedule.decay_steps)
