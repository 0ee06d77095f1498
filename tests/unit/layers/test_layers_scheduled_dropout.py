"""ScheduledDropout: the rate of every step, wherever steps are counted, and what it refuses."""

import contextlib
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

import keras_opt
from keras_opt import callbacks, schedules
from keras_opt.layers import ScheduledDropout

UPDATES = 6  # an epoch; four updates an execution leave a ragged last one
FALLING = {"initial_learning_rate": 0.8, "decay_steps": 20, "end_learning_rate": 0.1}
RATES = np.linspace(0.8, 0.1, 21)


def falling():
    return schedules.PolynomialDecay(**FALLING)


def largest(_, outputs):
    """A metric: of ones that were dropped out, `1 / (1 - rate)`."""
    return ops.max(outputs)


def compiled(model, **settings):
    model.compile(keras.optimizers.SGD(0.0), "mse", metrics=[largest], **settings)
    return model


def model_with(*layers, **settings):
    keep = keras.layers.Dense(50, use_bias=False, kernel_initializer="identity")
    return compiled(keras.Sequential([keras.Input((50,)), *layers, keep]), **settings)


def fit(model, updates=UPDATES, used=(), **settings):
    """An epoch; the metric's mean over the updates."""
    ones = np.ones((4 * updates, 50))
    history = model.fit(ones, ones, batch_size=4, verbose=0, callbacks=list(used), **settings).history
    return history["largest"][-1]


def expected(first, last):
    return np.mean(1 / (1 - RATES[first:last]))


def test_each_call_in_training_has_the_rate_of_its_step():
    layer = ScheduledDropout(falling(), seed=0)
    for rate in RATES:
        np.testing.assert_allclose(layer.rate, rate, rtol=1e-5)
        np.testing.assert_array_equal(layer(np.ones((2, 3), "float32")), np.ones((2, 3)))
        outputs = np.asarray(layer(np.ones((50, 400), "float32"), training=True))
        np.testing.assert_allclose(outputs.max(), 1 / (1 - rate), rtol=1e-5)
        np.testing.assert_allclose((outputs == 0).mean(), rate, atol=0.02)
    assert int(layer.step) == 21


@pytest.mark.parametrize("settings", [{"jit_compile": True, "steps_per_execution": 4}, {"run_eagerly": True}])
def test_each_update_of_a_fit_has_its_rate_and_a_loaded_model_goes_on_where_it_was(settings, tmp_path):
    model = model_with(ScheduledDropout(falling()), **settings)
    ones = np.ones((8, 50))
    np.testing.assert_allclose(fit(model, validation_data=(ones, ones)), expected(0, UPDATES), rtol=1e-5)
    model.save(tmp_path / "model.keras")
    loaded = compiled(keras_opt.load_model(tmp_path / "model.keras", compile=False))
    assert isinstance(loaded.layers[0].rate_schedule, schedules.PolynomialDecay)
    np.testing.assert_allclose(fit(loaded), expected(UPDATES, 2 * UPDATES), rtol=1e-5)
    model.save_weights(tmp_path / "model.weights.h5")
    again = model_with(ScheduledDropout(falling()))
    again.load_weights(tmp_path / "model.weights.h5")
    assert int(again.layers[0].step) == UPDATES


def test_nothing_is_traced_again_when_the_rate_changes():
    class Counted(schedules.StepDecay):
        calls = 0

        def __call__(self, step):
            type(self).calls += 1
            return super().__call__(step)

    model = model_with(ScheduledDropout(Counted(0.5, 2, 0.5)))
    fit(model, 2)
    traced = Counted.calls
    assert np.isclose(fit(model, 8), np.mean([1 / (1 - 0.5 ** (1 + step // 2)) for step in range(2, 10)]))
    assert Counted.calls == traced


def test_micro_batches_count_and_the_two_passes_of_sam_are_one_step():
    model = model_with(ScheduledDropout(falling()))
    assert np.isclose(fit(model, used=[callbacks.GradientAccumulation(3)]), expected(0, UPDATES))
    assert np.isclose(fit(model, used=[callbacks.SharpnessAwareMinimization()]), expected(UPDATES, 2 * UPDATES))


def test_a_layer_that_is_used_twice_counts_twice_a_step():
    shared = ScheduledDropout(falling())
    fit(model_with(shared, shared))
    assert int(shared.step) == 2 * UPDATES


def test_each_replica_counts_every_step_once(two_replicas):
    with two_replicas.scope():
        model = model_with(ScheduledDropout(falling()))
    np.testing.assert_allclose(fit(model), expected(0, UPDATES), rtol=1e-5)
    assert int(model.layers[0].step) == UPDATES


def test_the_step_is_no_weight_and_best_weights_leave_it_as_it_is():
    model = model_with(ScheduledDropout(falling()))
    assert len(model.get_weights()) == 1
    stop = callbacks.EarlyStopping(callbacks.Plateau("loss", patience=1, min_delta=1e9), restore_best_weights=True)
    fit(model, used=[stop], epochs=4)
    assert int(model.layers[0].step) == UPDATES * (stop.stopped_epoch + 1) < 4 * UPDATES


def test_a_training_that_was_broken_off_is_resumed_at_its_step(tmp_path):
    def run(*used):
        model = model_with(ScheduledDropout(falling()))
        with contextlib.suppress(KeyError):
            fit(model, used=[callbacks.BackupAndRestore(tmp_path / "backup", verbose=0), *used], epochs=3)
        return model

    def crash(epoch, logs):
        if epoch == 1:
            raise KeyError

    run(keras.callbacks.LambdaCallback(on_epoch_end=crash))
    assert int(run().layers[0].step) == 3 * UPDATES


def test_values_are_dropped_together_along_the_axes_of_the_noise_shape():
    layer = ScheduledDropout(falling(), noise_shape=(None, 1, None), seed=0)
    dropped = np.asarray(layer(np.ones((8, 5, 6), "float32"), training=True)) == 0
    assert (dropped == dropped[:, :1]).all()
    assert 0.5 < dropped.mean() < 1
    again = ScheduledDropout.from_config(layer.get_config())
    assert again.noise_shape == (None, 1, None)
    assert again.get_config() == layer.get_config()


@pytest.mark.parametrize(
    ("schedule", "rate", "step"),
    [
        (schedules.CosineDecay(1.0, 100), 1, 0),
        (schedules.PolynomialDecay(0.0, 100, end_learning_rate=-0.5, power=2.0), "-0.009", 1),
        (schedules.PiecewiseConstantDecay([70], [0.1, 30.0]), 30, 128),
    ],
)
def test_a_rate_out_of_range_is_refused(schedule, rate, step):
    with pytest.raises(ValueError, match=re.escape(f"[0, 1), not {rate}") + rf".* at step {step}\."):
        ScheduledDropout(schedule)


def test_a_rate_out_of_range_between_the_steps_looked_at_gives_no_numbers():
    layer = ScheduledDropout(schedules.PiecewiseConstantDecay([2, 3], [0.5, 1.5, 0.5]))
    outputs = [layer(np.ones((4, 4), "float32"), training=True) for _ in range(5)]
    assert [bool(np.isnan(each).all()) for each in outputs] == [False, False, False, True, False]


def test_a_schedule_that_xla_rounds_to_just_below_zero_drops_nothing():
    layer = ScheduledDropout(schedules.PolynomialDecay(0.3, decay_steps=10, end_learning_rate=0.0))
    layer.seed_generator.state.assign([0, 10])
    ones = np.ones((2, 3), "float32")
    np.testing.assert_array_equal(tf.function(layer, jit_compile=True)(ones, training=True), ones)


@pytest.mark.parametrize("noise_shape", [(None, 1, None), (None, 2)])
def test_a_noise_shape_that_does_not_fit_the_inputs_is_refused(noise_shape):
    with pytest.raises(ValueError, match=r"`noise_shape` must be 1, None or the input's own size .* shape \(4, 5\)"):
        ScheduledDropout(falling(), noise_shape=noise_shape)(np.ones((4, 5), "float32"))
