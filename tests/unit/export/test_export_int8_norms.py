"""Norms in int8 operations are the same functions."""

import keras
import numpy as np
import pytest

from keras_opt.export import to_tflite, verify
from keras_opt.export.int8_norms import in_int8_operations

RNG = np.random.default_rng(0)
NORMS = {
    "group": lambda: keras.layers.GroupNormalization(2, epsilon=0.01),
    "instance": lambda: keras.layers.GroupNormalization(-1, epsilon=0.01),
    "group, plain": lambda: keras.layers.GroupNormalization(4, epsilon=0.01, scale=False, center=False),
    "layer": lambda: keras.layers.LayerNormalization(epsilon=0.01),
    "layer, plain": lambda: keras.layers.LayerNormalization(scale=False, center=False),
    "layer, first axis": lambda: keras.layers.LayerNormalization(axis=1),
    "rms": keras.layers.RMSNormalization,
    "unit": keras.layers.UnitNormalization,
}


@pytest.mark.parametrize("shape", [(8,), (10, 8), (5, 6, 8)])
@pytest.mark.parametrize("norm", NORMS)
def test_the_outputs_stay(norm, shape):
    check_same(keras.Sequential([keras.Input(shape), NORMS[norm]()]), shape)


def test_norms_of_several_axes():
    for norm in (keras.layers.LayerNormalization(axis=[1, 3]), keras.layers.RMSNormalization(axis=[2, 3])):
        check_same(keras.Sequential([keras.Input((5, 6, 8)), norm]), (5, 6, 8))


def check_same(model, shape):
    model.set_weights([RNG.normal(size=weight.shape) for weight in model.get_weights()])
    copy = in_int8_operations(model)
    x = RNG.normal(3, 2, size=(4, *shape)).astype("float32")
    x[0] = 0
    assert type(copy.layers[0]) is not type(model.layers[0])
    np.testing.assert_allclose(copy(x), model(x), atol=2e-5)


@pytest.mark.parametrize("quantize", ["int8", "int16x8"])
def test_a_transformer_block_becomes_an_integer_file(quantize, tmp_path):
    tokens = keras.Input((6, 8))
    x = keras.layers.LayerNormalization()(tokens)
    x = tokens + keras.layers.MultiHeadAttention(2, 4)(x, x)
    x = keras.layers.Dense(8, activation="gelu")(keras.layers.LayerNormalization()(x))
    model = keras.Model(tokens, keras.layers.Dense(3)(keras.layers.GlobalAveragePooling1D()(x)))
    data = RNG.normal(size=(200, 6, 8)).astype("float32")
    file = to_tflite(model, tmp_path / "model.tflite", quantize, data)
    assert verify(model, file.path, data, task="regression").relative_error < 0.1


def test_an_adapted_normalization_before_it_keeps_its_statistics():
    scale = keras.layers.Normalization()
    scale.adapt(RNG.normal(3, 2, size=(100, 8)))
    model = keras.Sequential([keras.Input((8,)), scale, keras.layers.GroupNormalization(2)])
    x = RNG.normal(3, 2, size=(4, 8)).astype("float32")
    np.testing.assert_allclose(in_int8_operations(model)(x), model(x), atol=1e-5)


def test_a_model_without_such_a_norm_is_left_as_it_is():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2), keras.layers.BatchNormalization()])
    assert in_int8_operations(model) is model
