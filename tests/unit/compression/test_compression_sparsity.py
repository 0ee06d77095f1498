"""Sparsity by layer and in all."""

import keras
import numpy as np
import pytest

from keras_opt.compression import sparsity


def test_shares_by_layer_and_over_all_kernels():
    inputs = keras.Input((2, 2, 1))
    x = keras.layers.Flatten()(keras.layers.SeparableConv2D(2, 1, name="sep")(inputs))
    model = keras.Model(inputs, keras.layers.Dense(1, name="head")(x))
    depthwise, pointwise, bias, kernel, head_bias = model.get_weights()
    pointwise[:] = [[[[0.0, 1.0]]]]
    kernel[:] = np.arange(8).reshape(8, 1) % 4
    depthwise[:] = 1.0
    model.set_weights([depthwise, pointwise, bias, kernel, head_bias])
    # sep: one zero of 1 + 2 weights; head: two of eight; biases do not count.
    assert sparsity(model) == {"sep": 1 / 3, "head": 2 / 8, "total": 3 / 11}


def test_frozen_kernels_count():
    layers = [keras.Input((2,)), keras.layers.Dense(3, kernel_initializer="zeros", name="head")]
    model = keras.Sequential(layers, name="net")
    model.trainable = False
    assert sparsity(model) == {"net/head": 1.0, "total": 1.0}


def test_a_model_without_kernels_has_no_zeros():
    assert sparsity(keras.Sequential([keras.Input((2,)), keras.layers.BatchNormalization()])) == {"total": 0.0}


@pytest.mark.parametrize("model", [keras.Sequential([keras.layers.Dense(2)], name="bare"), [], None], ids=type)
def test_what_has_no_weights_yet_is_refused(model):
    with pytest.raises(ValueError, match=r"sparsity: argument `model` must be a built Keras model\. Received: model="):
        sparsity(model)
