"""Schedules inside schedules: what may be one, its rate, and its place in a config."""

from typing import Any

import keras

from keras_opt.core.errors import argument_error, is_number
from keras_opt.schedules.precision import as_rate

LearningRateSchedule = keras.optimizers.schedules.LearningRateSchedule


def as_schedule(owner: str, name: str, value: Any) -> LearningRateSchedule | float:
    """`value` if it is a schedule, Keras's or ours, or a constant rate above 0; raises if it is neither."""
    if isinstance(value, LearningRateSchedule):
        return value
    if is_number(value) and value > 0:
        return float(value)
    must_be = "a keras.optimizers.schedules.LearningRateSchedule or a number above 0"
    raise argument_error(owner, name, value, must_be, "Make the schedule first, then hand it over.")


def rate_at(schedule: LearningRateSchedule | float, step: Any) -> Any:
    """The rate of a schedule, or of a constant, at `step`, in the precision of rates."""
    return as_rate(schedule(step) if isinstance(schedule, LearningRateSchedule) else schedule)


def to_config(schedule: LearningRateSchedule | float) -> dict[str, Any] | float:
    """What a config keeps of a schedule or of a constant."""
    return keras.saving.serialize_keras_object(schedule)


def from_config(config: Any) -> Any:
    """The schedule or constant that a config keeps; what is no config comes back as it is."""
    return keras.saving.deserialize_keras_object(config) if isinstance(config, dict) else config
