"""What a fit that was broken off may leave behind, and what it must not."""

import signal

import keras
import numpy as np
import pytest

from keras_opt.callbacks import EarlyStopping, GradientAccumulation, GradientClipping, GradientMonitor, WeightAveraging
from keras_opt.training import attach

X = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")
Y = X[:, :1]


class Failing(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        if epoch:
            raise OSError("no space left")


@pytest.fixture
def model():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    return model


def broken_off(model, *callbacks):
    with pytest.raises(OSError, match="no space"):
        model.fit(X, Y, epochs=3, verbose=0, callbacks=[*callbacks, Failing()])


def test_old_averages_do_not_replace_weights_that_came_after_the_fit_that_made_them(model):
    broken_off(model, WeightAveraging(ema_momentum=0.5))
    model.set_weights([np.full_like(weight, 7) for weight in model.get_weights()])
    model.optimizer.learning_rate = 0.0
    model.fit(X, Y, verbose=0, callbacks=[GradientMonitor()])
    assert all(np.all(weight == 7) for weight in model.get_weights())


@pytest.mark.parametrize(
    "callback",
    [
        WeightAveraging(ema_momentum=0.5),
        EarlyStopping("loss", patience=5, restore_best_weights=True),
        GradientAccumulation(2),
    ],
)
def test_a_ctrl_c_long_after_a_fit_that_broke_off_touches_nothing(model, callback):
    broken_off(model, callback)
    model.set_weights([np.full_like(weight, 7) for weight in model.get_weights()])
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert all(np.all(weight == 7) for weight in model.get_weights())
    callback.set_model(model)  # disarms


@pytest.mark.parametrize("train", ["plain", "with a callback of ours"])
@pytest.mark.parametrize(
    "callback",
    [WeightAveraging(ema_momentum=0.5), EarlyStopping("loss", patience=5, restore_best_weights=True)],
    ids=["averaging", "stopping"],
)
def test_a_ctrl_c_in_a_fit_after_one_that_broke_off_is_none_of_its_callbacks_business(model, callback, train):
    def set_and_interrupt(epoch, logs):
        model.set_weights([np.full_like(weight, 7) for weight in model.get_weights()])
        signal.raise_signal(signal.SIGINT)

    broken_off(model, callback)
    others = [GradientMonitor()] if train != "plain" else []
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, Y, verbose=0, callbacks=[*others, keras.callbacks.LambdaCallback(on_epoch_end=set_and_interrupt)])
    assert all(np.all(weight == 7) for weight in model.get_weights())
    callback.set_model(model)  # disarms


def test_an_error_while_the_step_is_traced_leaves_the_model_as_it_was():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, [keras.layers.Dense(1)(inputs), keras.layers.Dense(1)(inputs)])
    losses = [keras.losses.MeanSquaredError(reduction="mean_with_sample_weight") for _ in range(2)]
    model.compile("sgd", losses)
    weights = [np.ones(32, "float32"), np.arange(32, dtype="float32")]
    with pytest.raises(ValueError, match="GradientAccumulation"):
        model.fit(X, [Y, Y], sample_weight=weights, verbose=0, callbacks=[GradientAccumulation(2), GradientMonitor()])
    assert "train_step" not in vars(model)
    assert "apply" not in vars(model.optimizer)
    model.fit(X, [Y, Y], sample_weight=weights, verbose=0)


def test_attach_lets_the_error_of_a_callback_that_begins_through(model):
    twice = [GradientClipping(clipnorm=1.0), GradientClipping(clipnorm=1.0)]
    with pytest.raises(RuntimeError, match="two of them"), attach(model, *twice, GradientMonitor()):
        model.train_on_batch(X, Y)


def test_an_exception_in_attach_makes_no_update_of_half_a_batch(model):
    def broken_loop():
        with attach(model, GradientAccumulation(4)):
            model.train_on_batch(X, Y)
            raise OSError("no space left")

    before = model.get_weights()
    with pytest.raises(OSError, match="no space"):
        broken_loop()
    assert all(np.array_equal(now, then) for now, then in zip(model.get_weights(), before, strict=True))


def test_averages_that_move_to_another_model_let_go_of_the_first(model):
    other = keras.models.clone_model(model)
    other.compile("sgd", "mse")
    averaging = WeightAveraging(ema_momentum=0.5)
    broken_off(model, averaging)
    other.fit(X, Y, verbose=0, callbacks=[averaging])
    assert "train_step" not in vars(model)
