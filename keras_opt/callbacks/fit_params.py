"""What a callback is told about the training it is in."""

import keras


def epochs_of(callback: keras.callbacks.Callback) -> int:
    """The number of epochs that `callback` was told.

    Raises:
        RuntimeError: Nobody told it: a `CallbackList` of one's own does so only if it is given the number.
    """
    epochs = (callback.params or {}).get("epochs")
    if epochs is None:
        raise RuntimeError(
            f"{type(callback).__name__}: nothing has told it how many epochs there are. Give that to the list, as in "
            "keras.callbacks.CallbackList(callbacks, model=model, epochs=10), or use keras_opt.training.attach."
        )
    return epochs
