"""The rate falls by a factor each so many updates."""

from typing import Any

import keras
from keras import ops

from keras_opt.core.errors import argument_error, check_at_least, check_positive
from keras_opt.schedules.plot import plot
from keras_opt.schedules.precision import as_rate, as_whole


@keras.saving.register_keras_serializable("keras_opt")
class StepDecay(keras.optimizers.schedules.ExponentialDecay):
    """Multiplies the rate by `decay_rate` each `decay_steps` updates.

    The plain recipe of image classification: train at one rate until the loss stalls, then at a tenth of it. Use it
    where you know when that is; `OneCycle` or `CosineDecay` ask for less knowledge.

        rate(t) = initial_learning_rate * decay_rate ^ floor(t / decay_steps)

    It is Keras's `ExponentialDecay(..., staircase=True)` under a name of its own, but divides whole numbers. Keras
    divides floats, and a compiled step multiplies by the rounded inverse instead: for 23 of the 200 `decay_steps` up
    to 200 (41 is the first) some drops come one update late.

    Args:
        initial_learning_rate: Float above 0, the rate of the first `decay_steps` updates.
        decay_steps: Int of at least 1, the updates between two drops.
        decay_rate: Float in (0, 1], the factor of each drop.
        name: Name of the schedule.

    Raises:
        ValueError: An argument is out of its range.

    Cost: none that can be measured; a few scalar operations a step.

    Source: K. He, X. Zhang, S. Ren and J. Sun, 2016, "Deep Residual Learning for Image Recognition", section 3.4
        (`torch.optim.lr_scheduler.StepLR`).

    Example:
        >>> import keras_opt
        >>> schedule = keras_opt.schedules.StepDecay(0.1, decay_steps=30, decay_rate=0.5)
        >>> [round(float(schedule(step)), 3) for step in (0, 29, 30, 60)]
        [0.1, 0.1, 0.05, 0.025]
    """

    plot = plot

    def __init__(self, initial_learning_rate: float, decay_steps: int, decay_rate: float, name: str = "StepDecay"):
        check_positive("StepDecay", "initial_learning_rate", initial_learning_rate)
        check_at_least("StepDecay", "decay_steps", decay_steps, 1)
        check_positive("StepDecay", "decay_rate", decay_rate)
        if decay_rate > 1:
            cure = "It multiplies the rate: to divide it by 10, give 0.1."
            raise argument_error("StepDecay", "decay_rate", decay_rate, "at most 1", cure)
        super().__init__(float(initial_learning_rate), int(decay_steps), float(decay_rate), staircase=True, name=name)

    def __call__(self, step: Any) -> Any:
        """The rate at `step` (an int or scalar tensor), as a scalar tensor."""
        drops = ops.floor_divide(as_whole(step), self.decay_steps)
        return self.initial_learning_rate * ops.power(as_rate(self.decay_rate), as_rate(drops))

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["staircase"]
        return config
