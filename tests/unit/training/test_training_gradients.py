"""The arithmetic on gradients, against NumPy."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_opt.training.gradients import global_norm, norms, scaled, sum_duplicates, unit_norms

ROWS = 6


def slices(indices, width=2, dtype="float64"):
    values = np.random.default_rng(len(indices)).normal(size=(len(indices), width)).astype(dtype)
    return tf.IndexedSlices(tf.constant(values), tf.constant(indices, tf.int64), tf.constant([ROWS, width], tf.int64))


def dense(gradient):
    summed = np.zeros((ROWS, gradient.values.shape[1]))
    np.add.at(summed, gradient.indices.numpy(), gradient.values.numpy())
    return summed


@settings(max_examples=50, deadline=None)
@given(indices=st.lists(st.integers(0, ROWS - 1), max_size=12))
def test_duplicates_are_summed_into_the_first_row_of_their_id(indices):
    gradient = slices(indices)
    summed = sum_duplicates(gradient, (ROWS,))
    np.testing.assert_allclose(dense(summed), dense(gradient), rtol=1e-12, atol=1e-14)
    np.testing.assert_array_equal(summed.indices, gradient.indices)
    for place, index in enumerate(indices):
        if index in indices[:place]:
            assert not np.any(summed.values[place].numpy())
    # So squares of rows are those of the dense gradient, which they were not before.
    np.testing.assert_allclose(np.sum(summed.values.numpy() ** 2), np.sum(dense(gradient) ** 2), rtol=1e-12)


def test_an_empty_sparse_gradient_stays_empty():
    summed = sum_duplicates(slices([]), (ROWS,))
    assert summed.values.shape == (0, 2)
    assert norms([summed]).numpy().tolist() == [0]


def test_rows_of_several_axes_and_of_half_precision():
    values = tf.constant(np.arange(12).reshape(3, 2, 2), tf.float16)
    summed = sum_duplicates(tf.IndexedSlices(values, tf.constant([4, 1, 4]), tf.constant([ROWS, 2, 2])), (ROWS,))
    assert summed.values.dtype == tf.float16
    np.testing.assert_array_equal(summed.values[0], values[0] + values[2])
    np.testing.assert_array_equal(summed.values[1], values[1])


def test_a_dense_gradient_is_handed_back_as_it_is():
    gradient = tf.constant([1.0, 2.0])
    assert sum_duplicates(gradient, (2,)) is gradient


def test_it_compiles_under_xla_and_with_an_unknown_number_of_rows():
    gradient = slices([3, 0, 3, 3])

    def summed(values, indices):
        return sum_duplicates(tf.IndexedSlices(values, indices, gradient.dense_shape), (ROWS,)).values

    expected = summed(gradient.values, gradient.indices)
    compiled = tf.function(summed, jit_compile=True)(gradient.values, gradient.indices)
    np.testing.assert_allclose(compiled, expected, rtol=1e-12)
    open_ended = [tf.TensorSpec([None, 2], tf.float64), tf.TensorSpec([None], tf.int64)]
    np.testing.assert_allclose(
        tf.function(summed, input_signature=open_ended)(gradient.values, gradient.indices), expected, rtol=1e-12
    )


def test_scaling_keeps_the_kind_and_the_type():
    gradient = slices([1, 2], dtype="float32")
    halved = scaled(gradient, tf.constant(0.5, tf.float64))
    assert isinstance(halved, tf.IndexedSlices)
    assert halved.values.dtype == tf.float32
    np.testing.assert_allclose(halved.values, gradient.values / 2)
    assert scaled(gradient, 1) is gradient
    assert scaled(gradient, 1.0) is gradient


def test_scaling_by_a_python_number_is_exact_in_float64():
    assert float(scaled(tf.constant(1.0, tf.float64), 1 / 3)) == 1 / 3


def test_norms_of_dense_sparse_and_mixed_gradients():
    gradients = [tf.constant([3.0]), tf.constant([[4.0]], tf.float64), sum_duplicates(slices([2, 2]), (ROWS,))]
    expected = np.sqrt(9 + 16 + np.sum(dense(slices([2, 2])) ** 2))
    norm = global_norm(gradients)
    assert norm.dtype == tf.float64
    assert float(norm) == pytest.approx(expected, rel=1e-12)


def test_the_norm_of_half_precision_does_not_overflow():
    norm = global_norm([tf.constant([300.0, 400.0], tf.float16)])
    assert norm.dtype == tf.float32
    assert float(norm) == 500.0


MODES = {"eager": lambda f: f, "graph": tf.function, "jit": lambda f: tf.function(f, jit_compile=True)}
LEAST = {"float32": 1e-36, "float64": 1e-300, "bfloat16": 1e-36}
MOST = {"float32": 1e38, "float64": 1e307, "bfloat16": 1e38}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("extreme", [LEAST, MOST], ids=["least", "most"])
def test_norms_are_exact_where_squares_are_lost(mode, dtype, extreme):
    """Squares leave float32 above 1e19 and below 1e-22: |g| was infinite or 0 there."""
    scale = extreme[dtype]
    gradients = [tf.constant([0.75, -1.0], dtype) * scale, tf.constant([[0.5], [0.0]], dtype) * scale]
    exact = [float(gradients[0][1]) / -0.8, float(gradients[1][0, 0])]
    rtol = 1e-2 if dtype == "bfloat16" else 1e-6
    np.testing.assert_allclose(MODES[mode](norms)(gradients), exact, rtol=rtol)
    np.testing.assert_allclose(MODES[mode](global_norm)(gradients), scale * np.sqrt(29 / 16), rtol=rtol)
    np.testing.assert_allclose(unit_norms(gradients[0][None], (0, 1)), [[exact[0]]], rtol=rtol)


def test_a_lost_square_leaves_the_other_norms_to_the_bit():
    usual = [tf.constant([0.1, 0.7]), tf.constant([np.nan, 1.0]), tf.constant([np.inf, 1.0]), tf.constant([0.3])]
    ours = norms([*usual, tf.constant([1e25]), tf.constant([0.0]), tf.zeros((0, 2))]).numpy()
    assert np.isnan(ours[1])
    assert ours[2] == np.inf
    assert np.array_equal(ours[[0, 3]], [tf.norm(usual[0]), tf.norm(usual[3])])
    assert ours[4:].tolist() == [np.float32(1e25), 0.0, 0.0]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("other", [1.0, 0.0, 1e30])
def test_what_is_not_finite_makes_the_global_norm_so(bad, other):
    assert not np.isfinite(global_norm([tf.constant([bad, 1.0]), tf.constant([other])]))
    assert not np.isfinite(unit_norms(tf.constant([[bad, other]]), (1,)))


def test_norms_of_units_keep_their_axes_and_lose_none():
    values = tf.constant([[3e25, 3.0, 0.0], [4e25, 4.0, 1e-25]])
    np.testing.assert_allclose(unit_norms(values, (0,)), [[5e25, 5.0, 1e-25]], rtol=1e-6)
