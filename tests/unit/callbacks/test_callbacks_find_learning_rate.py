"""Arguments, errors, early ends, and what kinds of data are taken."""

import random

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_opt.callbacks import GradientMonitor, find_learning_rate
from keras_opt.core.errors import InputError, NoEffectWarning
from keras_opt.data import arrays
from keras_opt.training import StepHooks, attach

RNG = np.random.default_rng(0)
X = RNG.normal(size=(400, 3)).astype("float32")
Y = X.sum(axis=1, keepdims=True)


def line(optimizer="sgd", loss="mse", **settings):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(optimizer, loss, **settings)
    return model


def find(model, *data, **options):
    return find_learning_rate(model, *data, **{"steps": 40, "verbose": 0, **options})


def test_a_rate_for_a_linear_model_lies_below_the_rate_that_diverges():
    """Of 3 inputs of variance 1 the curvature is 2, so that SGD diverges above 1."""
    found = find(line(), X, Y, batch_size=40)
    assert 0.03 < found.suggestion < 1
    rates = found.curve.rates
    assert rates[0] == 1e-6
    assert rates[-1] > 1
    assert len(rates) == len(found.curve.losses) == len(found.curve.smoothed)


def test_the_rates_are_those_asked_for():
    found = find(line(), X, Y, min_learning_rate=1e-3, max_learning_rate=0.1, steps=11, smoothing=0.0)
    np.testing.assert_allclose(found.curve.rates, np.geomspace(1e-3, 0.1, 11))
    np.testing.assert_array_equal(found.curve.losses, found.curve.smoothed)


def batches():
    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(40)


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 10

    def __getitem__(self, index):
        rows = slice(40 * index, 40 * index + 40)
        return X[rows], Y[rows]


DATA = {
    "arrays": lambda: (X, Y),
    "keras_opt": lambda: (arrays(X, Y, 40, seed=0),),
    "tf_data": lambda: (batches(),),
    "endless": lambda: (batches().repeat(),),
    "unknown_length": lambda: (batches().filter(lambda x, y: True),),
    "py_dataset": lambda: (Batches(),),
}


@pytest.mark.parametrize("kind", DATA)
def test_every_kind_of_data_gives_all_updates_beyond_one_epoch(kind):
    options = {"batch_size": 40} if kind == "arrays" else {}
    found = find(line(), *DATA[kind](), max_learning_rate=0.5, **options)
    assert len(found.curve.rates) == 40
    assert 0.01 < found.suggestion < 0.5


def generator(drawn):
    for place in range(0, 400, 10):
        drawn.append(place)
        yield X[place : place + 10], Y[place : place + 10]


def test_a_generator_is_read_only_with_consume():
    drawn = []
    model = line()
    with pytest.raises(InputError, match=r"argument `x` must be data that can be read again.*give consume=True"):
        find(model, generator(drawn))
    assert drawn == []
    assert len(find(model, generator(drawn), consume=True, max_learning_rate=0.1, steps=20).curve.rates) == 20
    assert len(drawn) >= 20


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_a_generator_that_ends_early_ends_the_test():
    assert len(find(line(), generator([]), consume=True, steps=100, max_learning_rate=1).curve.rates) == 40


def test_weights_of_samples_and_classes_count():
    labels = np.tile([[0.0], [1.0]], (200, 1))
    plain = find(line(), X, labels, max_learning_rate=0.1).curve.losses
    by_sample = find(line(), X, labels, sample_weight=np.full(400, 2.0), max_learning_rate=0.1).curve.losses
    assert by_sample[0] != plain[0]
    data = tf.data.Dataset.from_tensor_slices((X, labels[:, 0])).batch(40)
    by_class = find(line(), data, class_weight={0: 0.0, 1: 0.0}, max_learning_rate=0.1, smoothing=0)
    assert set(by_class.curve.losses) == {0.0}


@pytest.mark.filterwarnings("default::keras_opt.core.errors.NoEffectWarning")
def test_no_suggestion_is_a_warning_that_says_what_was_seen():
    message = r"no learning rate to suggest: in \d+ updates with rates from 5 to .* never fell .* Draw the curve"
    with pytest.warns(NoEffectWarning, match=message):
        found = find(line(), X, Y, batch_size=40, min_learning_rate=5, max_learning_rate=100)  # all of them diverge
    assert found.suggestion is None


def test_it_ends_when_the_loss_has_diverged():
    found = find(line(), X, Y, batch_size=40, max_learning_rate=1e6)
    assert found.curve.rates[-1] < 100
    first, last = found.curve.losses[:4].mean(), found.curve.smoothed[-1]
    assert last > 4 * first > found.curve.smoothed[-2]


def test_a_first_loss_that_is_not_finite_is_said():
    model = line()
    before = model.get_weights()
    with pytest.warns(NoEffectWarning, match="the loss of the first batch is not finite"):
        found = find(model, np.full((40, 3), np.nan, "float32"), Y[:40])
    assert len(found.curve.rates) == 0
    np.testing.assert_array_equal(model.get_weights()[0], before[0])


def test_it_ends_at_a_loss_that_is_not_finite():
    found = find(line(), X * 1e15, Y, max_learning_rate=1e3)
    assert np.isfinite(found.curve.losses).all()
    assert len(found.curve.rates) < 40


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_learning_rate": 0}, r"`min_learning_rate` must be a finite number above 0"),
        ({"max_learning_rate": float("inf")}, r"`max_learning_rate` must be a finite number above 0"),
        ({"max_learning_rate": 1e-6}, r"`max_learning_rate` must be above min_learning_rate=1e-06. Received"),
        ({"steps": 9}, r"`steps` must be an integer of at least 10"),
        ({"smoothing": 1.0}, r"`smoothing` must be a fraction in \[0, 1\)"),
        ({"verbose": "loud"}, r"`verbose` must be one of 'auto', 0, 1, 2"),
        ({"batch_size": 0}, r"`batch_size` must be an integer of at least 1"),
    ],
)
def test_arguments(options, message):
    with pytest.raises(InputError, match=rf"^find_learning_rate: argument {message}"):
        find(line(), X, Y, **options)


def test_models_that_cannot_be_tested():
    with pytest.raises(InputError, match=r"argument `model` must be a compiled Keras model.*Call model.compile"):
        find(keras.Sequential([keras.layers.Dense(1)]), X, Y)
    if hasattr(keras.optimizers, "MultiOptimizer"):  # not yet in Keras 3.12
        several = keras.optimizers.MultiOptimizer(lambda variable: keras.optimizers.SGD())
        with pytest.raises(InputError, match="compiled with one optimizer, not several"):
            find(line(several), X, Y)
    model = line()
    with (
        attach(model, GradientMonitor()),
        pytest.raises(RuntimeError, match=r"callbacks are attached to model .* before you attach them"),
    ):
        find(model, X, Y)


def test_the_callbacks_of_a_running_fit_stay():
    model, monitor = line(), GradientMonitor()
    within = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: find(model, X, Y) if epoch else None)
    with pytest.raises(RuntimeError, match=r"callbacks are attached to model"):
        model.fit(X[:40], Y[:40], epochs=2, verbose=0, callbacks=[monitor, within])
    assert monitor._recorder in StepHooks.of(model).plugins


@pytest.mark.filterwarnings("ignore:.*ran out of data")
@pytest.mark.parametrize("empty", [(X[:0], Y[:0]), (batches().take(0),)], ids=["arrays", "tf.data"])
def test_data_without_a_batch(empty):
    with pytest.raises(InputError, match=r"argument `x` must be data with at least one batch"):
        find(line(), *empty)


class Mute(keras.Model):
    """Its step reports no loss."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1)

    def call(self, x):
        return self.dense(x)

    def train_step(self, data):
        super().train_step(data)
        return {"nothing": 0.0}


def state_of(model):
    variables = [*model.variables, *model.optimizer.variables]
    return [np.array(keras.ops.convert_to_numpy(variable)).tolist() for variable in variables]


def test_an_error_in_the_middle_leaves_everything_as_it_was():
    model = Mute()
    model.compile(keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.1, 100)), "mse")
    model.fit(X[:4], Y[:4], verbose=0)
    before, step, draw = state_of(model), model.train_function, random.getstate()
    with pytest.raises(InputError, match=r"step of model 'mute.*' reports no `loss`, only nothing. Return it"):
        find(model, X, Y)
    assert state_of(model) == before
    assert model.train_function is step
    assert random.getstate() == draw
    assert float(model.optimizer.learning_rate) == pytest.approx(0.1, rel=1e-3)


def test_the_memory_of_a_stateful_layer_is_as_it_was():
    model = keras.Sequential([keras.Input((1, 3), batch_size=4), keras.layers.SimpleRNN(1, stateful=True)])
    model.compile("sgd", "mse")
    model.train_on_batch(X[:4, None], Y[:4])
    before = [state.numpy().tolist() for state in model.layers[0].states]
    find(model, X[:40, None], Y[:40], batch_size=4)
    assert [state.numpy().tolist() for state in model.layers[0].states] == before


def test_an_interrupt_leaves_everything_as_it_was():
    class Interrupted(Batches):
        def __getitem__(self, index):
            if index == 7:
                raise KeyboardInterrupt
            return super().__getitem__(index)

    model = line("adam")
    model.fit(X[:4], Y[:4], verbose=0)
    before = state_of(model)
    with pytest.raises((KeyboardInterrupt, tf.errors.OpError)):
        find(model, Interrupted())
    assert state_of(model) == before


def test_a_fit_that_cannot_begin_leaves_everything_as_it_was():
    model = line()
    model.fit(X[:4], Y[:4], verbose=0)
    before, history = state_of(model), model.history
    with pytest.raises(ValueError, match="cardinality"):
        find(model, X, Y[:7])
    assert state_of(model) == before
    assert model.history is history


def test_a_model_that_never_trained_has_no_history_afterwards():
    model = line()
    find(model, X, Y)
    assert not hasattr(model, "history")
    assert model.train_function is None


def test_what_a_broken_off_fit_has_left_does_not_matter():
    model = line()
    monitor = GradientMonitor()

    class Broken(Exception):
        """What ends the fit."""

    class Breaking(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise Broken

    with pytest.raises(Broken):
        model.fit(X, Y, verbose=0, callbacks=[monitor, Breaking()])
    assert find(model, X, Y, batch_size=40).suggestion
    assert StepHooks.of(model).plugins == ()


def test_progress_is_shown(capsys):
    find_learning_rate(line(), X, Y, batch_size=40, steps=20, max_learning_rate=0.5)
    shown = capsys.readouterr().err
    assert shown.startswith("learning rates: 20/20 in ")
    assert "rate 5.0e-01 loss" in shown
