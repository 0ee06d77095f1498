"""The criterion that a monitored value has run away."""

import math
from typing import Any

from keras_opt.callbacks.criteria.criterion import single_criterion
from keras_opt.callbacks.monitors import monitored_value
from keras_opt.core.errors import argument_error, check_name, is_number


@single_criterion("reason")
class Divergence:
    """Holds from the epoch on in which the monitored value is above a limit, NaN or infinite.

    Patience alone lets a diverged training run on until it is used up. It is looked at after each epoch;
    `keras.callbacks.TerminateOnNaN` looks at the loss after each batch, but only for NaN and inf.

    Args:
        monitor: A name in the logs, for example `"loss"`.
        above: Float, the limit; `None` for NaN and inf only. Choose it well above the first epoch's value. Default
            `None`.

    Raises:
        ValueError: `above` is not finite.

    Example:
        >>> import keras_opt
        >>> divergence = keras_opt.callbacks.Divergence("loss", above=10.0)
        >>> [divergence.update(epoch, {"loss": loss}) for epoch, loss in enumerate([2.0, 35.0, 1.0])]
        [False, True, True]
        >>> divergence.reason
        'loss diverged to 35 at epoch 2, above 10'
    """

    def __init__(self, monitor: str, above: float | None = None):
        if above is not None and not is_number(above):
            raise argument_error("Divergence", "above", above, "a finite number", "Leave it out for NaN and inf only.")
        check_name("Divergence", "monitor", monitor)
        self.monitor = monitor
        self.above = above
        self.monitors = (monitor,)
        self.reset()

    def reset(self) -> None:
        self.reason = ""

    def update(self, epoch: int, logs: dict[str, Any]) -> bool:
        value = monitored_value(self.monitor, logs, "Divergence")
        if self.reason or value is None:
            return self.reason != ""
        if not math.isfinite(value):
            self.reason = f"{self.monitor} diverged to {value} at epoch {epoch + 1}"
        elif self.above is not None and value > self.above:
            self.reason = f"{self.monitor} diverged to {value:.4g} at epoch {epoch + 1}, above {self.above:g}"
        return self.reason != ""

    def get_config(self) -> dict[str, Any]:
        return {"monitor": self.monitor, "above": self.above}
