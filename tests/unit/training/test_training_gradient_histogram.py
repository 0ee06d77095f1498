"""The bins, and the counting driven by hand; `tests/oracle` compares whole fits with NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_opt.training.gradient_histogram import EDGES, MAGNITUDES, NOT_FINITE, GradientHistogram, bin_of, buckets


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_value_lies_between_the_edges_of_its_bin(dtype):
    rng = np.random.default_rng(0)
    values = rng.normal(size=2000) * 10.0 ** rng.uniform(-13, 4, size=2000)
    places = bin_of(tf.constant(values, dtype)).numpy()
    assert (EDGES[places] * (1 - np.sign(EDGES[places]) * 1e-4) <= values).all()
    assert (values <= EDGES[places + 1] * (1 + np.sign(EDGES[places + 1]) * 1e-4)).all()


def test_zero_tiny_huge_and_not_finite():
    values = tf.constant([0.0, -0.0, 1e-20, -1e-20, 1e9, -1e9, np.nan, np.inf, -np.inf])
    last = 2 * MAGNITUDES
    assert bin_of(values).numpy().tolist() == [MAGNITUDES] * 4 + [last, 0] + [NOT_FINITE] * 3
    assert len(EDGES) == last + 2


def test_bfloat16_and_a_scalar_are_counted_too():
    assert bin_of(tf.constant(1.0, tf.bfloat16)).numpy() == MAGNITUDES + 48 * 4 + 1


def test_buckets_reach_from_the_first_filled_bin_to_the_last():
    counts = np.zeros(NOT_FINITE + 1, int)
    counts[[MAGNITUDES - 1, MAGNITUDES + 1, NOT_FINITE]] = 3, 4, 5
    rows = buckets(counts)
    assert rows[:, 2].tolist() == [3, 0, 4]
    assert (rows[1:, 0] == rows[:-1, 1]).all()
    assert rows[1, 1] == -rows[1, 0] == 2.0**-48
    assert buckets(np.zeros(NOT_FINITE + 1, int)).shape == (0, 3)


def test_each_read_gives_what_is_new_and_zeros_are_those_of_the_dense_gradient():
    variable = keras.Variable(np.zeros((9, 2), "float32"), name="embeddings")
    histogram = GradientHistogram(every=2)
    histogram.build([variable])
    # Two rows of one id, as the hub hands them over: 16 elements of the dense gradient are 0.
    slices = tf.IndexedSlices(tf.constant([[3.0, -4.5], [0.0, 0.0]]), tf.constant([3, 3]), (9, 2))
    for _ in range(3):
        histogram.on_gradients([slices], [variable])
    [(layer, rows)] = histogram.read().items()
    assert layer == variable.path
    assert rows[:, 2].sum() == 2 * 18
    np.testing.assert_allclose(rows[0], [-(2**2.25), -4, 2])
    assert rows[(rows[:, 0] < 0) & (rows[:, 1] > 0), 2].tolist() == [2 * 16]
    [rows] = histogram.read().values()
    assert rows.shape == (0, 3)


def test_other_variables_in_the_middle_lose_no_count():
    first, second = (keras.Variable(np.zeros(3, "float32"), name=name) for name in ("first", "second"))
    histogram = GradientHistogram(every=1)
    histogram.build([first])
    histogram.on_gradients([tf.ones(3)], [first])
    histogram.build([first, second])
    histogram.on_gradients([tf.ones(3), tf.ones(3)], [first, second])
    assert {layer: rows[:, 2].tolist() for layer, rows in histogram.read().items()} == {"first": [6], "second": [3]}


def test_a_resumed_histogram_gives_what_was_not_read_yet_and_counts_on():
    variable = keras.Variable(np.zeros(3, "float32"), name="first")
    histogram, resumed = GradientHistogram(every=2), GradientHistogram(every=2)
    histogram.build([variable])
    histogram.on_gradients([tf.ones(3)], [variable])
    state = histogram.state_dict()
    for _ in range(2):
        resumed.load_state_dict(state)
    resumed.build([variable])
    for each in (histogram, resumed):
        for _ in range(3):
            each.on_gradients([tf.ones(3)], [variable])
        assert {layer: rows[:, 2].tolist() for layer, rows in each.read().items()} == {"first": [6]}
