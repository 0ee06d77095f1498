"""Callbacks for people with their own training loop, and the `finally` that `fit` lacks."""

import contextlib
from collections.abc import Iterator

import keras

from keras_opt.core.errors import check_at_least


@contextlib.contextmanager
def attach(
    model: keras.Model, *callbacks: keras.callbacks.Callback, epochs: int = 1
) -> Iterator[keras.callbacks.CallbackList]:
    """Runs `callbacks` around a loop of your own, and always ends them, whatever happens inside.

    On entry the callbacks get the model and `on_train_begin`; on exit, by an exception too, `on_train_end`, so that
    nothing stays hooked to the optimizer. Call the yielded list's `on_epoch_begin(epoch)`,
    `on_train_batch_end(batch, logs)` and `on_epoch_end(epoch, logs)` where `fit` would.

    Args:
        model: A compiled model.
        *callbacks: Keras callbacks.
        epochs: Int of at least 1, the epochs of your loop, for callbacks that ask, such as `ProgressBar`. Default 1.

    Raises:
        ValueError: `epochs` is below 1.

    Example:
        >>> import keras, keras_opt, numpy as np
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> monitor = keras_opt.callbacks.GradientMonitor()
        >>> with keras_opt.training.attach(model, monitor) as running:
        ...     running.on_epoch_begin(0)
        ...     for step in range(5):
        ...         loss = model.train_on_batch(np.ones((4, 3)), np.ones((4, 1)))
        ...         running.on_train_batch_end(step, {"loss": loss})
        ...     running.on_epoch_end(0, {})
        >>> len(monitor.series()["grad_norm"])
        5
    """
    check_at_least("attach", "epochs", epochs, 1)
    running = keras.callbacks.CallbackList(list(callbacks), model=model, epochs=epochs, steps=None, verbose=0)
    model.stop_training = False
    try:
        running.on_train_begin()
        yield running
    finally:
        running.on_train_end()
