"""StochasticDepth: samples that lose the branch, and what it refuses."""

import keras
import numpy as np
import pytest

from keras_opt.layers import StochasticDepth


@pytest.mark.parametrize("shape", [(400,), (400, 5), (400, 3, 2), (400, 2, 2, 2)])
def test_a_sample_keeps_the_scaled_branch_or_loses_it(shape):
    branch = np.random.default_rng(0).normal(size=shape).astype("float32") + 3
    outputs = np.asarray(StochasticDepth(0.25, seed=3)(branch, training=True))
    lost = (outputs.reshape(400, -1) == 0).all(1)
    assert 60 < lost.sum() < 140
    np.testing.assert_allclose(outputs[~lost], branch[~lost] / 0.75, rtol=1e-6)


def test_a_branch_that_is_not_finite_is_dropped_all_the_same():
    outputs = np.asarray(StochasticDepth(0.5, seed=0)(np.full((64, 1), np.inf, "float32"), training=True))
    assert set(outputs.ravel()) == {0.0, np.inf}


@pytest.mark.parametrize("inputs", [[keras.Input((3,)), keras.Input((3,))], (np.ones((2, 3)), np.ones((2, 3)))])
def test_a_pair_is_refused(inputs):
    with pytest.raises(
        TypeError, match=r"StochasticDepth: argument `inputs` must be one tensor.*then add the shortcut"
    ):
        StochasticDepth(0.1)(inputs)
