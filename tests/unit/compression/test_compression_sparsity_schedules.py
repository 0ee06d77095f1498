"""Sparsity schedules against TF-MOT's formula."""

import keras
import numpy as np
import pytest

from keras_opt.compression import ConstantSparsity, PolynomialSparsity


def tfmot_polynomial_decay(step, initial, final, begin, end, power):
    """`tfmot.sparsity.keras.PolynomialDecay` without its update frequency."""
    share = min(1.0, max(0.0, (step - begin) / (end - begin)))
    return (initial - final) * (1 - share) ** power + final


@pytest.mark.parametrize("settings", [(0.0, 0.8, 0, 100, 3), (0.3, 0.9, 17, 61, 2), (0.5, 0.5, 3, 4, 1.5)])
def test_polynomial_sparsity_equals_tfmot(settings):
    schedule = PolynomialSparsity(*settings)
    begin = settings[2]
    for step in range(150):
        expected = tfmot_polynomial_decay(step, *settings) if step >= begin else 0.0
        assert schedule(step) == pytest.approx(expected, abs=1e-12)


def test_constant_sparsity_begins_at_its_step():
    assert [ConstantSparsity(0.5, begin_step=2)(step) for step in range(4)] == [0.0, 0.0, 0.5, 0.5]


@pytest.mark.parametrize("schedule", [ConstantSparsity(0.5, 3), PolynomialSparsity(0.1, np.float32(0.75), 0, 10, 2.0)])
def test_config_round_trip(schedule):
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(schedule))
    assert type(again) is type(schedule)
    assert again.get_config() == schedule.get_config()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ConstantSparsity(1.0), "`target_sparsity` must be a fraction"),
        (lambda: ConstantSparsity(0.5, -1), "`begin_step` must be an integer of at least 0"),
        (lambda: PolynomialSparsity(0.0, 80, 0, 10), "`final_sparsity` must be a fraction"),
        (lambda: PolynomialSparsity(0.5, 0.2, 0, 10), "`final_sparsity` must be at least initial_sparsity=0.5"),
        (lambda: PolynomialSparsity(0.0, 0.8, 10, 10), "`end_step` must be above begin_step=10"),
        (lambda: PolynomialSparsity(0.0, 0.8, 0, 10, 0), "`power` must be a finite number above 0"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
