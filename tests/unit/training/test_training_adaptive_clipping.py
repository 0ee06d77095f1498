"""Adaptive clipping: what a unit is, and that none is above its limit."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_opt.training.adaptive_clipping import EPSILON, clip_adaptively, clip_units, unit_axes

UNITS = {
    "Dense": (keras.layers.Dense(3), (4,), {"kernel": (0,), "bias": (0,)}),
    "Conv1D": (keras.layers.Conv1D(3, 2), (8, 4), {"kernel": (0, 1), "bias": (0,)}),
    "Conv2D": (keras.layers.Conv2D(3, 2), (8, 8, 4), {"kernel": (0, 1, 2), "bias": (0,)}),
    "DepthwiseConv1D": (keras.layers.DepthwiseConv1D(2), (8, 4), {"kernel": (0,), "bias": (0,)}),
    "DepthwiseConv2D": (keras.layers.DepthwiseConv2D(2), (8, 8, 4), {"kernel": (0, 1), "bias": (0,)}),
    "SeparableConv2D": (
        keras.layers.SeparableConv2D(3, 2),
        (8, 8, 4),
        {"depthwise_kernel": (0, 1), "pointwise_kernel": (0, 1, 2), "bias": (0,)},
    ),
    "Conv2DTranspose": (keras.layers.Conv2DTranspose(3, 2), (8, 8, 4), {"kernel": (0, 1, 3), "bias": (0,)}),
    "EinsumDense": (
        keras.layers.EinsumDense("abx,xhy->abhy", (5, 2, 3), bias_axes="hy"),
        (5, 4),
        {"kernel": (0,), "bias": (0, 1)},
    ),
    "Embedding": (keras.layers.Embedding(9, 3), (5,), {"embeddings": (1,)}),
    "GRU": (keras.layers.GRU(3), (8, 4), {"kernel": (0,), "recurrent_kernel": (0,), "bias": (0, 1)}),
    "LayerNormalization": (keras.layers.LayerNormalization(), (4,), {"gamma": (0,), "beta": (0,)}),
}


@pytest.mark.parametrize(("layer", "shape", "expected"), UNITS.values(), ids=UNITS)
def test_a_unit_is_one_output_of_its_layer(layer, shape, expected):
    inputs = keras.Input(shape, dtype="int32" if isinstance(layer, keras.layers.Embedding) else "float32")
    model = keras.Model(inputs, layer(inputs))
    axes = unit_axes(model)
    assert {weight.name: axes[id(weight)] for weight in model.trainable_weights} == expected


def test_layers_inside_layers_are_found():
    """Attention: a unit of a query kernel is one index of one head; of the output kernel, one feature."""
    inputs = keras.Input((5, 4))
    model = keras.Model(inputs, keras.layers.MultiHeadAttention(2, 3, name="attention")(inputs, inputs))
    axes = unit_axes(model)
    found = {weight.path.split("/", 1)[1]: axes[id(weight)] for weight in model.weights if weight.name == "kernel"}
    assert found == {"query/kernel": (0,), "key/kernel": (0,), "value/kernel": (0,), "attention_output/kernel": (0, 1)}


def test_a_layer_that_is_never_called_has_no_units():
    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.head = keras.layers.Dense(1)
            self.unused = [keras.layers.Embedding(5, 2), keras.layers.DepthwiseConv2D(3)]

        def call(self, inputs):
            return self.head(inputs)

    model = Model()
    model(np.ones((2, 3)))
    assert set(unit_axes(model)) == {id(weight) for weight in model.weights}


def test_each_unit_is_brought_to_its_limit_and_no_further():
    rng = np.random.default_rng(0)
    weights = keras.Variable(rng.normal(size=(3, 3, 4, 5)), dtype="float64")
    gradient = rng.normal(size=(3, 3, 4, 5)) * np.linspace(0, 1, 5)
    clipped, any_unit = clip_units(tf.constant(gradient), weights, 0.5, (0, 1, 2))
    for unit in range(5):
        norm, limit = np.linalg.norm(gradient[..., unit]), 0.5 * np.linalg.norm(weights.numpy()[..., unit])
        found = np.linalg.norm(clipped.numpy()[..., unit])
        assert found == pytest.approx(min(norm, limit), rel=1e-12)
    assert any_unit


def test_a_unit_whose_weights_are_zero_may_still_move():
    clipped, _ = clip_units(tf.constant([3.0, 4.0]), keras.Variable([0.0, 0.0]), 0.5, (0,))
    np.testing.assert_allclose(np.linalg.norm(clipped), 0.5 * EPSILON, rtol=1e-6)


def test_sparse_rows_equal_dense_ones():
    weights = keras.Variable(np.random.default_rng(0).normal(size=(5, 3)), dtype="float64")
    rows = tf.constant(np.random.default_rng(1).normal(size=(2, 3)))
    sparse = tf.IndexedSlices(rows, tf.constant([4, 1]), tf.constant([5, 3]))
    ours, _ = clip_units(sparse, weights, 0.1, (1,))
    assert isinstance(ours, tf.IndexedSlices)
    dense, _ = clip_units(tf.convert_to_tensor(sparse), weights, 0.1, (1,))
    np.testing.assert_allclose(tf.convert_to_tensor(ours), dense, rtol=1e-14)


def test_a_sparse_gradient_of_a_weight_that_is_no_embedding_is_clipped_as_a_dense_one():
    weights = keras.Variable(np.ones((5, 3)), dtype="float64")
    sparse = tf.IndexedSlices(tf.ones((2, 3), tf.float64), tf.constant([4, 1]), tf.constant([5, 3]))
    ours, _ = clip_units(sparse, weights, 0.1, (0,))
    np.testing.assert_allclose(np.linalg.norm(ours, axis=0), 0.1 * np.sqrt(5), rtol=1e-14)


def test_a_unit_whose_square_is_lost_is_clipped_and_one_that_is_not_finite_passes():
    weights = keras.Variable(np.ones((1, 4)), dtype="float32")
    gradient = tf.constant([[1e25, np.inf, np.nan, 5.0]])
    ours, any_unit = clip_units(gradient, weights, 0.1, (0,))
    np.testing.assert_allclose(ours, [[0.1, np.inf, np.nan, 0.1]], rtol=1e-6)
    assert any_unit


def test_variables_that_are_left_alone_stay_and_a_nan_clips_only_nothing():
    first, second = keras.Variable([1.0]), keras.Variable([1.0])
    axes = {id(first): (0,), id(second): (0,)}
    gradients = [tf.constant([9.0]), tf.constant([np.nan])]
    clipped, any_clipped = clip_adaptively(gradients, [first, second], 0.1, axes, frozenset([id(first)]))
    assert clipped[0] is gradients[0]
    assert np.isnan(clipped[1])
    assert not any_clipped
