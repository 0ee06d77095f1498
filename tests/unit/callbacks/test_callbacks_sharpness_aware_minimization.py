"""When sharpness-aware minimization acts, and what it refuses."""

import keras
import numpy as np
import pytest

from keras_opt.callbacks import SharpnessAwareMinimization
from keras_opt.training import StepHooks, attach

X = np.random.default_rng(0).normal(size=(12, 3)).astype("float32")
Y = X.sum(axis=1, keepdims=True)


def compiled(kind=keras.Sequential):
    inputs = keras.Input((3,))
    outputs = keras.layers.Dense(1)(keras.layers.Dense(4, "tanh")(inputs))
    model = kind(inputs, outputs) if kind is not keras.Sequential else kind([inputs, *_layers(inputs, outputs)])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    return model


def _layers(inputs, outputs):
    return keras.Model(inputs, outputs).layers[1:]


def fit(model, *callbacks, epochs=1):
    history = model.fit(X, Y, batch_size=4, epochs=epochs, shuffle=False, verbose=0, callbacks=list(callbacks))
    return history.history["loss"]


def traces(model):
    """What hooks would leave behind."""
    return {"train_step", "apply"} & (set(vars(model)) | set(vars(model.optimizer)))


class Own(keras.Model):
    """A model with a training step of its own."""

    def train_step(self, data):
        return super().train_step(data)


@pytest.mark.parametrize("rho", [0, -0.05, np.nan, np.inf, "0.05", None, True])
def test_rho_must_be_positive(rho):
    with pytest.raises(ValueError, match="argument `rho` must be a finite number above 0"):
        SharpnessAwareMinimization(rho)


@pytest.mark.parametrize("interval", [0, -1, 1.5, "2", None, True])
def test_interval_must_be_an_integer_of_at_least_1(interval):
    with pytest.raises(ValueError, match="argument `interval` must be an integer of at least 1"):
        SharpnessAwareMinimization(interval=interval)


def test_it_changes_the_training_and_leaves_nothing_behind():
    plain, sharp = (compiled(keras.Model) for _ in range(2))
    sharp.set_weights(plain.get_weights())
    assert fit(plain, epochs=2)[1] != fit(sharp, SharpnessAwareMinimization(0.5), epochs=2)[1]
    assert traces(sharp) == set()
    sharp.set_weights(plain.get_weights())
    assert fit(sharp) == fit(plain)


def test_the_same_callback_serves_two_fits():
    model, callback = compiled(), SharpnessAwareMinimization(1e-3)
    assert fit(model, callback, epochs=3)[-1] > fit(model, callback, epochs=3)[-1]
    assert traces(model) == set()


def test_beginning_twice_without_an_end_attaches_it_once():
    model, callback = compiled(), SharpnessAwareMinimization()
    callback.set_model(model)
    callback.on_train_begin()
    callback.on_train_begin()
    assert len(StepHooks.of(model).plugins) == 1
    callback.on_train_end()
    assert traces(model) == set()


def test_what_a_broken_off_fit_left_is_removed():
    class Broken(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise RuntimeError("out of data")

    model = compiled()
    with pytest.raises(RuntimeError, match="out of data"):
        fit(model, SharpnessAwareMinimization(), Broken())
    fit(model, SharpnessAwareMinimization())
    assert traces(model) == set()


def test_two_of_them_are_refused():
    model = compiled()
    with pytest.raises(RuntimeError, match="SharpnessAwareMinimization: two of them would act"):
        fit(model, SharpnessAwareMinimization(), SharpnessAwareMinimization(0.1))
    assert traces(model) == set()


def test_a_subclass_with_its_own_train_step_is_refused():
    model = compiled(Own)
    with pytest.raises(ValueError, match="has a `train_step` of its own"):
        fit(model, SharpnessAwareMinimization())
    assert traces(model) == set()


def test_a_train_step_on_the_instance_is_refused():
    model = compiled()
    original = model.train_step
    model.train_step = lambda data: original(data)
    with pytest.raises(ValueError, match="has a `train_step` of its own"):
        fit(model, SharpnessAwareMinimization())


def test_around_a_loop_of_ones_own():
    model = compiled()
    with attach(model, SharpnessAwareMinimization()) as running:
        running.on_epoch_begin(0)
        losses = [model.train_on_batch(X, Y) for _ in range(4)]
        assert traces(model) == {"train_step", "apply"}
    assert losses == sorted(losses, reverse=True)
    assert traces(model) == set()
