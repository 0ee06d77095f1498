"""The rates of a model's optimizers as something that can be cut, whatever decides them."""

from collections.abc import Iterable
from dataclasses import dataclass

import keras

from keras_opt.callbacks.schedule_learning_rate import ScheduleLearningRate
from keras_opt.core.errors import InputError
from keras_opt.core.learning_rates import rate_names, rate_of, rate_source, single_optimizers
from keras_opt.schedules.scaled_schedule import ScaledSchedule

LearningRateSchedule = keras.optimizers.schedules.LearningRateSchedule


@dataclass
class CuttableRate:
    """The rate of one optimizer, which is constant but for cuts, or that of a schedule with a multiplier.

    Args:
        name: What it is called in the logs.
        single: The optimizer.
        multiplier: Of its schedule; `None` for a constant rate, and for a schedule that is not wrapped yet.
    """

    name: str
    single: keras.optimizers.Optimizer
    multiplier: keras.Variable | None

    @property
    def is_constant(self) -> bool:
        """Whether the rate is a variable that nobody else should set."""
        return self.multiplier is None

    def read(self) -> float:
        """The rate that the next update would have."""
        return rate_of(self.single)

    def change(self, before: float, after: float) -> None:
        """Make the rate `after`, which is `before` now; a schedule goes on from there."""
        if self.multiplier is None:
            self.single.learning_rate.assign(after)
        else:
            self.multiplier.assign(self.multiplier * (after / before))


def cuttable_rates(
    optimizer: keras.optimizers.Optimizer, callbacks: Iterable[keras.callbacks.Callback]
) -> list[CuttableRate]:
    """Those of all parts of `optimizer`; parts whose schedule is one and the same object count as one.

    Args:
        callbacks: The callbacks of this fit: a `ScheduleLearningRate` among them decides all the rates.

    Raises:
        ValueError: A rate is a Python function, which nothing can multiply.
    """
    scheduling = next((callback for callback in callbacks if isinstance(callback, ScheduleLearningRate)), None)
    rates, seen = [], set()
    for name, single in zip(rate_names(optimizer), single_optimizers(optimizer), strict=True):
        source = rate_source(single)
        if source is not None and not isinstance(source, LearningRateSchedule):
            raise InputError(
                f"ReduceLROnPlateau: the learning_rate of the optimizer {single.name!r} is the function {source!r}, "
                "which cannot be cut. Compile with a number or a LearningRateSchedule."
            )
        follows = scheduling if scheduling is not None else source
        multiplier = follows.multiplier if isinstance(follows, ScaledSchedule | ScheduleLearningRate) else None
        if multiplier is None or id(multiplier) not in seen:
            rates.append(CuttableRate(name, single, multiplier))
            seen.add(id(multiplier))
    return rates


def follow_scaled_schedules(model: keras.Model) -> None:
    """Let each optimizer of `model` that follows a schedule follow it as a `ScaledSchedule`, and trace the step anew.

    A step that was traced before would go on with the schedule that it was traced with.
    """
    is_changed = False
    for single in single_optimizers(model.optimizer):
        source = rate_source(single)
        if source is not None and not isinstance(source, ScaledSchedule):
            single.learning_rate = ScaledSchedule(source)
            is_changed = True
    if is_changed:
        model.make_train_function(force=True)
