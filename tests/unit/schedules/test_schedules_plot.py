"""plot(): any schedule, as a function and as a method."""

import keras
import numpy as np
import pytest

from keras_opt import schedules

SHOWN = {  # the updates that each is drawn for by default
    "OneCycle": (lambda: schedules.OneCycle(0.1, 40), 40),
    "StepDecay": (lambda: schedules.StepDecay(0.1, 10, 0.5), 50),
    "InverseSqrtDecay": (lambda: schedules.InverseSqrtDecay(0.1, 10), 50),
    "CyclicalLearningRate": (lambda: schedules.CyclicalLearningRate(0.01, 0.1, 10), 50),
    "WarmUp": (lambda: schedules.WarmUp(schedules.CosineDecay(0.1, 40), 10), 50),
    "WarmUp without end": (lambda: schedules.WarmUp(schedules.StepDecay(0.1, 10, 0.5), 10), 60),
    "JoinedSchedule": (lambda: schedules.JoinedSchedule([0.1, schedules.OneCycle(0.1, 40)], [10]), 50),
    "ScaledSchedule": (lambda: schedules.ScaledSchedule(schedules.OneCycle(0.1, 40), 0.5), 40),
    "CosineDecay": (lambda: schedules.CosineDecay(0.0, 40, warmup_target=0.1, warmup_steps=10), 50),
    "CosineDecayRestarts": (lambda: schedules.CosineDecayRestarts(0.1, 10), 50),
    "ExponentialDecay": (lambda: schedules.ExponentialDecay(0.1, 10, 0.5), 50),
    "InverseTimeDecay": (lambda: schedules.InverseTimeDecay(0.1, 10, 0.5), 50),
    "PiecewiseConstantDecay": (lambda: schedules.PiecewiseConstantDecay([20, 40], [0.1, 0.05, 0.01]), 52),
    "PolynomialDecay": (lambda: schedules.PolynomialDecay(0.1, 40), 40),
    "PolynomialDecay again and again": (lambda: schedules.PolynomialDecay(0.1, 10, cycle=True), 50),
}


@pytest.mark.parametrize(("make", "steps"), SHOWN.values(), ids=SHOWN)
def test_the_line_is_the_rate_at_each_update(make, steps):
    schedule = make()
    (line,) = schedules.plot(schedule).lines
    assert line.get_xdata().tolist() == list(range(steps))
    np.testing.assert_allclose(line.get_ydata(), [float(schedule(step)) for step in range(steps)])
    assert line.get_label() == schedule.name


def test_every_schedule_of_ours_draws_itself():
    ours = [value for value in vars(schedules).values() if getattr(value, "__module__", "").startswith("keras_opt.")]
    assert len(ours) == 8  # seven schedules and `plot`
    assert all(value is schedules.plot or value.plot is schedules.plot for value in ours)
    (line,) = schedules.OneCycle(0.1, 40).plot(steps=7).lines
    assert len(line.get_xdata()) == 7


def test_two_share_their_axes_and_long_ones_are_sampled():
    ax = schedules.OneCycle(0.1, 100_000, name="first").plot()
    assert schedules.plot(schedules.CosineDecay(0.1, 10), ax=ax) is ax
    assert [line.get_label() for line in ax.lines] == ["first", "CosineDecay"]
    assert len(ax.lines[0].get_xdata()) == 500
    assert ax.lines[0].get_xdata()[-1] == 99_999


class Own(keras.optimizers.schedules.LearningRateSchedule):
    def __call__(self, step):
        return keras.ops.cast(0.1, "float32")


@pytest.mark.parametrize("schedule", [Own(), schedules.ScaledSchedule(Own()), schedules.WarmUp(Own(), 10)])
def test_a_class_of_ones_own_needs_its_steps(schedule):
    assert len(schedules.plot(schedule, 10).lines[0].get_xdata()) == 10
    with pytest.raises(ValueError, match="plot: argument `steps` must be given here"):
        schedules.plot(schedule)


def test_no_steps_is_an_error():
    with pytest.raises(ValueError, match="plot: argument `steps` must be an integer of at least 1"):
        schedules.OneCycle(0.1, 40).plot(0)
