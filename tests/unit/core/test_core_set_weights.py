"""Weights put into copies of models."""

import keras
import numpy as np

from keras_opt.core.set_weights import set_weights


def adapted(offset):
    scale = keras.layers.Normalization()
    scale.adapt(np.arange(12.0).reshape(6, 2) + offset)
    inner = keras.Sequential([keras.Input((2,)), scale])
    return keras.Sequential([keras.Input((2,)), inner, keras.layers.Dense(2)])


def test_a_normalization_computes_with_the_statistics_it_is_given():
    model, other, x = adapted(0), adapted(50), np.ones((1, 2))
    other.set_weights(model.get_weights())
    assert not np.allclose(other(x), model(x))  # Keras's fault
    set_weights(other, model.get_weights())
    np.testing.assert_array_equal(other(x), model(x))


def test_a_discretization_keeps_its_bins():
    bins = keras.layers.Discretization(num_bins=4)
    bins.adapt(np.arange(20.0))
    model = keras.Sequential([keras.Input((1,)), bins, keras.layers.CategoryEncoding(4), keras.layers.Dense(2)])
    for each in (model, keras.models.clone_model(model)):
        set_weights(each, model.get_weights())
        layer = next(layer for layer in each.layers if isinstance(layer, keras.layers.Discretization))
        assert len(layer.bin_boundaries) == 3
