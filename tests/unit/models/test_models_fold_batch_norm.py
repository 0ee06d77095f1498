"""A folded model gives the outputs of the original, or the norm is refused by name."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from builders import BUILDERS, norms, with_random_statistics
from full_rows import full

from keras_opt.core.errors import InputError
from keras_opt.layers import DropBlock, ScheduledDropout, StochasticDepth
from keras_opt.models import convnet, fold_batch_norm
from keras_opt.models.graph import calls
from keras_opt.schedules import PolynomialDecay

RNG = np.random.default_rng(0)


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


@pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS)
def test_every_builder_to_1e_5_of_the_largest_output(build):
    model = with_random_statistics(build(classifier_activation=None))
    folded = fold_batch_norm(model)
    assert norms(model)
    assert not norms(folded)
    assert largest_deviation(model, folded, model.input_shape[1:]) < 1e-5


@pytest.mark.parametrize("pooling", [None, "avg", "max"])
@pytest.mark.parametrize("name", ["mlp", "convnet", "convnet of windows"])
def test_a_norm_behind_the_activation_goes_into_the_next_layer(name, pooling):
    settings = {"norm_position": "after_activation", "classifier_activation": None, "dropout": [0.1, 0.2]}
    if name != "mlp":
        settings["pooling"] = pooling
    model = with_random_statistics(BUILDERS[name](**settings))
    folded = fold_batch_norm(model)
    assert not norms(folded)
    assert [layer.name for layer in folded.layers if layer.weights] == [
        layer.name for layer in model.layers if layer.weights and layer not in norms(model)
    ]
    assert largest_deviation(model, folded, model.input_shape[1:]) < 1e-5


def test_a_shift_that_does_not_reach_the_padding_is_refused():
    model = with_random_statistics(BUILDERS["mobilenet"](norm_position="after_activation"))
    with pytest.raises(
        InputError, match=r"`[a-z0-9_]+_conv` pads its input with zeros, which the shift of the norm does"
    ):
        fold_batch_norm(model)
    kept = fold_batch_norm(model, unproven="keep")
    assert 0 < len(norms(kept)) < len(norms(model)) / 2  # the 1x1 convolutions pad nothing
    assert largest_deviation(model, kept, model.input_shape[1:]) < 1e-5


@pytest.mark.parametrize(
    ("family", "side"),
    [("MobileNetV3Small", 32), full("ResNet50", 32), full("ResNet50", 224), full("MobileNetV2", 224)],
)
def test_large_graphs_keep_their_outputs_and_lose_every_norm(family, side):
    model = getattr(keras.applications, family)(weights=None, input_shape=(side, side, 3), include_top=False)
    folded = fold_batch_norm(with_random_statistics(model))
    assert not norms(folded)
    assert largest_deviation(model, folded, (side, side, 3)) < 1e-5


def nested():
    inner = keras.Sequential(
        [keras.Input((6, 6, 3)), keras.layers.Conv2D(4, 3), keras.layers.BatchNormalization()], name="backbone"
    )
    with_random_statistics(inner)
    inputs = keras.Input((6, 6, 3))
    x = keras.layers.GlobalAveragePooling2D()(inner(inputs))
    return keras.Model(inputs, keras.layers.Dense(2)(x))


def norm_after_norm():
    layers = [keras.layers.Dense(4), keras.layers.BatchNormalization(), keras.layers.BatchNormalization()]
    return keras.Sequential([keras.Input((5,)), *layers])


def norm_of_the_input():
    layers = [keras.layers.BatchNormalization(), keras.layers.Conv2D(4, 3), keras.layers.BatchNormalization()]
    return keras.Sequential([keras.Input((6, 6, 3)), *layers, keras.layers.ReLU()])


def norm_of_a_sum():
    inputs = keras.Input((5,))
    x = keras.layers.Dense(5)(inputs) + inputs
    return keras.Model(inputs, keras.layers.Dense(2)(keras.layers.BatchNormalization()(x)))


def norm_behind_average_pooling():
    layers = [keras.layers.Conv2D(4, 3), keras.layers.Dropout(0.2), keras.layers.AveragePooling2D(2)]
    return keras.Sequential([keras.Input((8, 8, 3)), *layers, keras.layers.BatchNormalization(), keras.layers.ReLU()])


@pytest.mark.parametrize(
    "make", [nested, norm_after_norm, norm_of_the_input, norm_of_a_sum, norm_behind_average_pooling]
)
def test_other_graphs(make):
    model = with_random_statistics(make())
    folded = fold_batch_norm(model)
    layers = [*folded.layers, *(inner for layer in folded.layers for inner in getattr(layer, "layers", ()))]
    assert not any(isinstance(layer, keras.layers.BatchNormalization) for layer in layers)
    assert largest_deviation(model, folded, model.input_shape[1:]) < 1e-5


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


def with_operations_and_attention():
    inputs = keras.Input((5, 8))
    x = keras.layers.BatchNormalization()(keras.layers.Dense(8)(inputs))
    return keras.Model(inputs, keras.layers.MultiHeadAttention(2, 4)(x, x) * 2 + x)


def test_operations_between_layers_are_followed():
    model = with_random_statistics(with_operations_and_attention())
    folded = fold_batch_norm(model)
    assert not norms(folded)
    assert largest_deviation(model, folded, (5, 8)) < 1e-5


def called_in_training():
    inputs = keras.Input((4,))
    return keras.Model(
        inputs, keras.layers.BatchNormalization(name="norm1")(keras.layers.Dense(4)(inputs), training=True)
    )


def with_two_consumers_behind():
    inputs = keras.Input((4,))
    x = keras.layers.BatchNormalization(name="norm1")(keras.layers.ReLU(name="relu")(inputs))
    return keras.Model(inputs, keras.layers.Add()([keras.layers.Dense(2)(x), keras.layers.Dense(2)(x)]))


def before_a_dropout_that_stays_on():
    inputs = keras.Input((4,))
    x = keras.layers.BatchNormalization(name="norm1")(keras.layers.ReLU(name="relu")(inputs))
    return keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Dropout(0.5, name="noise")(x, training=True)))


def before_a_padding():
    layers = [keras.layers.ReLU(name="relu"), keras.layers.BatchNormalization(name="norm1", beta_initializer="ones")]
    return keras.Sequential([keras.Input((8, 8, 3)), *layers, keras.layers.Conv2D(4, 3, padding="same", name="conv")])


def inside_of_a_wrapper():
    norm = keras.layers.BatchNormalization(name="norm1")
    return keras.Sequential([keras.Input((3, 4)), keras.layers.TimeDistributed(norm, name="each")])


def channels_first():
    return keras.Sequential(
        [keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3), keras.layers.BatchNormalization(axis=1, name="norm1")]
    )


class Standardised(keras.layers.Conv2D):
    """A subclass whose kernel is not what it multiplies with."""

    def call(self, inputs):
        return super().call(inputs) / keras.ops.std(self.kernel)


class Shifted(keras.layers.BatchNormalization):
    """A subclass that does more."""

    def call(self, inputs, **arguments):
        return super().call(inputs, **arguments) + 1


def a_subclass():
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), Shifted(name="norm1")])


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
        (with_two_consumers, "what feeds it is an input or output of the model, feeds another layer too, or is called"),
        (with_activation, "`dense` has an activation of its own"),
        (called_twice, "it is called 2 times"),
        (a_subclass, "it is a Shifted, a subclass, which may do something else"),
        (called_in_training, "it is called with training=True"),
        (
            with_two_consumers_behind,
            "what feeds it is `relu` (ReLU), no convolution or dense layer; and its outputs go to several layers, to",
        ),
        (
            before_a_dropout_that_stays_on,
            "what feeds it is `relu` (ReLU), no convolution or dense layer; and what follows it is `noise` (Dropout)",
        ),
        (
            before_a_padding,
            "what feeds it is `relu` (ReLU), no convolution or dense layer; and `conv` pads its input with zeros",
        ),
        (channels_first, "it works on axis 1, not on the last"),
        (behind_a_subclass, "what feeds it is `standardised` (Standardised), no convolution or dense layer"),
    ],
)
def test_what_cannot_be_proven_is_refused_or_kept(model, reason):
    model = model()
    with pytest.raises(InputError) as error:
        fold_batch_norm(model)
    assert str(error.value).startswith(f"fold_batch_norm: norm `norm1` cannot be folded: {reason}")
    assert norms(fold_batch_norm(model, unproven="keep"))[0].name == "norm1"


def test_a_nested_model_that_is_called_in_training_is_left_as_it_is():
    norm = keras.layers.BatchNormalization(name="norm1")
    inner = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), norm], name="inner")
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(2)(inner(inputs, training=True)))
    reason = r"it is inside of `inner` \(Sequential, called with training=True\)"
    with pytest.raises(InputError, match=f"norm `norm1` cannot be folded: {reason}"):
        fold_batch_norm(model)
    assert fold_batch_norm(model, unproven="keep") is model


def test_an_adapted_normalization_keeps_its_statistics():
    """Its `set_weights` does not reach the constants that it computes with."""
    scale = keras.layers.Normalization()
    scale.adapt(RNG.normal(3, 2, size=(100, 4)))
    layers = [scale, keras.layers.Dense(3), keras.layers.BatchNormalization()]
    model = with_random_statistics(keras.Sequential([keras.Input((4,)), *layers]))
    assert largest_deviation(model, fold_batch_norm(model), (4,)) < 1e-5


def test_a_norm_passes_every_dropout():
    layers = [keras.layers.Conv2D(4, 3), DropBlock(0.1, 2), StochasticDepth(0.1)]
    layers += [ScheduledDropout(PolynomialDecay(0.3, 10)), keras.layers.BatchNormalization()]
    model = with_random_statistics(keras.Sequential([keras.Input((8, 8, 3)), *layers]))
    folded = fold_batch_norm(model)
    assert not norms(folded)
    assert largest_deviation(model, folded, (8, 8, 3)) < 1e-5


def test_a_norm_inside_of_a_wrapper_is_named():
    with pytest.raises(InputError, match=r"norm `norm1` cannot be folded: it is inside of `each` \(TimeDistributed\)"):
        fold_batch_norm(inside_of_a_wrapper())


def test_what_has_no_norm_comes_back_as_it_is():
    layers = [keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]), keras.layers.Dense(2)]
    model = keras.Sequential([keras.Input((4,)), *layers])
    assert fold_batch_norm(model) is model


class OfItsOwn(keras.Model):
    """A functional model whose config is not that of its graph."""

    def __init__(self, units=4):
        inputs = keras.Input((4,))
        super().__init__(inputs, keras.layers.BatchNormalization(name="norm1")(keras.layers.Dense(units)(inputs)))

    def get_config(self):
        return {"units": 4}


def test_a_nested_model_whose_graph_cannot_be_read_is_refused():
    model = keras.Sequential([keras.Input((4,)), OfItsOwn(), keras.layers.Dense(2)])
    with pytest.raises(InputError, match=r"norm `norm1` cannot be folded: it is inside of `\w+` \(OfItsOwn\)"):
        fold_batch_norm(model)
    with pytest.raises(InputError, match="must be a built model with a graph of layers"):
        fold_batch_norm(OfItsOwn())


def test_words_that_a_layer_has_learnt_are_still_known():
    words = keras.layers.TextVectorization(output_mode="multi_hot")
    words.adapt(["a b c", "a d"])
    layers = [words, keras.layers.Dense(4), keras.layers.BatchNormalization(), keras.layers.Dense(2)]
    model = keras.Sequential([keras.Input((), dtype="string"), *layers])
    text = tf.constant(["d a", "b b c"])
    folded = fold_batch_norm(model)
    assert norms(folded) == []
    np.testing.assert_allclose(folded(text), model(text), rtol=1e-5)


def test_unknown_choice():
    with pytest.raises(InputError, match="argument `unproven` must be one of 'raise', 'keep'"):
        fold_batch_norm(convnet((4,), (8, 8, 1), 2), unproven="ignore")


def test_calls_name_what_feeds_each_layer():
    model = with_two_consumers()
    graph = calls(model)
    assert graph["norm1"] == [("shared",)]
    assert graph["add" if "add" in graph else model.layers[-1].name] == [("shared", "norm1")]
