"""The other callbacks of the same list."""

import keras

from keras_opt.core.call_stack import frames


def callback_list(callback: keras.callbacks.Callback) -> keras.callbacks.CallbackList | None:
    """The list that is calling a method of `callback`; `None` when no list is.

    Keras tells a callback its model and its params, never its neighbours. So the `CallbackList` is looked for among the
    callers on the stack. `tests/contract/test_keras_canary.py` fails, with the Keras version, when it is not there.
    """
    for frame in frames():
        caller = frame.f_locals.get("self")
        if isinstance(caller, keras.callbacks.CallbackList) and any(each is callback for each in caller.callbacks):
            return caller
    return None


def siblings(callback: keras.callbacks.Callback) -> list[keras.callbacks.Callback] | None:
    """All callbacks of the list that is calling a method of `callback`, in their order, `callback` among them."""
    caller = callback_list(callback)
    return None if caller is None else list(caller.callbacks)
