"""Callbacks around a loop of one's own, and around a `fit`."""

import keras
import numpy as np
import pytest

from keras_opt.callbacks import EarlyStopping
from keras_opt.training import StepHooks, StepPlugin, attach

ONES = np.ones((4, 1), "float32")


class Scaling(StepPlugin, keras.callbacks.Callback):
    """A callback and its plugin in one: multiplies the gradients."""

    def __init__(self, factor=2.0):
        super().__init__()
        self.factor = factor

    def set_model(self, model):
        StepHooks.prepare(model)
        super().set_model(model)

    def on_train_begin(self, logs=None):
        self.hooks = StepHooks.of(self.model)
        self.hooks.add(self)

    def on_train_end(self, logs=None):
        self.hooks.remove(self)

    def clip_gradients(self, gradients, variables):
        return [gradient * self.factor for gradient in gradients]


def line():
    """One batch of ones takes w from 0 to 2."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")])
    model.compile(keras.optimizers.SGD(1.0), "mse", jit_compile=False)
    return model


def weight_after_a_batch(model):
    model.layers[0].kernel.assign([[0.0]])
    model.train_on_batch(ONES, ONES)
    return float(model.layers[0].kernel.numpy()[0, 0])


def names(model):
    return set(vars(model)), set(vars(model.optimizer))


@pytest.fixture
def model():
    model = line()
    model.fit(ONES, ONES, verbose=0)  # Keras makes some of its attributes only now
    model.layers[0].kernel.assign([[0.0]])
    before = names(model)
    yield model
    assert weight_after_a_batch(model) == 2.0
    assert names(model) == before


def test_callbacks_act_inside_and_not_outside(model):
    with attach(model, Scaling()):
        assert weight_after_a_batch(model) == 4.0
    assert weight_after_a_batch(model) == 2.0


def broken_loop(model, *callbacks):
    with attach(model, *callbacks):
        raise RuntimeError("out of data")


def test_an_error_in_the_loop_still_ends_the_callbacks(model):
    with pytest.raises(RuntimeError, match="out of data"):
        broken_loop(model, Scaling())


def test_an_error_while_callbacks_begin_is_the_one_that_is_seen(model):
    def fail(logs=None):
        raise RuntimeError("cannot begin")

    with pytest.raises(RuntimeError, match="cannot begin"):
        broken_loop(model, Scaling(), keras.callbacks.LambdaCallback(on_train_begin=fail))


def test_an_error_while_callbacks_end_does_not_keep_the_plugins(model):
    def fail(logs=None):
        raise RuntimeError("cannot end")

    with pytest.raises(RuntimeError, match="cannot end"):
        broken_loop(model, keras.callbacks.LambdaCallback(on_train_end=fail), Scaling())


def test_a_fit_inside_has_both_its_own_and_the_attached_callbacks(model):
    with attach(model, Scaling()):
        model.fit(ONES, ONES, verbose=0, callbacks=[Scaling(3.0)])
        assert float(model.layers[0].kernel.numpy()[0, 0]) == 12.0
        assert weight_after_a_batch(model) == 4.0


class Broken(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        raise RuntimeError("lost the connection")


def test_an_exception_in_a_fit_inside_leaves_nothing(model):
    with pytest.raises(RuntimeError, match="lost the connection"), attach(model):
        model.fit(ONES, ONES, verbose=0, callbacks=[Scaling(), Broken()])


def test_a_fit_after_a_broken_one_inside_keeps_the_attached_callbacks_only(model):
    with attach(model, Scaling()):
        with pytest.raises(RuntimeError, match="lost the connection"):
            model.fit(ONES, ONES, verbose=0, callbacks=[Scaling(3.0), Broken()])
        model.layers[0].kernel.assign([[0.0]])
        model.fit(ONES, ONES, verbose=0, callbacks=[Scaling(5.0)])
        assert float(model.layers[0].kernel.numpy()[0, 0]) == 20.0


def test_an_attach_within_an_attach_ends_only_its_own(model):
    with attach(model, Scaling()):
        with attach(model, Scaling(3.0)):
            assert weight_after_a_batch(model) == 12.0
        assert weight_after_a_batch(model) == 4.0
        model.fit(ONES, ONES, verbose=0, callbacks=[Scaling(5.0)])
        assert weight_after_a_batch(model) == 4.0


def test_a_model_compiled_anew_inside_comes_out_clean(model):
    with attach(model, Scaling()):
        model.compile(keras.optimizers.SGD(1.0), "mse", jit_compile=False)


def test_stop_training_is_cleared_at_the_start_and_set_by_early_stopping(model):
    model.stop_training = True
    with attach(model, EarlyStopping("loss", patience=1)) as running:
        assert not model.stop_training
        running.on_epoch_end(0, {"loss": 1.0})
        running.on_epoch_end(1, {"loss": 2.0})
        assert model.stop_training


def test_bad_arguments(model):
    with pytest.raises(ValueError, match="attach: argument `epochs` must be an integer of at least 1"):
        attach(model, epochs=0).__enter__()
    with pytest.raises(TypeError, match="must be a compiled Keras model"):
        attach(keras.Sequential(), Scaling()).__enter__()
