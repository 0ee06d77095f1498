"""Who is calling a callback's `set_model`."""

import inspect

import keras


def is_called_by_evaluation(model: keras.Model) -> bool:
    """Whether `model.evaluate` or `model.predict` is calling, and not `model.fit`: then no training begins.

    A callback cannot tell by what it is given, so the callers on the stack are asked.
    """
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_locals.get("self") is model and frame.f_code.co_name in ("fit", "evaluate", "predict"):
            return frame.f_code.co_name != "fit"
        frame = frame.f_back
    return False
