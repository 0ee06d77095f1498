"""Rounding to 8 bits, by the formulas."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_opt.compression.qat.fake_quant import fake_quant, fake_quant_kernel, grid, step_of, straight_through

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 1.0), (-1.0, 1.0), (-3.0, 0.5), (-0.001, 9.0), (2.0, 7.0), (0.0, 0.0), (-7.0, -2.0)]
)
def test_a_grid_has_256_values_with_zero_among_them(low, high):
    ends = [float(end) for end in grid(keras.ops.convert_to_tensor(low), keras.ops.convert_to_tensor(high))]
    step = (ends[1] - ends[0]) / 255
    assert -ends[0] / step == pytest.approx(round(-ends[0] / step), abs=1e-4)
    assert ends[0] <= 0 <= ends[1]
    if low != high:
        assert np.abs(np.subtract(ends, (min(low, 0), max(high, 0)))).max() <= 1.01 * step


def test_the_step_is_what_the_converter_divides():
    low, high = RNG.uniform(-9, 0, 1000).astype("float32"), RNG.uniform(0, 9, 1000).astype("float32")
    expected = ((high.astype("float64") - low) / 255).astype("float32")
    np.testing.assert_array_equal(step_of(low, high), expected)


def test_pixels_scaled_to_minus_one_to_one_are_no_ties():
    # (q - 127.5) / 127.5 lies half-way between the values of the range [-1, 1] with 255 steps: each would be a toss-up.
    low, high = (float(end) for end in grid(tf.constant(-1.0), tf.constant(1.0)))
    positions = ((np.arange(256) - 127.5) / 127.5 - low) / (high - low) * 255
    assert np.abs(positions % 1 - 0.5).min() > 1e-3


def test_values_are_rounded_as_in_numpy():
    low, high = (float(end) for end in grid(tf.constant(-1.3), tf.constant(2.9)))
    step = (high - low) / 255
    x = RNG.normal(scale=2, size=1000).astype("float32")
    expected = np.clip(np.floor((x - low) / step + 0.5), 0, 255) * step + low
    np.testing.assert_allclose(fake_quant(x, low, high), expected, atol=1e-6)


@pytest.mark.parametrize("per_channel", [True, False])
def test_kernels_are_rounded_as_in_numpy(per_channel):
    kernel = RNG.normal(size=(3, 3, 4, 5)).astype("float32") * np.array([1, 0.1, 10, 1e-3, 1], "float32")
    step = np.abs(kernel).max((0, 1, 2) if per_channel else None) / 127
    rounded, got = fake_quant_kernel(kernel, per_channel)
    np.testing.assert_allclose(got, step, rtol=1e-6)
    np.testing.assert_allclose(rounded, np.round(kernel / step) * step, atol=1e-5)


def test_zeros_stay_zeros_and_a_channel_of_zeros_has_a_step():
    kernel = RNG.normal(size=(40, 3)).astype("float32")
    kernel[::2] = 0
    kernel[:, 1] = 0
    rounded, step = fake_quant_kernel(kernel, per_channel=True)
    assert np.all(rounded.numpy()[kernel == 0] == 0)
    assert np.all(step.numpy() > 0)
    rounded, step = fake_quant_kernel(np.zeros((4, 3), "float32"), per_channel=False)
    assert np.all(rounded.numpy() == 0)
    assert float(step) == pytest.approx(1 / 127)


def test_straight_through_has_the_rounded_value_to_the_bit_and_the_gradient_of_the_other():
    x = tf.constant(RNG.normal(size=50).astype("float32"))
    with tf.GradientTape() as tape:
        tape.watch(x)
        rounded = fake_quant(x, -0.5, 0.5)
        outputs = straight_through(rounded, 3 * x)
    np.testing.assert_array_equal(outputs, rounded)
    np.testing.assert_array_equal(tape.gradient(outputs, x), np.full(50, 3, "float32"))
