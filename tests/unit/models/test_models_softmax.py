"""Which layers end in a softmax, and the range of logits that it needs."""

import keras
import numpy as np
import pytest

from keras_opt.models.softmax import is_softmax, logit_ends

RNG = np.random.default_rng(0)


def ends(logits):
    return tuple(map(float, logit_ends(np.array(logits, "float32"))))


def softmax(logits):
    odds = np.exp(logits - logits.max(-1, keepdims=True))
    return odds / odds.sum(-1, keepdims=True)


@pytest.mark.parametrize("seed", range(20))
def test_no_probability_changes_where_logits_are_cut_off(seed):
    rng = np.random.default_rng(seed)
    scales, shift = rng.choice([1, 5, 100], size=(200, 1)), rng.choice([-50, 0, 50])
    logits = rng.normal(size=(200, rng.integers(2, 6))) * scales + shift
    np.testing.assert_allclose(softmax(np.clip(logits, *ends(logits))), softmax(logits), atol=1e-6)


def test_few_huge_logits_do_not_widen_the_range():
    ordinary = RNG.uniform(-5, 5, size=(100, 4))
    low, high = ends([*ordinary, [400, -400, 0, 0]])
    assert low == pytest.approx(ordinary.min())
    assert high == pytest.approx(16, abs=5)


def test_ordinary_logits_have_their_own_range_and_it_holds_0():
    ordinary = RNG.uniform(-5, 5, size=(100, 4))
    assert ends(ordinary) == pytest.approx((ordinary.min(), ordinary.max()))
    assert ends([[3, 5]]) == (0, 5)
    assert ends([[-5, -3]]) == (-5, 0)


def test_where_all_examples_are_sure_one_margin_is_enough():
    assert ends([[400, -400], [-390, 420]]) == (0, 16)


def test_what_a_softmax_is():
    assert is_softmax(keras.layers.Softmax())
    assert is_softmax(keras.layers.Activation("softmax"))
    assert is_softmax(keras.layers.Dense(3, activation="softmax"))
    assert not is_softmax(keras.layers.Softmax(axis=1))
    assert not is_softmax(keras.layers.Dense(3))
    assert not is_softmax(None)
