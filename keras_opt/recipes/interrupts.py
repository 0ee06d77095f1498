"""Ctrl-C that waits for the end of a batch, because TensorFlow swallows or twists one that falls into its tracing."""

import contextlib
import signal
import threading
from collections.abc import Iterator

import keras


@contextlib.contextmanager
def interrupt_at_batch_end() -> Iterator[keras.callbacks.Callback]:
    """Yield a callback that raises `KeyboardInterrupt` at the end of the batch in which Ctrl-C was pressed.

    A second Ctrl-C interrupts at once. Outside the main thread, where Python takes no signal handlers, nothing changes.
    """
    watch = _Watch()
    if threading.current_thread() is not threading.main_thread():
        yield watch
        return
    before = signal.signal(signal.SIGINT, watch.note)
    try:
        yield watch
    finally:
        signal.signal(signal.SIGINT, before)
    watch.raise_if_pressed()


class _Watch(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.pressed = False

    def note(self, number, frame):
        if self.pressed:
            raise KeyboardInterrupt
        self.pressed = True

    def raise_if_pressed(self):
        if self.pressed:
            self.pressed = False
            raise KeyboardInterrupt

    def on_train_batch_end(self, batch, logs=None):
        self.raise_if_pressed()

    def on_test_batch_end(self, batch, logs=None):
        self.raise_if_pressed()

    def on_epoch_end(self, epoch, logs=None):
        self.raise_if_pressed()
