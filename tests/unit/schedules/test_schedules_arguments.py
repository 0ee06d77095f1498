"""Bad arguments, and what each schedule does at its edges."""

import functools
import json

import keras
import numpy as np
import pytest

from keras_opt.schedules import (
    CosineDecay,
    CyclicalLearningRate,
    InverseSqrtDecay,
    JoinedSchedule,
    OneCycle,
    PolynomialDecay,
    ScaledSchedule,
    StepDecay,
    WarmUp,
)

GOOD = {
    StepDecay: {"initial_learning_rate": 0.1, "decay_steps": 10, "decay_rate": 0.5},
    InverseSqrtDecay: {"initial_learning_rate": 0.1, "decay_steps": 10},
    WarmUp: {"schedule": 0.1, "warmup_steps": 10},
    JoinedSchedule: {"schedules": [0.1, 0.2], "boundaries": [10]},
    ScaledSchedule: {"schedule": 0.1},
    CyclicalLearningRate: {"initial_learning_rate": 0.1, "maximal_learning_rate": 0.2, "step_size": 10},
}
A_SCHEDULE = "a keras.optimizers.schedules.LearningRateSchedule or a number above 0"
BAD = [
    (StepDecay, {"initial_learning_rate": 0}, "`initial_learning_rate` must be a finite number above 0"),
    (StepDecay, {"decay_steps": -1}, "`decay_steps` must be an integer of at least 1"),
    (StepDecay, {"decay_rate": 10}, "`decay_rate` must be at most 1"),
    (StepDecay, {"decay_rate": 0}, "`decay_rate` must be a finite number above 0"),
    (InverseSqrtDecay, {"initial_learning_rate": -0.1}, "`initial_learning_rate` must be a finite number above 0"),
    (InverseSqrtDecay, {"decay_steps": 0}, "`decay_steps` must be an integer of at least 1"),
    (WarmUp, {"schedule": "cosine"}, f"`schedule` must be {A_SCHEDULE}"),
    (WarmUp, {"schedule": OneCycle}, f"`schedule` must be {A_SCHEDULE}"),
    (WarmUp, {"schedule": 0.0}, f"`schedule` must be {A_SCHEDULE}"),
    (WarmUp, {"warmup_steps": -1}, "`warmup_steps` must be an integer of at least 0"),
    (WarmUp, {"warmup_steps": 1.5}, "`warmup_steps` must be an integer of at least 0"),
    (WarmUp, {"initial_fraction": 1.0}, "`initial_fraction` must be a fraction in"),
    (WarmUp, {"schedule": CosineDecay(0.1, 9)}, "`warmup_steps` must be at most 9, the updates in `schedule`"),
    (WarmUp, {"schedule": OneCycle(0.1, 9)}, "`warmup_steps` must be at most 9, the updates in `schedule`"),
    (WarmUp, {"schedule": PolynomialDecay(0.1, 9)}, "`warmup_steps` must be at most 9, the updates in `schedule`"),
    (WarmUp, {"schedule": ScaledSchedule(OneCycle(0.1, 9))}, "`warmup_steps` must be at most 9"),
    (WarmUp, {"schedule": WarmUp(0.1, 5)}, "`schedule` must be one that starts above 0"),
    (JoinedSchedule, {"schedules": [0.1], "boundaries": []}, "`schedules` must be two schedules or more"),
    (JoinedSchedule, {"schedules": [0.1, "x"]}, f"`schedules` must be {A_SCHEDULE}"),
    (JoinedSchedule, {"schedules": 0.1}, "`schedules` must be a list"),
    (JoinedSchedule, {"boundaries": 10}, "`boundaries` must be a list"),
    (JoinedSchedule, {"boundaries": [5, 10]}, "`boundaries` must be 1 for 2 schedules"),
    (JoinedSchedule, {"boundaries": [0]}, "`boundaries` must be an integer of at least 1"),
    (JoinedSchedule, {"schedules": [0.1] * 3, "boundaries": [9, 9]}, "`boundaries` must be rising"),
    (ScaledSchedule, {"schedule": None}, f"`schedule` must be {A_SCHEDULE}"),
    (ScaledSchedule, {"multiplier": -1}, "`multiplier` must be a finite number of at least 0"),
    (CyclicalLearningRate, {"initial_learning_rate": -1}, "`initial_learning_rate` must be a finite number of at"),
    (CyclicalLearningRate, {"maximal_learning_rate": 0.05}, "`maximal_learning_rate` must be at least initial_learn"),
    (CyclicalLearningRate, {"step_size": 0}, "`step_size` must be a whole number of at least 1"),
    (CyclicalLearningRate, {"step_size": 2.5}, "`step_size` must be a whole number of at least 1"),
    (CyclicalLearningRate, {"scale_fn": "triangle"}, "`scale_fn` must be one of 'triangular', .* Did you mean 'triang"),
    (CyclicalLearningRate, {"scale_fn": 1.0}, "`scale_fn` must be one of 'triangular'"),
    (CyclicalLearningRate, {"scale_mode": "epochs"}, "`scale_mode` must be one of 'cycle', 'iterations'"),
    (CyclicalLearningRate, {"gamma": 0.9}, "`gamma` must be in .0, 1., and 1 unless scale_fn is 'exp_range'"),
    (CyclicalLearningRate, {"scale_fn": "exp_range", "gamma": 1.1}, "`gamma` must be in .0, 1."),
    (CyclicalLearningRate, {"scale_fn": "exp_range", "gamma": 0}, "`gamma` must be a finite number above 0"),
]


@pytest.mark.parametrize(("make", "change", "message"), BAD)
def test_bad_arguments(make, change, message):
    with pytest.raises(ValueError, match=f"{make.__name__}: argument {message}"):
        make(**{**GOOD[make], **change})


@pytest.mark.parametrize("make", GOOD)
def test_numpy_numbers_become_plain_ones(make):
    def numpy(value):
        if isinstance(value, list):
            return np.array(value)
        return np.float64(value) if isinstance(value, float) else np.int32(value)

    schedule = make(**{name: numpy(value) for name, value in GOOD[make].items()})
    assert json.loads(json.dumps(schedule.get_config())) == make(**GOOD[make]).get_config()
    assert float(schedule(3)) == float(make(**GOOD[make])(3))


def test_step_decay_drops_at_each_multiple():
    found = [round(float(StepDecay(0.1, 3, 0.1)(step)), 7) for step in range(8)]
    assert found == [0.1, 0.1, 0.1, 0.01, 0.01, 0.01, 0.001, 0.001]
    assert isinstance(StepDecay(0.1, 3, 0.1), keras.optimizers.schedules.ExponentialDecay)


def test_warm_up_rises_in_a_line_and_then_follows_from_step_0():
    schedule, inner = WarmUp(CosineDecay(0.1, 10), 4), CosineDecay(0.1, 10)
    found = [float(schedule(step)) for step in range(20)]
    np.testing.assert_allclose(found[:4], [0, 0.025, 0.05, 0.075], rtol=1e-6)
    np.testing.assert_allclose(found[4:], [float(inner(step)) for step in range(16)], rtol=1e-6)


def test_warm_up_of_0_steps_is_the_schedule_itself():
    assert float(WarmUp(0.1, 0)(0)) == float(WarmUp(0.1, 0, initial_fraction=0.5)(0)) == np.float32(0.1)


def test_warm_up_may_be_as_long_as_the_schedule_or_before_one_without_an_end():
    assert float(WarmUp(CosineDecay(0.1, 9), 9)(9)) == np.float32(0.1)
    assert float(WarmUp(StepDecay(0.1, 2, 0.5), 9)(9)) == np.float32(0.1)


def test_a_joined_schedule_begins_each_part_from_its_step_0():
    schedule = JoinedSchedule((0.5, StepDecay(0.1, 2, 0.5), 0.3), range(3, 9, 3))
    found = [float(schedule(step)) for step in range(8)]
    np.testing.assert_allclose(found, [0.5, 0.5, 0.5, 0.1, 0.1, 0.05, 0.3, 0.3], rtol=1e-6)


def test_one_cycle_says_what_three_phases_need():
    with pytest.raises(ValueError, match="`warmup_fraction` must be such that 10 steps hold a rise, a fall as long"):
        OneCycle(0.1, 10, 0.6, three_phase=True)
    with pytest.raises(ValueError, match="`warmup_fraction` must be such that 10 steps hold a rise, a fall as long"):
        OneCycle(0.1, 10, 0.1, three_phase=True)
    with pytest.raises(ValueError, match="`anneal_strategy` must be one of 'cos', 'linear'"):
        OneCycle(0.1, 10, anneal_strategy="cosine")


@keras.saving.register_keras_serializable("tests")
def third(x, *_):
    return 1 / 3.0 ** (x - 1)


def test_a_registered_scale_fn_is_saved_by_its_name():
    schedule = CyclicalLearningRate(0.0, 0.9, 2, third)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(schedule))
    assert again.scale_fn is third
    assert json.dumps(schedule.get_config())
    np.testing.assert_allclose([float(again(step)) for step in (2, 6, 10)], [0.9, 0.3, 0.1], rtol=1e-6)


@pytest.mark.parametrize("scale_fn", [lambda x: 1.0, functools.partial(third, 1)], ids=["lambda", "partial"])
def test_an_unregistered_scale_fn_trains_warns_and_is_not_saved(scale_fn):
    with pytest.warns(UserWarning, match="CyclicalLearningRate: Keras does not know the function `scale_fn`"):
        schedule = CyclicalLearningRate(1e-4, 1e-2, 2000, scale_fn, "cycle", "MyCyclicScheduler")
    np.testing.assert_allclose(float(schedule(2000)), 1e-2, rtol=1e-6)
    with pytest.raises(ValueError, match=r"`scale_fn` must be one of .* or a registered function to be saved"):
        schedule.get_config()


def test_exp_range_counts_updates_unless_told_otherwise():
    assert CyclicalLearningRate(0.1, 0.2, 5, "exp_range").scale_mode == "iterations"
    assert CyclicalLearningRate(0.1, 0.2, 5, "exp_range", "cycle").scale_mode == "cycle"
    assert CyclicalLearningRate(0.1, 0.2, 5.0, "triangular2").scale_mode == "cycle"
