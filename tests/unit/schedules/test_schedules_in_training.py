"""Every schedule in a compiled `fit`: each update's rate, in the middle of an epoch, after a save and a load."""

import keras
import numpy as np
import pytest
from full_rows import few
from keras import ops

import keras_opt
from keras_opt import schedules

UPDATES = 11  # an epoch; with steps_per_execution=8 the last execution is a ragged one
EVERY_SCHEDULE = {
    "CosineDecay": lambda: schedules.CosineDecay(0.1, 15),
    "CosineDecay with its warm-up": lambda: schedules.CosineDecay(0.01, 15, warmup_target=0.1, warmup_steps=5),
    "CosineDecayRestarts": lambda: schedules.CosineDecayRestarts(0.1, 7),
    "ExponentialDecay": lambda: schedules.ExponentialDecay(0.1, 5, 0.5),
    "InverseTimeDecay": lambda: schedules.InverseTimeDecay(0.1, 5, 0.5),
    "PiecewiseConstantDecay": lambda: schedules.PiecewiseConstantDecay([4, 13], [0.1, 0.05, 0.01]),
    "PolynomialDecay": lambda: schedules.PolynomialDecay(0.1, 15),
    "CyclicalLearningRate": lambda: schedules.CyclicalLearningRate(0.01, 0.1, 4, "triangular2"),
    "InverseSqrtDecay": lambda: schedules.InverseSqrtDecay(0.1, 5),
    "JoinedSchedule": lambda: schedules.JoinedSchedule([0.1, schedules.StepDecay(0.2, 3, 0.5)], [9]),
    "OneCycle": lambda: schedules.OneCycle(0.1, 15),
    "ScaledSchedule": lambda: schedules.ScaledSchedule(schedules.OneCycle(0.1, 15), multiplier=0.5),
    "StepDecay": lambda: schedules.StepDecay(0.1, 4, 0.5),
    "WarmUp": lambda: schedules.WarmUp(schedules.CosineDecay(0.1, 15), 5),
    "three deep": lambda: schedules.ScaledSchedule(
        schedules.WarmUp(schedules.JoinedSchedule([0.1, schedules.InverseSqrtDecay(0.1, 2)], [3]), 4)
    ),
}


@keras.saving.register_keras_serializable("tests")
def mean_output(_, outputs):
    """A loss whose gradient is 1: each update moves the weight by the rate."""
    return ops.mean(outputs)


def model_with(schedule, **settings):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.compile(keras.optimizers.SGD(schedule), mean_output, **settings)
    return model


def fit(model, updates=UPDATES):
    """An epoch; how far the weight fell."""
    before = model.get_weights()[0].item()
    ones = np.ones((updates, 1))
    model.fit(ones, ones, batch_size=1, verbose=0)
    return before - model.get_weights()[0].item()


def test_every_public_schedule_is_trained_with():
    names = {name for name, value in vars(schedules).items() if isinstance(value, type)}
    assert names <= set(EVERY_SCHEDULE)


# The contract sweep trains with each public schedule, and with each of these exactly.
IN_DETAIL = ("CosineDecay with its warm-up", "CyclicalLearningRate", "OneCycle", "StepDecay", "three deep")


@pytest.mark.parametrize("make", few(EVERY_SCHEDULE, *IN_DETAIL))
def test_each_update_has_its_rate_and_a_loaded_model_goes_on_where_it_was(make, tmp_path):
    rates = np.array([float(make()(step)) for step in range(2 * UPDATES + 1)])
    assert len(set(rates)) > 2
    model = model_with(make(), steps_per_execution=8, jit_compile=True)
    np.testing.assert_allclose(fit(model), rates[:UPDATES].sum(), rtol=1e-5)
    model.save(tmp_path / "model.keras")
    loaded = keras_opt.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(float(loaded.optimizer.learning_rate), rates[UPDATES], rtol=1e-5)
    np.testing.assert_allclose(fit(loaded), rates[UPDATES:-1].sum(), rtol=1e-5)
    np.testing.assert_allclose(float(loaded.optimizer.learning_rate), rates[-1], rtol=1e-5)


def test_step_decay_drops_on_time_in_fit_where_kerass_own_is_one_update_late():
    keras_own = schedules.ExponentialDecay(1.0, 41, 0.5, staircase=True)
    assert np.isclose(fit(model_with(keras_own), updates=42), 42.0)
    assert np.isclose(fit(model_with(schedules.StepDecay(1.0, 41, 0.5)), updates=42), 41.5)


@pytest.mark.parametrize("make", EVERY_SCHEDULE.values(), ids=EVERY_SCHEDULE)
def test_ints_and_tensors_of_every_kind_give_the_same_rate(make):
    schedule = make()
    for step in (0, 7, 22):
        kinds = [np.int64(step), ops.cast(step, "int32"), ops.cast(step, "int64"), ops.cast(step, "float32")]
        variable = keras.Variable(step, dtype="int64", trainable=False)
        found = [float(schedule(kind)) for kind in (*kinds, variable)]
        np.testing.assert_allclose(found, float(schedule(step)), rtol=1e-6)


@pytest.mark.parametrize("make", EVERY_SCHEDULE.values(), ids=EVERY_SCHEDULE)
def test_far_beyond_the_end_the_rate_is_finite_and_not_negative(make):
    rate = float(make()(ops.cast(3_000_000_000, "int64")))
    assert 0 <= rate < np.inf


@pytest.mark.parametrize("make", EVERY_SCHEDULE.values(), ids=EVERY_SCHEDULE)
def test_the_config_holds_plain_values_and_makes_the_same_schedule(make):
    schedule = make()
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(schedule))
    assert type(again) is type(schedule)
    assert again.get_config() == schedule.get_config()
    assert [float(again(step)) for step in (0, 6, 14)] == [float(schedule(step)) for step in (0, 6, 14)]


def test_half_precision_still_counts_steps():
    keras.config.set_floatx("float16")
    try:
        late, later = (float(schedules.InverseSqrtDecay(0.1, 1000)(step)) for step in (100_000, 100_010))
    finally:
        keras.config.set_floatx("float32")
    assert later < late
