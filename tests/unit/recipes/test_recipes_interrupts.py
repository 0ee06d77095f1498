"""Ctrl-C falls at the end of a batch, a second one at once, and the handler before is put back."""

import os
import signal
import threading

import keras
import numpy as np
import pytest

from keras_opt.recipes.interrupts import interrupt_at_batch_end


class Press(keras.callbacks.Callback):
    """Presses Ctrl-C in the first batch, and sees whether the batch is finished all the same."""

    def __init__(self, times):
        super().__init__()
        self.times = times
        self.ended = 0

    def on_train_batch_begin(self, batch, logs=None):
        for _ in range(self.times):
            os.kill(os.getpid(), signal.SIGINT)

    def on_train_batch_end(self, batch, logs=None):
        self.ended += 1


def fit(*callbacks):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(np.ones((8, 2)), np.ones((8, 1)), batch_size=2, verbose=0, callbacks=list(callbacks))


@pytest.mark.parametrize(("times", "ended"), [(1, 1), (2, 0)])
def test_one_press_waits_for_the_batch_and_a_second_does_not(times, ended):
    before = signal.getsignal(signal.SIGINT)
    press = Press(times)
    with pytest.raises(KeyboardInterrupt), interrupt_at_batch_end() as watch:
        fit(press, watch)
    assert press.ended == ended
    assert signal.getsignal(signal.SIGINT) is before


def test_a_press_after_the_last_batch_is_not_lost():
    with pytest.raises(KeyboardInterrupt), interrupt_at_batch_end():
        os.kill(os.getpid(), signal.SIGINT)


def test_in_another_thread_it_does_nothing():
    finished = []

    def work():
        with interrupt_at_batch_end() as watch:
            fit(watch)
        finished.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert finished
