"""The criterion that a model has become too much better on what it was trained on."""

from typing import Any

from keras_opt.callbacks.criteria.criterion import single_criterion
from keras_opt.callbacks.monitors import check_mode_is_known, monitored_value, resolve_mode
from keras_opt.core.errors import argument_error, check_choice, check_name, is_number


def overfit_gap(train: float, validation: float, mode: str) -> float:
    """How much better the training value is than the validation value."""
    return train - validation if mode == "max" else validation - train


@single_criterion("reason")
class OverfitGap:
    """Holds while the training value is better than the validation value by more than `above`.

        gap = validation - train    for losses and errors,    train - validation    for scores

    A gap alone is no harm, as long as the validation value still improves: combine it, for example
    `Plateau("val_loss", 3) & OverfitGap("loss", "val_loss", above=0.5)`. Keras's training value is a mean over the
    epoch, with Dropout and augmentation, so early gaps are often negative. NaN and inf are passed over, and so are
    epochs without validation.

    Args:
        train: A name in the logs, for example `"accuracy"`.
        validation: The name of the same value on validation data, for example `"val_accuracy"`.
        above: Float, the largest gap that is endured, in units of the values.
        mode: `"min"`, `"max"`, or `"auto"`, which knows losses, errors and the common scores by the name of `train`,
            and inside `EarlyStopping` also the compiled metric of that name.

    Raises:
        ValueError: `above` is not finite; at the first epoch, the direction of `train` is not known.

    Example:
        >>> import keras_opt
        >>> gap = keras_opt.callbacks.OverfitGap("accuracy", "val_accuracy", above=0.1)
        >>> gap.update(0, {"accuracy": 0.95, "val_accuracy": 0.8})
        True
        >>> gap.reason
        'accuracy 0.95 is better than val_accuracy 0.8 by more than 0.1 at epoch 1'
    """

    def __init__(self, train: str, validation: str, above: float, mode: str = "auto"):
        if not is_number(above):
            raise argument_error("OverfitGap", "above", above, "a finite number", "Give the largest gap to endure.")
        check_choice("OverfitGap", "mode", mode, ("auto", "min", "max"))
        check_name("OverfitGap", "train", train)
        check_name("OverfitGap", "validation", validation)
        self.train = train
        self.validation = validation
        self.above = above
        self.mode = resolve_mode(train, mode)
        self.monitors = (train, validation)
        self.reset()

    def reset(self) -> None:
        self.reason = ""

    def update(self, epoch: int, logs: dict[str, Any]) -> bool:
        values = [monitored_value(name, logs, "OverfitGap") for name in self.monitors]
        check_mode_is_known("OverfitGap", self.train, self.mode)
        if not all(is_number(value) for value in values):
            return self.reason != ""
        train, validation = values
        self.reason = ""
        if overfit_gap(train, validation, self.mode) > self.above:
            self.reason = (
                f"{self.train} {train:.4g} is better than {self.validation} {validation:.4g} by more than "
                f"{self.above:g} at epoch {epoch + 1}"
            )
        return self.reason != ""

    def get_config(self) -> dict[str, Any]:
        return {"train": self.train, "validation": self.validation, "above": self.above, "mode": self.mode}
