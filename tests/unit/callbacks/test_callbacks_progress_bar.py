"""One bar for the whole fit."""

import io

import keras
import numpy as np

from keras_opt.callbacks import ProgressBar
from keras_opt.core.progress import Progress
from keras_opt.training import attach


def small_model():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


def test_one_line_at_the_end_with_the_last_values():
    stream = io.StringIO()
    bar = ProgressBar("fine-tuning", Progress(stream))
    small_model().fit(np.ones((4, 2)), np.ones((4, 1)), epochs=3, verbose=0, callbacks=[bar])
    (line,) = stream.getvalue().splitlines()
    assert line.startswith("fine-tuning: 3/3 in ")
    assert "(loss " in line


def test_a_fit_that_goes_on_counts_its_own_epochs():
    stream = io.StringIO()
    bar = ProgressBar(progress=Progress(stream))
    data = np.ones((4, 2)), np.ones((4, 1))
    small_model().fit(*data, epochs=10, initial_epoch=8, verbose=0, callbacks=[bar])
    assert stream.getvalue().startswith("training: 2/2 in ")


def test_an_interrupted_fit_leaves_the_bar_ready_for_the_next():
    def interrupt(epoch, logs):
        raise KeyboardInterrupt

    stream = io.StringIO()
    bar = ProgressBar(progress=Progress(stream))
    model = small_model()
    data = np.ones((4, 2)), np.ones((4, 1))
    breaking = keras.callbacks.LambdaCallback(on_epoch_end=interrupt)
    try:
        model.fit(*data, epochs=3, verbose=0, callbacks=[bar, breaking])
    except KeyboardInterrupt:
        model.fit(*data, epochs=2, verbose=0, callbacks=[bar])
    assert [line.split(" in ")[0] for line in stream.getvalue().splitlines()] == ["training: 1/3", "training: 2/2"]


def test_a_loop_of_your_own_says_how_long_it_is():
    stream = io.StringIO()
    with attach(small_model(), ProgressBar(progress=Progress(stream)), epochs=2) as running:
        running.on_epoch_end(0, {"loss": 1.0})
        running.on_epoch_end(1, {"loss": 0.5})
    assert stream.getvalue().startswith("training: 2/2 in ")
