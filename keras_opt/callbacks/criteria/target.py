"""The criterion that a monitored value has reached a target."""

from typing import Any

from keras_opt.callbacks.criteria.criterion import single_criterion
from keras_opt.callbacks.monitors import better, check_mode_is_known, monitored_value, resolve_mode
from keras_opt.core.errors import argument_error, check_choice, check_name, is_number


@single_criterion("reason")
class Target:
    """Holds from the epoch on in which the monitored value reaches `value`; NaN and inf never do.

    Args:
        monitor: A name in the logs, for example `"val_accuracy"`.
        value: The finite number to reach.
        mode: `"min"`, `"max"`, or `"auto"`, which knows losses, errors and the common scores by name, and inside
            `EarlyStopping` also the compiled metric of that name.

    Raises:
        ValueError: `value` is not finite; at the first epoch, the direction of `monitor` is not known.

    Example:
        >>> import keras_opt
        >>> target = keras_opt.callbacks.Target("val_accuracy", 0.9)
        >>> [target.update(epoch, {"val_accuracy": accuracy}) for epoch, accuracy in enumerate([0.5, 0.92])]
        [False, True]
        >>> target.reason
        'val_accuracy reached 0.9 with 0.92 at epoch 2'
    """

    def __init__(self, monitor: str, value: float, mode: str = "auto"):
        if not is_number(value):
            raise argument_error("Target", "value", value, "a finite number", "Give the value to reach.")
        check_choice("Target", "mode", mode, ("auto", "min", "max"))
        check_name("Target", "monitor", monitor)
        self.monitor = monitor
        self.value = value
        self.mode = resolve_mode(monitor, mode)
        self.monitors = (monitor,)
        self.reset()

    def reset(self) -> None:
        self.reason = ""

    def update(self, epoch: int, logs: dict[str, Any]) -> bool:
        value = monitored_value(self.monitor, logs, "Target")
        check_mode_is_known("Target", self.monitor, self.mode)
        if not self.reason and is_number(value) and not better(self.value, value, self.mode):
            self.reason = f"{self.monitor} reached {self.value:g} with {value:.4g} at epoch {epoch + 1}"
        return self.reason != ""

    def get_config(self) -> dict[str, Any]:
        return {"monitor": self.monitor, "value": self.value, "mode": self.mode}
