"""Which callbacks are known to add which values to the logs."""

from collections.abc import Iterable

import keras

from keras_opt.callbacks.gradient_clipping import GradientClipping
from keras_opt.callbacks.gradient_monitor import GradientMonitor
from keras_opt.callbacks.learning_rate_monitor import LearningRateMonitor

_ADDED = {
    GradientClipping: ("clipped_fraction",),
    GradientMonitor: ("grad_norm", "grad_norm_max", "update_ratio"),
    LearningRateMonitor: ("learning_rate",),
    keras.callbacks.LearningRateScheduler: ("learning_rate",),
    keras.callbacks.ReduceLROnPlateau: ("learning_rate",),
}


def source_of(name: str, callbacks: Iterable[keras.callbacks.Callback]) -> str | None:
    """The class name of the first of `callbacks` that is known to add `name` to the logs."""
    for callback in callbacks:
        for kind, names in _ADDED.items():
            if isinstance(callback, kind) and name in names:
                return kind.__name__
    return None
