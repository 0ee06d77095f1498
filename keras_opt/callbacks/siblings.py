"""The other callbacks of the same list."""

import keras

from keras_opt.core.call_stack import frames


def siblings(callback: keras.callbacks.Callback) -> list[keras.callbacks.Callback] | None:
    """All callbacks of the list that is calling `callback.set_model`, in their order, `callback` among them.

    Keras tells a callback its model and its params, never its neighbours. So the `CallbackList` is looked for among the
    callers on the stack. `tests/contract/test_keras_canary.py` fails, with the Keras version, when it is not there.

    Returns:
        The callbacks, or `None` when no list is calling.
    """
    for frame in frames():
        caller = frame.f_locals.get("self")
        if isinstance(caller, keras.callbacks.CallbackList) and any(each is callback for each in caller.callbacks):
            return list(caller.callbacks)
    return None
