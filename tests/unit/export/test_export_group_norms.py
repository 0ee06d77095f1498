"""Group norms in int8 operations are the same function."""

import keras
import numpy as np
import pytest

from keras_opt.export.group_norms import in_int8_operations

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(8,), (10, 8), (5, 6, 8)])
@pytest.mark.parametrize("settings", [{"groups": 2}, {"groups": -1}, {"groups": 4, "scale": False, "center": False}])
def test_the_outputs_stay(shape, settings):
    model = keras.Sequential([keras.Input(shape), keras.layers.GroupNormalization(**settings, epsilon=0.01)])
    model.set_weights([RNG.normal(size=weight.shape) for weight in model.get_weights()])
    copy = in_int8_operations(model)
    x = RNG.normal(3, 2, size=(4, *shape)).astype("float32")
    assert type(copy.layers[0]) is not keras.layers.GroupNormalization
    np.testing.assert_allclose(copy(x), model(x), atol=1e-5)


def test_an_adapted_normalization_before_it_keeps_its_statistics():
    scale = keras.layers.Normalization()
    scale.adapt(RNG.normal(3, 2, size=(100, 8)))
    model = keras.Sequential([keras.Input((8,)), scale, keras.layers.GroupNormalization(2)])
    x = RNG.normal(3, 2, size=(4, 8)).astype("float32")
    np.testing.assert_allclose(in_int8_operations(model)(x), model(x), atol=1e-5)


def test_a_model_without_group_norm_is_left_as_it_is():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2), keras.layers.BatchNormalization()])
    assert in_int8_operations(model) is model
