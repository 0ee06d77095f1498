"""Which methods of a model are calling."""

import weakref
from collections.abc import Iterator
from types import FrameType

import keras

from keras_opt.core.call_stack import frames


def is_called_by_evaluation(model: keras.Model) -> bool:
    """Whether `model.evaluate` or `model.predict` is calling, and not `model.fit`: then no training begins.

    A callback cannot tell by what it is given, so the callers on the stack are asked.
    """
    calling = next(_frames_of(model, "fit", "evaluate", "predict"), None)
    return calling is not None and calling.f_code.co_name != "fit"


def is_predicting() -> bool:
    """Whether it is Keras's `predict`, of whichever model, that is calling, and neither `fit` nor `evaluate`."""
    calling = (frame.f_code.co_name for frame in frames() if _is_of_keras(frame))
    return next((name for name in calling if name in ("fit", "evaluate", "predict")), None) == "predict"


def is_training(model: keras.Model) -> bool:
    """Whether `model.fit` or `model.train_on_batch` is running in this thread."""
    return any(_frames_of(model, "fit", "train_on_batch"))


def running_fits(model: keras.Model) -> Iterator[FrameType]:
    """The frames of Keras's own `fit` of `model` that are running in this thread, the innermost first."""
    for frame in _frames_of(model, "fit"):
        if _is_of_keras(frame):
            yield frame


def is_in_mid_fit(model: keras.Model) -> bool:
    """Whether a `fit` of `model` is running in this thread that has made its callbacks already."""
    return any(isinstance(fit.f_locals["callbacks"], keras.callbacks.CallbackList) for fit in running_fits(model))


class Training:
    """The `fit` of `model` that is running where this is made; outside of one, any training of the model.

    A `fit` that an exception ends tells nobody. Nothing of it is held here, so its data can go.
    """

    def __init__(self, model: keras.Model):
        self._model = model
        fit = next(running_fits(model), None)
        self._callbacks = None if fit is None else weakref.ref(fit.f_locals["callbacks"])

    def is_running(self) -> bool:
        """Whether it is running still, in this thread."""
        if self._callbacks is None:
            return is_training(self._model)
        callbacks = self._callbacks()
        if callbacks is None:
            return False
        return any(fit.f_locals["callbacks"] is callbacks for fit in running_fits(self._model))


def _is_of_keras(frame: FrameType) -> bool:
    return frame.f_globals.get("__name__", "").partition(".")[0] == "keras"


def _frames_of(model: keras.Model, *methods: str) -> Iterator[FrameType]:
    """The frames of those `methods` of `model` that are running, the innermost first."""
    # The locals of a frame are copied to be read: of few only.
    return (frame for frame in frames() if frame.f_code.co_name in methods and frame.f_locals.get("self") is model)
