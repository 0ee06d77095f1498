"""Any schedule times a factor that can change while training runs."""

from typing import Any

import keras
from keras import ops

from keras_opt.core.errors import check_at_least
from keras_opt.schedules.extent import Extent, extent
from keras_opt.schedules.nested import LearningRateSchedule, as_schedule, from_config, rate_at, to_config
from keras_opt.schedules.plot import plot
from keras_opt.schedules.precision import rate_dtype


@keras.saving.register_keras_serializable("keras_opt")
class ScaledSchedule(LearningRateSchedule):
    """Multiplies a schedule by a variable, which callbacks and you set at any time.

    Keras refuses to change the rate of an optimizer that follows a schedule. This one leaves the schedule alone and
    scales it: `schedule.multiplier.assign(0.1)` holds from the next update on, without tracing the step anew, inside
    `steps_per_execution` from the next execution. A saved model keeps the multiplier that it was saved with.

        rate(t) = multiplier * schedule(t)

    Args:
        schedule: Any `LearningRateSchedule`, Keras's included; or a float above 0, a constant rate.
        multiplier: Float of at least 0, the factor to start with. Default 1. The attribute of this name is a
            `keras.Variable`.
        name: Name of the schedule.

    Raises:
        ValueError: An argument is out of its range.

    Cost: one scalar variable; no step time that can be measured.

    It is no variable of the model or the optimizer: `save_weights` leaves it out, `get_config` and so `model.save` keep
    it. Each optimizer needs a ScaledSchedule of its own, unless they are to change together.

    Example:
        >>> from keras_opt.schedules import CosineDecay, ScaledSchedule
        >>> schedule = ScaledSchedule(CosineDecay(0.1, decay_steps=1000))
        >>> _ = schedule.multiplier.assign(0.5)
        >>> round(float(schedule(0)), 3)
        0.05
    """

    plot = plot

    def __init__(self, schedule: LearningRateSchedule | float, multiplier: float = 1.0, name: str = "ScaledSchedule"):
        super().__init__()
        check_at_least("ScaledSchedule", "multiplier", multiplier, 0, whole=False)
        self.schedule = as_schedule("ScaledSchedule", "schedule", schedule)
        self.multiplier = keras.Variable(multiplier, dtype=rate_dtype(), trainable=False, name="multiplier")
        self.name = name

    def __call__(self, step: Any) -> Any:
        """The rate at `step` (an int or scalar tensor), as a scalar tensor."""
        return rate_at(self.schedule, step) * self.multiplier

    def get_config(self) -> dict[str, Any]:
        return {
            "schedule": to_config(self.schedule),
            "multiplier": float(ops.convert_to_numpy(self.multiplier)),
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "ScaledSchedule":
        return cls(**{**config, "schedule": from_config(config["schedule"])})


@extent.register
def _extent(schedule: ScaledSchedule) -> Extent | None:
    return extent(schedule.schedule)
