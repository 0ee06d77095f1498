"""A learning-rate schedule of Keras 3 for an optimizer of tf_keras."""

import functools
import json
from typing import Any

import keras

from keras_opt.compression.bridge.tf_keras_import import tf_keras


def as_tf_keras_schedule(schedule: keras.optimizers.schedules.LearningRateSchedule) -> Any:
    """A schedule of tf_keras with the same rates."""
    return _schedule_class()(json.dumps(keras.saving.serialize_keras_object(schedule)))


@functools.cache
def _schedule_class() -> type:
    """The class, which cannot be made before tf_keras is imported."""

    @tf_keras().utils.register_keras_serializable("keras_opt")
    class KerasSchedule(tf_keras().optimizers.schedules.LearningRateSchedule):
        """Asks a schedule of Keras 3, which is given as JSON."""

        def __init__(self, schedule: str):
            self._text = schedule
            self._schedule = keras.saving.deserialize_keras_object(json.loads(schedule))

        def __call__(self, step: Any) -> Any:
            return self._schedule(step)

        def get_config(self) -> dict[str, Any]:
            return {"schedule": self._text}

    return KerasSchedule
