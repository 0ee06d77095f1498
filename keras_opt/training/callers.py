"""Which methods of a model are calling."""

from collections.abc import Iterator

import keras

from keras_opt.core.call_stack import frames


def is_called_by_evaluation(model: keras.Model) -> bool:
    """Whether `model.evaluate` or `model.predict` is calling, and not `model.fit`: then no training begins.

    A callback cannot tell by what it is given, so the callers on the stack are asked.
    """
    method = next((name for name in _methods_on_stack(model) if name in ("fit", "evaluate", "predict")), "fit")
    return method != "fit"


def is_training(model: keras.Model) -> bool:
    """Whether `model.fit` or `model.train_on_batch` is running in this thread."""
    return any(name in ("fit", "train_on_batch") for name in _methods_on_stack(model))


def _methods_on_stack(model: keras.Model) -> Iterator[str]:
    """The names of the methods of `model` that are running, the innermost first."""
    return (frame.f_code.co_name for frame in frames() if frame.f_locals.get("self") is model)
