"""The criterion that a time budget is used up."""

from typing import Any

from keras_opt.callbacks.criteria.criterion import single_criterion
from keras_opt.callbacks.criteria.training_meter import Meter, meter_of
from keras_opt.core.errors import check_positive


@single_criterion("reason")
class TimeBudget:
    """Holds as soon as training has used its time, less what a validation needs; also in the middle of an epoch.

    The clock starts when training begins and goes on from where it was when a training is resumed. So that `fit` ends
    in time, with a validation of the last, shortened epoch, the time of one validation is held back: the last one's;
    before the first, its number of batches times half the median training step. Learning rate schedules do not know of
    the budget: give them an end of their own.

    `fit` runs over by at most one execution (`steps_per_execution` steps), one validation that takes longer than the
    one before, and the callbacks listed after `EarlyStopping`.

    Args:
        max_seconds: Float above 0, seconds of wall time.

    Raises:
        ValueError: `max_seconds` is not above 0; as the fit begins: several workers train together, each with a clock
            of its own.
        RuntimeError: It is used outside of `EarlyStopping`, which measures the time.

    Example:
        >>> import keras_opt
        >>> from keras_opt.callbacks import EarlyStopping, Plateau, TimeBudget
        >>> stop = EarlyStopping(Plateau("val_loss", patience=5) | TimeBudget(max_seconds=3600))
    """

    def __init__(self, max_seconds: float):
        check_positive("TimeBudget", "max_seconds", max_seconds)
        self.max_seconds = max_seconds
        self.meter: Meter | None = None
        self.reset()

    def reset(self) -> None:
        self.reason = ""

    def update(self, epoch: int, logs: dict[str, Any]) -> bool:
        return self.check()

    def check(self) -> bool:
        """Look at the clock; say whether the criterion holds now."""
        meter = meter_of(self, "its clock")
        seconds, reserve = meter.seconds, meter.validation_seconds
        if not self.reason and seconds + reserve >= self.max_seconds:
            held_back = f", and {reserve:.1f} s are kept for a validation" if reserve else ""
            self.reason = f"{seconds:.1f} s of the {self.max_seconds:g} s to train are used{held_back}"
        return self.reason != ""

    def get_config(self) -> dict[str, Any]:
        return {"max_seconds": self.max_seconds}
