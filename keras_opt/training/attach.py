"""Callbacks for people with their own training loop, and the `finally` that `fit` lacks."""

import contextlib
from collections.abc import Iterator

import keras

from keras_opt.core.errors import check_at_least
from keras_opt.training.step_hooks import StepHooks


@contextlib.contextmanager
def attach(
    model: keras.Model, *callbacks: keras.callbacks.Callback, epochs: int = 1
) -> Iterator[keras.callbacks.CallbackList]:
    """Runs `callbacks` around a loop of your own, and always ends them, whatever happens inside.

    On entry the callbacks get the model and `on_train_begin`; on exit, by an exception too, `on_train_end`, so that
    nothing stays hooked to the model or its optimizer. Call the yielded list's `on_epoch_begin(epoch)`,
    `on_train_batch_end(batch, logs)` and `on_epoch_end(epoch, logs)` where `fit` would.

    In the loop, call `train_on_batch`, or compute gradients and call `optimizer.apply`; what needs the model's own step
    (`GradientAccumulation`, `SharpnessAwareMinimization`) says so in the latter. A `tf.function` around the latter
    keeps what was attached when it was traced: make it inside the `with`, and use it no more after that.

    Around a `fit` it is the `finally` that `fit` lacks: what the callbacks of that `fit` hung on the model is gone on
    exit, also after an exception in the middle of training: `with attach(model): model.fit(..., callbacks=[...])`.

    Args:
        model: A compiled model.
        *callbacks: Keras callbacks.
        epochs: Int of at least 1, the epochs of your loop, for callbacks that ask, such as `ProgressBar`. Default 1.

    Raises:
        ValueError: `epochs` is below 1.
        TypeError: `model` is not compiled.

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
    StepHooks.of(model).leave_past_fits()  # raises unless the model is compiled
    running = keras.callbacks.CallbackList(list(callbacks), model=model, epochs=epochs, steps=None, verbose=0)
    around = StepHooks.of(model).plugins  # of an `attach` around this one
    model.stop_training = False
    has_begun = False
    try:
        running.on_train_begin()
        has_begun = True
        StepHooks.of(model).keep()
        yield running
    except BaseException:
        StepHooks.of(model).drop_micro_batches()
        raise
    finally:
        try:
            if has_begun:
                running.on_train_end()
        finally:
            StepHooks.of(model).reduce_to(around)
