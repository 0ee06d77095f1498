"""The clipping rules, by exact values."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_opt.training import clipping
from keras_opt.training.clipping import (
    NormHistory,
    clip_by_global_norm,
    clip_by_norm,
    clip_by_percentile,
    clip_by_value,
    shrinkage,
)

RULES = {"clip_by_value": clip_by_value, "clip_by_norm": clip_by_norm, "clip_by_global_norm": clip_by_global_norm}


def vectors(*rows):
    return [tf.constant(row, tf.float64) for row in rows]


def test_clip_by_value_cuts_each_element():
    gradients, clipped = clip_by_value(vectors([3.0, -0.5], [-4.0]), 1.0)
    assert [gradient.numpy().tolist() for gradient in gradients] == [[1.0, -0.5], [-1.0]]
    assert clipped


def test_clip_by_norm_scales_each_gradient_apart():
    gradients, clipped = clip_by_norm(vectors([3.0, 4.0], [0.6, 0.8]), 2.5)
    np.testing.assert_allclose(gradients[0], [1.5, 2.0], rtol=1e-15)
    assert gradients[1].numpy().tolist() == [0.6, 0.8]
    assert clipped


def test_clip_by_global_norm_scales_all_together():
    gradients, clipped = clip_by_global_norm(vectors([3.0], [4.0]), 2.5)
    np.testing.assert_allclose([float(gradient[0]) for gradient in gradients], [1.5, 2.0], rtol=1e-15)
    assert clipped


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_below_or_at_the_limit_nothing_changes_to_the_bit(rule):
    before = vectors([3.0, 0.1], [np.sqrt(25 - 9.01)])
    gradients, clipped = rule(before, 5.0000001)
    assert [gradient.numpy().tolist() for gradient in gradients] == [gradient.numpy().tolist() for gradient in before]
    assert not clipped


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_sparse_gradients_stay_sparse_and_types_stay(rule):
    sparse = tf.IndexedSlices(tf.constant([[3.0], [4.0]], tf.float16), tf.constant([0, 2]), tf.constant([3, 1]))
    (gradient,), clipped = rule([sparse], 1.0)
    assert isinstance(gradient, tf.IndexedSlices)
    assert gradient.values.dtype == tf.float16
    assert clipped


@pytest.mark.parametrize("rule", [clip_by_norm, clip_by_global_norm])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_norm_that_is_not_finite_clips_nothing(rule, bad):
    gradients, clipped = rule(vectors([bad, 7.0]), 1.0)
    np.testing.assert_array_equal(gradients[0], [bad, 7.0])
    assert not clipped


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_a_finite_gradient_whose_square_is_not_is_clipped(rule):
    """In float32 it passed unclipped, for its norm was taken for infinite."""
    gradients, clipped = rule([tf.constant([2e20, 0.0])], 3.0)
    assert gradients[0].numpy().tolist() == [3.0, 0.0]
    assert clipped


BAD = {"nan": np.nan, "inf": np.inf, "-inf": -np.inf}
WHAT_COMES_OUT = {  # of [bad, 7.0] and [9.0], clipped with limit 1
    "clip_by_value": {"nan": ([np.nan, 1], [1]), "inf": ([1, 1], [1]), "-inf": ([-1, 1], [1])},
    "clip_by_norm": {name: ([bad, 7], [1]) for name, bad in BAD.items()},
    "clip_by_global_norm": {name: ([bad, 7], [9]) for name, bad in BAD.items()},
}


@pytest.mark.parametrize("jit", [False, True], ids=["graph", "jit"])
@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("rule", RULES)
def test_what_is_not_finite_passes_the_norms_and_an_infinite_element_is_cut_by_value(rule, bad, jit):
    step = tf.function(lambda gradients: RULES[rule](gradients, 1.0), jit_compile=jit)
    (first, second), clipped = step([tf.constant([BAD[bad], 7.0]), tf.constant([9.0])])
    np.testing.assert_array_equal(first, WHAT_COMES_OUT[rule][bad][0])
    np.testing.assert_array_equal(second, WHAT_COMES_OUT[rule][bad][1])
    assert bool(clipped) == (rule != "clip_by_global_norm")


def test_zero_gradients_are_left_alone():
    assert float(shrinkage(tf.constant(0.0), 1.0)) == 1.0
    gradients, clipped = clip_by_global_norm(vectors([0.0]), 1.0)
    assert float(gradients[0][0]) == 0
    assert not clipped


def history_of(norms):
    history = NormHistory()
    history.build([keras.Variable(0.0, dtype="float64")])
    for norm in norms:
        history.add(tf.constant(norm, tf.float64))
    return history


@pytest.mark.parametrize("percentile", [1, 10, 33.3, 50, 90, 99.9])
@pytest.mark.parametrize("count", [1, 2, 7, 25, 26, 60])
def test_the_percentile_is_that_of_numpy_over_the_last_norms(percentile, count, monkeypatch):
    monkeypatch.setattr(clipping, "HISTORY", 25)
    norms = np.random.default_rng(count).exponential(size=count)
    found = float(history_of(norms).percentile(percentile))
    assert found == pytest.approx(np.percentile(norms[-25:], percentile), rel=1e-13)


def test_the_history_leaves_out_what_is_not_finite():
    assert float(history_of([1.0, np.nan, np.inf, 3.0]).percentile(50)) == 2.0


def test_an_empty_history_clips_nothing():
    gradients, clipped = clip_by_percentile(vectors([np.inf]), history_of([]), 50)
    assert np.isinf(gradients[0][0])
    assert not clipped


def test_a_history_that_is_built_twice_remembers():
    history = history_of([1.0, 3.0])
    history.build([keras.Variable(0.0)])
    assert float(history.percentile(50)) == 2.0


def test_clip_by_percentile_counts_the_present_norm():
    history = history_of([1.0])
    gradients, clipped = clip_by_percentile(vectors([3.0]), history, 50)
    assert float(gradients[0][0]) == pytest.approx(2.0)
    assert clipped
