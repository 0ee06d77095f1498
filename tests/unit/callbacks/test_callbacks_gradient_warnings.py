"""The criteria on scripted norms: the exact update, once for each layer, whatever the blocks."""

import numpy as np
import pytest

from keras_opt.callbacks.gradient_warnings import (
    ALL_LAYERS,
    EXPLODE,
    NOT_FINITE,
    VANISH,
    Finding,
    GradientWatch,
    exploding,
    rolling_counts,
    vanishing,
)

LAYERS = ("first", "last")


def watched(norms, block=None, layers=LAYERS, every=1):
    """What a watch finds in these norms, given to it in blocks."""
    norms = np.asarray(norms, "float32")
    watch, found = GradientWatch(), []
    for begin in range(0, len(norms), block or len(norms)):
        part = norms[begin : begin + (block or len(norms))]
        steps = every * (begin + np.arange(len(part)))
        found += watch.look(steps, layers, part if layers else part[:, :0], np.linalg.norm(part, axis=1))
    return found


def healthy(updates=100):
    """Noise of a factor of ten about norms a thousandfold apart, that decay to a thousandth."""
    rng = np.random.default_rng(0)
    decay = np.logspace(0, -3, updates)[:, None]
    return decay * [[1e-3, 1.0]] * 10 ** rng.uniform(-0.5, 0.5, (updates, 2))


def test_healthy_norms_are_not_warned_of():
    assert watched(healthy(1000), block=77) == []


def test_a_minimum_reached_is_not_warned_of():
    assert watched(healthy() * np.logspace(0, -25, 100)[:, None]) == []


@pytest.mark.parametrize("block", [None, 1, 7])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_one_value_that_is_not_finite_is_told_at_once_and_once(value, block):
    norms = healthy()
    norms[[30, 31, 60], 0] = value
    norms[50, 1] = value
    assert sorted(watched(norms, block)) == [Finding(NOT_FINITE, "first", 30), Finding(NOT_FINITE, "last", 50)]


@pytest.mark.parametrize("block", [None, 1, 7])
@pytest.mark.parametrize("small", [0.0, 1e-6])
def test_vanishing_takes_fifteen_of_twenty_updates(small, block):
    norms = np.ones((100, 2))
    norms[10:24, 0] = small  # 14
    norms[40:60, 0] = small
    norms[44:48, 0] = 1  # single healthy updates between do not matter
    norms[75:, 0] = small
    assert watched(norms, block) == [Finding(VANISH, "first", 58)]


def test_vanishing_is_small_beside_the_largest_finite_norm():
    share = np.array([[1e-6, 1.0], [1e-4, 1.0], [1e-20, 1e-20], [1.0, np.nan], [1.0, np.inf], [np.nan, np.nan]])
    assert vanishing(share)[:, 0].tolist() == [True, False, False, False, False, False]


def test_no_gradient_at_all_vanishes_everywhere():
    assert watched(np.zeros((20, 2))) == [Finding(VANISH, "first", 14), Finding(VANISH, "last", 14)]


@pytest.mark.parametrize("block", [None, 1, 7])
def test_exploding_takes_five_updates_in_a_row_above_a_thousand_times_the_first_median(block):
    norms = np.ones((100, 2)) / np.sqrt(2)
    norms[30:34, 1] = 1001  # 4
    norms[40:50, 1] = 999
    norms[60:66, 1] = 1001
    assert watched(norms, block) == [Finding(EXPLODE, "last", 64)]
    assert exploding(np.array([[1001.0, 999.0, np.inf, np.nan]]), 1.0).tolist() == [[True, False, False, False]]


def test_exponential_growth_from_the_start_is_told():
    norms = 1.5 ** np.arange(60)[:, None] * np.ones((1, 2))
    assert [finding.condition for finding in watched(norms)] == [EXPLODE] * 2


def test_a_layer_that_starts_near_zero_may_grow():
    norms = np.ones((200, 2))
    norms[:, 0] = np.minimum(1.0, 1e-5 * 1.5 ** np.arange(200))
    assert watched(norms) == []


def test_a_start_without_gradients_sets_no_reference():
    norms = np.concatenate([np.zeros((10, 2)), np.ones((90, 2))])
    assert watched(norms) == []


@pytest.mark.parametrize("value", [np.nan, 1e9])
def test_without_layers_all_of_them_together_are_looked_at(value):
    norms = np.ones((50, 1))
    norms[40:] = value
    condition, step = (NOT_FINITE, 80) if np.isnan(value) else (EXPLODE, 88)
    assert watched(norms, layers=(), every=2) == [Finding(condition, ALL_LAYERS, step)]


def test_rolling_counts_begin_with_what_was_before():
    assert rolling_counts(np.array([True, False, False, True]), np.array([True, False])).tolist() == [2, 1, 1, 1]
    assert rolling_counts(np.array([True, False]), np.zeros(0, bool)).tolist() == [1, 0]
