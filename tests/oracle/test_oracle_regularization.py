"""The penalty against its formula in NumPy, and a step against SGD's own weight decay, in float64."""

import keras
import numpy as np
import pytest

from keras_opt.models import add_regularization

L1, L2 = 0.003, 0.02


@pytest.fixture
def model():
    dtype = keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    keras.utils.set_random_seed(3)
    layers = keras.layers
    inputs = keras.Input((6, 4), dtype="float64")
    x = layers.MultiHeadAttention(2, 3)(inputs, inputs)
    x = layers.BatchNormalization()(layers.GRU(5)(x))
    yield keras.Model(inputs, layers.Dense(2)(x))
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy(dtype)


def formula(variables):
    values = [np.array(variable) for variable in variables]
    return sum(L1 * np.abs(value).sum() + L2 * np.square(value).sum() for value in values)


def test_all_trainable_is_the_formula_over_every_trainable_weight(model):
    add_regularization(model, L1, L2, include="all_trainable")
    assert float(sum(model.losses)) == pytest.approx(formula(model.trainable_variables), rel=1e-14)
    assert len(model.losses) == len(model.trainable_variables) == 8 + 3 + 2 + 2


def test_kernels_are_the_formula_over_kernels_and_no_bias_of_rank_2(model):
    add_regularization(model, L1, L2)
    kernels = [each for each in model.trainable_variables if "kernel" in each.name]
    biases = [each for each in model.trainable_variables if each.name == "bias" and len(each.shape) == 2]
    assert (len(kernels), len(biases)) == (7, 4)  # of query, key and value, and of the GRU
    assert float(sum(model.losses)) == pytest.approx(formula(kernels), rel=1e-14)


def test_training_is_that_of_the_gradient_by_hand(model):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, 6, 4)), rng.normal(size=(8, 2))
    model.compile(keras.optimizers.SGD(0.1), "mse")
    start = model.get_weights()
    model.train_on_batch(x, y)
    plain = [np.array(each) for each in model.trainable_variables]
    model.set_weights(start)
    before = [np.array(each) for each in model.trainable_variables]
    add_regularization(model, L1, L2, include="all_trainable")
    logs = model.train_on_batch(x, y, return_dict=True)
    for without, weight, now in zip(plain, before, model.trainable_variables, strict=True):
        expected = without - 0.1 * (L1 * np.sign(weight) + 2 * L2 * weight)
        np.testing.assert_allclose(np.array(now), expected, rtol=1e-10, atol=1e-14)
    assert float(logs["regularization_loss"]) == pytest.approx(formula(model.trainable_variables), rel=1e-6)
