"""ScaledSchedule: the multiplier changes while training runs, without a trace."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_opt
from keras_opt.schedules import ScaledSchedule, StepDecay

UPDATES = 11
TRACES = []


@keras.saving.register_keras_serializable("tests")
def traced_mean(_, outputs):
    """A loss whose gradient is 1, which notes that it is traced."""
    TRACES.append(1)
    return ops.mean(outputs)


class HalveEachEpoch(keras.callbacks.Callback):
    def __init__(self, schedule):
        super().__init__()
        self.schedule = schedule

    def on_epoch_end(self, epoch, logs=None):
        self.schedule.multiplier.assign(self.schedule.multiplier * 0.5)


def model_with(optimizer, **settings):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")])
    model.compile(optimizer, traced_mean, **settings)
    return model


def fit(model, batch_size=1, **settings):
    ones = np.ones((UPDATES * batch_size, 1))
    model.fit(ones, ones, batch_size=batch_size, verbose=0, **settings)
    return -model.get_weights()[0].item()


@pytest.mark.parametrize("settings", [{}, {"jit_compile": True}, {"steps_per_execution": 8}], ids=str)
def test_a_callback_changes_the_rate_without_a_trace(settings):
    schedule = ScaledSchedule(StepDecay(0.1, 4, 0.5))
    model = model_with(keras.optimizers.SGD(schedule), **settings)
    rates = [0.1 * 0.5 ** (step // 4 + step // UPDATES) for step in range(3 * UPDATES)]
    fit(model)
    TRACES.clear()
    schedule.multiplier.assign(0.5)
    assert np.isclose(fit(model, epochs=2, callbacks=[HalveEachEpoch(schedule)]), sum(rates), rtol=1e-5)
    assert TRACES == []
    assert float(schedule.multiplier) == 0.125


def test_a_loss_scale_optimizer_follows_it():
    schedule = ScaledSchedule(0.1, multiplier=0.5)
    model = model_with(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(schedule), initial_scale=2.0))
    assert np.isclose(fit(model), UPDATES * 0.05, rtol=1e-5)


def test_a_saved_model_keeps_the_multiplier(tmp_path):
    schedule = ScaledSchedule(0.1)
    model = model_with(keras.optimizers.SGD(schedule))
    fit(model)
    schedule.multiplier.assign(0.25)
    model.save(tmp_path / "model.keras")
    loaded = keras_opt.load_model(tmp_path / "model.keras")
    assert np.isclose(float(loaded.optimizer.learning_rate), 0.025)
    assert np.isclose(fit(loaded), UPDATES * (0.1 + 0.025), rtol=1e-5)


@pytest.mark.parametrize("inside", [True, False], ids=["made in the scope", "made outside"])
def test_every_replica_follows_it(two_replicas, inside):
    outside = None if inside else ScaledSchedule(0.1)
    with two_replicas.scope():
        schedule = outside or ScaledSchedule(0.1)
        model = model_with(keras.optimizers.SGD(schedule))
    first = fit(model, batch_size=2)
    schedule.multiplier.assign(0.5)
    assert np.isclose(fit(model, batch_size=2), 1.5 * first, rtol=1e-5)
    assert schedule.get_config()["multiplier"] == 0.5


def test_the_multiplier_is_as_precise_as_the_rate():
    keras.config.set_floatx("float64")
    try:
        assert ScaledSchedule(0.1).multiplier.dtype == "float64"
    finally:
        keras.config.set_floatx("float32")
    assert ScaledSchedule(0.1).multiplier.dtype == "float32"
