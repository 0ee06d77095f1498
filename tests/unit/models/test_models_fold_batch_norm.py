"""A folded model gives the outputs of the original, or the norm is refused by name."""

import keras
import numpy as np
import pytest

from keras_opt.core.errors import InputError
from keras_opt.models import convnet, fold_batch_norm
from keras_opt.models.graph import calls

RNG = np.random.default_rng(0)


def with_random_statistics(model):
    """Norms that are far from the identity: statistics and gamma from 0.5 to 2, means and beta around 0."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            values = {"gamma": RNG.uniform(0.5, 2, layer.moving_mean.shape)}
            values["moving_variance"] = RNG.uniform(0.5, 2, layer.moving_mean.shape)
            layer.set_weights([values.get(w.name, RNG.normal(size=w.shape)) for w in layer.weights])
    return model


def norms(model):
    return [layer.name for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]


def largest_deviation(model, folded, shape):
    x = RNG.normal(size=(4, *shape)).astype("float32")
    expected, found = (np.asarray(m(x, training=False)) for m in (model, folded))
    return np.abs(expected - found).max() / np.abs(expected).max()


def dense_and_convolutions():
    inputs = keras.Input((12, 3))
    x = keras.layers.Conv1D(4, 3, use_bias=False)(inputs)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization(scale=False)(x))
    x = keras.layers.Dense(5)(keras.layers.Flatten()(x))
    return keras.Model(inputs, keras.layers.BatchNormalization(center=False)(x))


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (lambda: convnet((4, 6), (14, 14, 1), 3, classifier_activation=None), (14, 14, 1)),
        (dense_and_convolutions, (12, 3)),
        (
            lambda: keras.Sequential(
                [keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3), keras.layers.BatchNormalization()]
            ),
            (8, 8, 3),
        ),
    ],
    ids=["convnet", "conv1d and dense", "Sequential"],
)
def test_the_outputs_stay_and_the_norms_go(model, shape):
    model = with_random_statistics(model())
    before = model.get_weights()
    folded = fold_batch_norm(model)
    assert norms(model)
    assert not norms(folded)
    assert largest_deviation(model, folded, shape) < 1e-5
    for kept, now in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(kept, now)


@pytest.mark.parametrize("family", [keras.applications.ResNet50, keras.applications.MobileNetV3Small])
def test_large_graphs_keep_their_outputs(family):
    model = with_random_statistics(family(weights=None, input_shape=(32, 32, 3), include_top=False))
    folded = fold_batch_norm(model, unproven="keep")
    assert len(norms(folded)) < len(norms(model)) / 2
    assert largest_deviation(model, folded, (32, 32, 3)) < 1e-5


def with_negative_gamma():
    model = convnet((4,), (8, 8, 1), 2)
    gamma = np.ones(4)
    gamma[2] = -0.1
    model.get_layer("norm1").gamma.assign(gamma)
    return model


def with_two_consumers():
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, name="shared")(inputs)
    return keras.Model(inputs, keras.layers.Add()([x, keras.layers.BatchNormalization(name="norm1")(x)]))


def with_activation():
    inputs = keras.Input((4,))
    x = keras.layers.Dense(4, activation="relu", name="dense")(inputs)
    return keras.Model(inputs, keras.layers.BatchNormalization(name="norm1")(x))


def called_twice():
    first, second = keras.Input((4,)), keras.Input((4,))
    dense, norm = keras.layers.Dense(4), keras.layers.BatchNormalization(name="norm1")
    return keras.Model([first, second], [norm(dense(first)), norm(dense(second))])


def behind_a_depthwise_convolution():
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.DepthwiseConv2D(3, name="depthwise")(inputs)
    return keras.Model(inputs, keras.layers.BatchNormalization(name="norm1")(x))


def with_operations_and_attention():
    inputs = keras.Input((5, 8))
    x = keras.layers.BatchNormalization()(keras.layers.Dense(8)(inputs))
    return keras.Model(inputs, keras.layers.MultiHeadAttention(2, 4)(x, x) * 2 + x)


def test_operations_between_layers_are_followed():
    model = with_random_statistics(with_operations_and_attention())
    folded = fold_batch_norm(model)
    assert not norms(folded)
    assert largest_deviation(model, folded, (5, 8)) < 1e-5


class Standardised(keras.layers.Conv2D):
    """A subclass whose kernel is not what it multiplies with."""

    def call(self, inputs):
        return super().call(inputs) / keras.ops.std(self.kernel)


def behind_a_subclass():
    inputs = keras.Input((8, 8, 3))
    return keras.Model(
        inputs, keras.layers.BatchNormalization(name="norm1")(Standardised(4, 3, name="standardised")(inputs))
    )


def test_what_has_no_graph_is_refused():
    with pytest.raises(InputError, match="argument `model` must be a built model with a graph of layers"):
        fold_batch_norm(keras.Sequential([keras.layers.Dense(2)]))


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (with_negative_gamma, "it has a negative gamma, with which the max-pooling `pool1` does not commute"),
        (with_two_consumers, "what feeds it also feeds another layer"),
        (with_activation, "`dense` has an activation of its own"),
        (called_twice, "it is called 2 times"),
        (behind_a_subclass, "what feeds it is `standardised` (Standardised), no convolution or dense layer"),
        (behind_a_depthwise_convolution, "what feeds it is `depthwise` (DepthwiseConv2D)"),
    ],
)
def test_what_cannot_be_proven_is_refused_or_kept(model, reason):
    model = model()
    with pytest.raises(InputError) as error:
        fold_batch_norm(model)
    assert str(error.value).startswith(f"fold_batch_norm: norm `norm1` cannot be folded: {reason}")
    assert norms(fold_batch_norm(model, unproven="keep")) == ["norm1"]


def test_unknown_choice():
    with pytest.raises(InputError, match="argument `unproven` must be one of 'raise', 'keep'"):
        fold_batch_norm(convnet((4,), (8, 8, 1), 2), unproven="ignore")


def test_calls_name_what_feeds_each_layer():
    model = with_two_consumers()
    graph = calls(model)
    assert graph["norm1"] == [("shared",)]
    assert graph["add" if "add" in graph else model.layers[-1].name] == [("shared", "norm1")]
