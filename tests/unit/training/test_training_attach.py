"""Callbacks around a loop of one's own."""

import keras
import pytest

from keras_opt.callbacks import EarlyStopping, GradientMonitor
from keras_opt.training import attach


def small_model():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


def broken_loop(model, *callbacks):
    with attach(model, *callbacks):
        raise RuntimeError("out of data")


def test_an_error_in_the_loop_still_ends_the_callbacks():
    model = small_model()
    before = set(vars(model.optimizer))
    with pytest.raises(RuntimeError, match="out of data"), pytest.warns(UserWarning, match="no update"):
        broken_loop(model, GradientMonitor())
    assert set(vars(model.optimizer)) == before


def test_an_error_while_callbacks_begin_is_the_one_that_is_seen():
    class Broken(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            raise RuntimeError("cannot begin")

    with pytest.raises(RuntimeError, match="cannot begin"), pytest.warns(UserWarning, match="no update"):
        broken_loop(small_model(), Broken(), GradientMonitor())


def test_stop_training_is_cleared_at_the_start_and_set_by_early_stopping():
    model = small_model()
    model.stop_training = True
    with attach(model, EarlyStopping("loss", patience=1)) as running:
        assert not model.stop_training
        running.on_epoch_end(0, {"loss": 1.0})
        running.on_epoch_end(1, {"loss": 2.0})
        assert model.stop_training


def test_bad_arguments():
    with pytest.raises(ValueError, match="attach: argument `epochs` must be an integer of at least 1"):
        attach(small_model(), epochs=0).__enter__()
