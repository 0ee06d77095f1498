import numpy as np
import pytest
import tensorflow as tf

from keras_opt.layers.mixing_draws import beta, partners

KEY = tf.constant([3, 7])


def test_another_key_gives_other_draws():
    other = tf.constant([3, 8])
    assert not np.array_equal(beta(KEY, tf.ones(4)), beta(other, tf.ones(4)))
    assert not np.array_equal(partners(KEY, 16), partners(other, 16))


def test_partners_are_a_permutation():
    np.testing.assert_array_equal(np.sort(partners(KEY, 100)), np.arange(100))


@pytest.mark.parametrize("alpha", [1e-6, 1e-3, 1e3])
def test_extreme_alphas_give_finite_shares(alpha):
    shares = beta(KEY, tf.fill([10_000], alpha)).numpy()
    assert ((shares >= 0) & (shares <= 1)).all()
    np.testing.assert_allclose(shares.mean(), 0.5, atol=0.02)


def test_each_share_has_the_alpha_at_its_place():
    shares = beta(KEY, tf.repeat([1e-4, 1e4], 1000)).numpy()
    assert ((shares[:1000] < 0.01) | (shares[:1000] > 0.99)).mean() > 0.99
    assert np.abs(shares[1000:] - 0.5).max() < 0.05
