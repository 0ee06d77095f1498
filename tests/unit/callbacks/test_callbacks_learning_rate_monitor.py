"""The rate in the history, of every update, and what adaptive optimizers make of it."""

import keras
import numpy as np
import pytest

from keras_opt.callbacks import LearningRateMonitor
from keras_opt.callbacks.effective_rates import adam_rate, rmsprop_rate
from keras_opt.core.errors import InputError
from keras_opt.schedules import OneCycle
from keras_opt.training import StepHooks, attach

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(8, 2)), RNG.normal(size=(8, 1))


def model_with(optimizer, layers=1, **settings):
    dense = [keras.layers.Dense(2, activation="tanh", name=f"layer{number}") for number in range(layers)]
    model = keras.Sequential([keras.Input((2,)), *dense, keras.layers.Dense(1, name="head")], name="net")
    model.compile(optimizer, "mse", **settings)
    return model


def fit(model, *callbacks, epochs=2, **settings):
    """4 updates an epoch."""
    return model.fit(X, Y, batch_size=2, epochs=epochs, verbose=0, callbacks=list(callbacks), **settings).history


@pytest.mark.parametrize("scaled", [False, True], ids=["plain", "loss scaled"])
def test_the_rate_of_a_schedule_at_each_epoch_end(scaled):
    schedule = OneCycle(0.1, 6)
    optimizer = keras.optimizers.SGD(schedule)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=2.0) if scaled else optimizer, "mse")
    data = np.ones((4, 2)), np.ones((4, 1))
    history = model.fit(*data, batch_size=2, epochs=3, verbose=0, callbacks=[LearningRateMonitor()])
    expected = [float(schedule(step)) for step in (2, 4, 6)]
    np.testing.assert_allclose(history.history["learning_rate"], expected, rtol=1e-6)
    assert all(type(rate) is float for rate in history.history["learning_rate"])


@pytest.mark.parametrize("rate", [0.1, lambda: 0.1], ids=["constant", "function"])
def test_the_rate_of_every_update_whatever_decides_it(rate):
    monitor = LearningRateMonitor()
    model = model_with(keras.optimizers.SGD(rate))
    assert fit(model, monitor)["learning_rate"] == pytest.approx([0.1] * 2)
    np.testing.assert_allclose(monitor.series()["learning_rate"], [0.1] * 8)
    assert StepHooks.of(model).plugins == ()


def test_a_callback_that_sets_the_rate_is_seen():
    monitor = LearningRateMonitor()
    halve = keras.callbacks.LearningRateScheduler(lambda epoch: 0.5**epoch)
    fit(model_with(keras.optimizers.SGD(0.1)), halve, monitor)
    np.testing.assert_allclose(monitor.series()["learning_rate"], [1.0] * 4 + [0.5] * 4)


def test_without_a_fit_there_is_an_empty_series_and_an_empty_plot():
    series = LearningRateMonitor(effective=True).series()
    assert {name: len(values) for name, values in series.items()} == dict.fromkeys(series, 0)
    assert set(series) == {"step", "learning_rate", "effective_step", "effective_learning_rate"}
    assert len(LearningRateMonitor(effective=True).plot().lines) == 1


def test_updates_that_were_not_read_in_time_keep_their_numbers():
    """In a loop of one's own that never calls `on_train_batch_end`."""
    schedule, monitor = OneCycle(0.1, 2000), LearningRateMonitor()
    model = model_with(keras.optimizers.SGD(schedule))
    with attach(model, monitor):
        for _ in range(1030):
            model.train_on_batch(X, Y)
    series = monitor.series()
    assert series["step"].tolist() == list(range(1030))
    assert np.isnan(series["learning_rate"][:6]).all()
    np.testing.assert_allclose(series["learning_rate"][6:], [float(schedule(at)) for at in range(6, 1030)], rtol=1e-5)


def test_a_second_fit_begins_a_new_series():
    monitor, model = LearningRateMonitor(effective=True), model_with(keras.optimizers.Adam(0.1))
    fit(model, monitor)
    fit(model, monitor, epochs=1)
    assert len(monitor.series()["step"]) == 4
    assert list(monitor.series()["effective_step"]) == [3]


# --- effective rates -----------------------------------------------------------------------------------------------


def test_adams_formula():
    found = adam_rate(0.1, np.array([0.25, 4.0]), t=2, beta_1=0.5, beta_2=0.75, epsilon=0.5)
    np.testing.assert_allclose(found, 0.1 * np.sqrt(7 / 16) / (3 / 4) / np.array([1.0, 2.5]))


def test_rmsprops_formula():
    np.testing.assert_allclose(rmsprop_rate(0.1, np.array([0.25, 4.0]), epsilon=2.0), 0.1 / np.sqrt([2.25, 6.0]))


def slots(optimizer, suffix):
    """The slots in the model's order: that of Keras's private lists is the oracle."""
    return {variable.path: slot.numpy() for variable, slot in zip(optimizer._trainable_variables, suffix, strict=True)}


@pytest.mark.parametrize("scaled", [False, True], ids=["plain", "loss scaled"])
def test_the_medians_are_those_of_the_slots(scaled):
    inner = keras.optimizers.Adam(OneCycle(0.1, 20))
    model = model_with(keras.optimizers.LossScaleOptimizer(inner, initial_scale=2.0) if scaled else inner, layers=2)
    monitor = LearningRateMonitor(effective=True)
    logs = fit(model, monitor)
    rates = {
        path: adam_rate(float(OneCycle(0.1, 20)(7)), v.astype("float64"), 8, 0.9, 0.999, 1e-7).ravel()
        for path, v in slots(inner, inner._velocities).items()
    }
    for layer in ("layer0", "layer1", "head"):
        want = np.median(np.concatenate([rates[f"net/{layer}/kernel"], rates[f"net/{layer}/bias"]]))
        np.testing.assert_allclose(monitor.series()[f"effective_learning_rate/net/{layer}"][-1], want, rtol=1e-6)
    want = np.median(np.concatenate(list(rates.values())))
    np.testing.assert_allclose(logs["effective_learning_rate"][-1], want, rtol=1e-6)
    assert all(type(rate) is float for rate in logs["effective_learning_rate"])


def test_weights_without_a_gradient_are_left_out():
    """ReLU units that are dead: their v is 0, and the rate that they would learn at is rate / epsilon."""
    model = keras.Sequential(
        [
            keras.Input((2,)),
            keras.layers.Dense(3, activation="relu", bias_initializer=keras.initializers.Constant(-100.0), name="dead"),
            keras.layers.Dense(1, name="head"),
        ],
        name="net",
    )
    model.compile(keras.optimizers.Adam(0.1), "mse")
    monitor = LearningRateMonitor(effective=True)
    logs = fit(model, monitor, epochs=1)
    assert np.isnan(monitor.series()["effective_learning_rate/net/dead"]).all()
    # Of the head only the bias has a gradient.
    v = next(slot.numpy() for slot in model.optimizer.variables if slot.name == "net_head_bias_velocity")
    want = adam_rate(0.1, v.astype("float64"), 4, 0.9, 0.999, 1e-7)
    np.testing.assert_allclose(logs["effective_learning_rate"], want, rtol=1e-6)


def test_variables_of_one_name_have_their_own_slots():
    class Twins(keras.Model):
        def __init__(self):
            super().__init__(name="twins")
            self.left = keras.layers.Dense(2, use_bias=False, name="twin")
            self.right = keras.layers.Dense(2, use_bias=False, name="twin", kernel_initializer="zeros")

        def call(self, inputs):
            return keras.ops.sum(self.left(inputs) + 100 * self.right(inputs), axis=-1, keepdims=True)

    model = Twins()
    model.compile(keras.optimizers.Adam(0.1), "mse")
    monitor = LearningRateMonitor(effective=True)
    fit(model, monitor, epochs=1)
    assert len({variable.path for variable in model.trainable_variables}) == 1
    velocities = np.concatenate([v.numpy().ravel() for v in model.optimizer._velocities]).astype("float64")
    want = np.median(adam_rate(0.1, velocities, 4, 0.9, 0.999, 1e-7))
    np.testing.assert_allclose(monitor.series()["effective_learning_rate"], [want], rtol=1e-6)


def test_the_parts_of_a_multi_optimizer_without_a_second_moment_are_left_out():
    parts = keras.optimizers.Adam(0.1, name="adam"), keras.optimizers.SGD(0.2, name="sgd")
    optimizer = keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(parts[0], {".*head.*": parts[1]}))
    monitor = LearningRateMonitor(effective=True)
    logs = fit(model_with(optimizer), monitor)
    assert logs["learning_rate_adam"] == pytest.approx([0.1] * 2)
    assert logs["learning_rate_sgd"] == pytest.approx([0.2] * 2)
    np.testing.assert_allclose(monitor.series()["learning_rate_sgd"], [0.2] * 8)
    layers = [name for name in monitor.series() if name.startswith("effective_learning_rate/")]
    assert layers == ["effective_learning_rate/net/layer0"]
    assert len(monitor.plot().lines) == 3


@pytest.mark.parametrize("name", ["SGD", "Lion", "Nadam"])
def test_an_optimizer_without_a_second_moment_is_refused_before_training(name):
    model = model_with(getattr(keras.optimizers, name)())
    with pytest.raises(InputError, match=f"`effective` must be False unless .*effective=True and the optimizer {name}"):
        fit(model, LearningRateMonitor(effective=True))
    assert StepHooks.of(model).plugins == ()
    assert "learning_rate" in fit(model, LearningRateMonitor())


def test_so_is_a_subclass_that_updates_otherwise():
    class Mine(keras.optimizers.Adam):
        def update_step(self, gradient, variable, learning_rate):
            self.assign_sub(variable, gradient)

    with pytest.raises(InputError, match="the optimizer Mine"):
        fit(model_with(Mine(0.1)), LearningRateMonitor(effective=True))


def test_two_replicas_have_the_effective_rates_of_one(two_replicas):
    found = []
    for strategy in (None, two_replicas):
        keras.utils.set_random_seed(0)
        monitor = LearningRateMonitor(effective=True)
        if strategy is None:
            model = model_with(keras.optimizers.Adam(OneCycle(0.1, 20)))
        else:
            with strategy.scope():
                model = model_with(keras.optimizers.Adam(OneCycle(0.1, 20)))
        fit(model, monitor, shuffle=False)
        found.append(monitor.series())
    for name, values in found[0].items():
        np.testing.assert_allclose(found[1][name], values, rtol=1e-3, err_msg=name)


# --- plot and resume -----------------------------------------------------------------------------------------------


def test_the_plot_has_the_rate_and_a_line_for_each_layer():
    monitor = LearningRateMonitor(effective=True)
    fit(model_with(keras.optimizers.Adam(OneCycle(0.1, 20)), layers=2), monitor)
    ax = monitor.plot()
    labels = [line.get_label() for line in ax.lines]
    assert labels == ["learning_rate", *(f"effective: net/{layer}" for layer in ("layer0", "layer1", "head"))]
    assert [len(line.get_xdata()) for line in ax.lines] == [8, 2, 2, 2]
    assert ax.get_yscale() == "log"
    assert monitor.plot(ax=ax, label="second") is ax
    assert [line.get_label() for line in ax.lines[4:6]] == ["second learning_rate", "second effective: net/layer0"]
    plain = LearningRateMonitor()
    fit(model_with(keras.optimizers.SGD(0.1)), plain)
    assert plain.plot().get_yscale() == "linear"


def test_a_resumed_fit_goes_on_with_the_series():
    keras.utils.set_random_seed(0)
    whole = LearningRateMonitor(effective=True)
    fit(model_with(keras.optimizers.Adam(OneCycle(0.1, 20))), whole, epochs=3, shuffle=False)
    keras.utils.set_random_seed(0)
    first, second = LearningRateMonitor(effective=True), LearningRateMonitor(effective=True)
    model = model_with(keras.optimizers.Adam(OneCycle(0.1, 20)))
    states = []
    save = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: states.append(first.state_dict()))
    fit(model, first, save, epochs=2, shuffle=False)
    assert states[0] == {"names": ["learning_rate"], "rates": None, "epochs": []}
    state = first.state_dict()
    load = keras.callbacks.LambdaCallback(
        on_train_begin=lambda logs: second.load_state_dict(state),
        on_epoch_begin=lambda epoch, logs: second.load_state_dict(state),
    )
    fit(model, second, load, initial_epoch=2, epochs=3, shuffle=False)
    for name, values in whole.series().items():
        np.testing.assert_array_equal(second.series()[name], values, err_msg=name)
    assert len(state["rates"]) == 8
