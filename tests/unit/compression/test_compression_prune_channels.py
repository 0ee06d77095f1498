"""Which channels go, what is kept of the rest, and what is refused by name."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from full_rows import full
from keras import layers

from keras_opt.compression import prune_channels
from keras_opt.core.errors import InputError, NoEffectWarning
from keras_opt.models import convnet, macs, mlp, resnet


def two_dense_layers():
    """Four hidden units; by L1 norm in the order 2, 0, 1, 3, by L2 norm in the order 2, 1, 0, 3."""
    model = keras.Sequential([keras.Input((3,)), layers.Dense(4, name="hidden"), layers.Dense(2, name="head")])
    kernel = np.array([[4.0, 0, 1, 5], [0, 3, 0, 5], [0, 3, 0, 5]])
    model.get_layer("hidden").set_weights([kernel, np.arange(4.0)])
    model.get_layer("head").set_weights([np.arange(8.0).reshape(4, 2), np.zeros(2)])
    return model


@pytest.mark.parametrize(("criterion", "kept"), [("l1", [1, 3]), ("l2", [0, 3])])
def test_the_filters_with_the_smallest_norms_go(criterion, kept):
    model = two_dense_layers()
    kernel, bias, head = (weight.numpy() for weight in model.weights[:3])
    if criterion == "l2":
        kernel[1:, 1] = 2  # L1 norms 4, 4, 1, 15; L2 norms 4, 2.8, 1, 8.7
        model.get_layer("hidden").kernel.assign(kernel)
    pruned = prune_channels(model, 0.5, criterion)
    np.testing.assert_array_equal(pruned.weights[0], kernel[:, kept])
    np.testing.assert_array_equal(pruned.weights[1], bias[kept])
    np.testing.assert_array_equal(pruned.weights[2], head[kept])


def test_gamma_says_which_channels_go():
    model = convnet((5,), (8, 8, 1), 2)
    model.get_layer("norm1").gamma.assign([0.3, -0.9, 0.1, 0.0, 0.5])
    kernel = model.get_layer("conv1").kernel.numpy()
    pruned = prune_channels(model, 0.6, "bn_gamma")
    np.testing.assert_array_equal(pruned.get_layer("conv1").kernel, kernel[..., [0, 1, 4]])
    np.testing.assert_allclose(pruned.get_layer("norm1").gamma, [0.3, -0.9, 0.5])


def residual_sum():
    inputs = keras.Input((2,))
    one, other = (layers.Dense(3, use_bias=False, name=name)(inputs) for name in ("one", "other"))
    outputs = layers.Dense(1, name="head")(layers.Add(name="sum")([one, other]))
    return keras.Model(inputs, outputs)


def test_scores_of_tied_channels_are_summed():
    model = residual_sum()
    model.get_layer("one").kernel.assign([[1, 0, 9], [1, 2, 9]])  # 2, 2, 18
    model.get_layer("other").kernel.assign([[8, 3, 0], [8, 3, 1]])  # 16, 6, 1: in all 18, 8, 19
    pruned = prune_channels(model, 0.67)
    np.testing.assert_array_equal(pruned.get_layer("one").kernel, [[1, 9], [1, 9]])
    np.testing.assert_array_equal(pruned.get_layer("other").kernel, [[8, 0], [8, 1]])


@pytest.mark.parametrize("criterion", ["l1", "bn_gamma"])
def test_all_that_lies_on_a_channel_adds_to_its_score(criterion):
    parts = [layers.Conv1D(3, 1, use_bias=False, name="wide"), layers.BatchNormalization(name="first")]
    parts += [layers.DepthwiseConv1D(1, name="depth"), layers.BatchNormalization(name="second"), layers.Conv1D(1, 1)]
    model = keras.Sequential([keras.Input((4, 1)), *parts])
    model.get_layer("wide").kernel.assign([[[5, 2, 3]]])
    model.get_layer("depth").kernel.assign([[[0.1], [0.2], [-4]]])  # in all 5.1, 2.2, 7
    model.get_layer("first").gamma.assign([9, 4, 1])
    model.get_layer("second").gamma.assign([-1, 2, 6])  # in all 10, 6, 7
    pruned = prune_channels(model, 0.67, criterion)
    np.testing.assert_array_equal(pruned.get_layer("wide").kernel, [[[5, 3]]])


@pytest.mark.parametrize(("keep", "left"), [(0.01, 1), (0.25, 2), (0.3, 2), (0.32, 3), (0.99, 8), (1, 8)])
def test_as_many_stay_as_were_asked_but_never_none(keep, left):
    model = mlp([8, 4], (5,), 3)
    assert prune_channels(model, {"dense1": keep, "dense2": 0.5}).get_layer("dense1").units == left


def test_the_network_is_the_one_that_the_builder_makes_narrower():
    pruned = prune_channels(resnet(20, (16, 16, 3), 4, 8), 0.5)
    narrow = resnet(20, (16, 16, 3), 4, 4)
    assert [weight.shape for weight in pruned.weights] == [weight.shape for weight in narrow.weights]
    assert macs(pruned) == macs(narrow)


def test_the_model_itself_stays_and_the_copy_can_be_trained(tmp_path):
    model = convnet((8,), (8, 8, 1), 2, weight_decay=0.01)
    model.compile("adam", "sparse_categorical_crossentropy")
    before, config = model.get_weights(), model.get_config()
    pruned = prune_channels(model)
    assert model.get_config() == config
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not pruned.compiled
    assert [layer.name for layer in pruned.layers] == [layer.name for layer in model.layers]
    assert pruned.name == model.name
    assert pruned.get_layer("conv1").kernel_regularizer.l2 == pytest.approx(0.005)
    assert len(pruned.losses) == len(model.losses) == 2

    x, y = np.random.default_rng(0).normal(size=(32, 8, 8, 1)), np.arange(32) % 2
    pruned.compile("adam", "sparse_categorical_crossentropy")
    losses = pruned.fit(x, y, epochs=3, verbose=0).history["loss"]
    assert losses[-1] < losses[0]

    pruned.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(x), pruned(x))
    assert all(type(layer).__module__.startswith("keras.") for layer in loaded.layers)


def test_flags_policies_and_names_are_kept_in_nested_models_too():
    inner = keras.Sequential([keras.Input((6, 6, 3)), layers.Conv2D(8, 3, name="conv"), layers.ReLU()], name="inner")
    inner.trainable = False
    inputs = keras.Input((6, 6, 3))  # Keras names the layer, and its tensor otherwise
    x = layers.Conv2D(4, 1, name="narrow", dtype="mixed_bfloat16")(inner(inputs))
    model = keras.Model(inputs, {"scores": layers.Dense(2, name="scores")(x)}, name="outer")
    model.get_layer("narrow").trainable = False
    pruned = prune_channels(model, {"conv": 0.5})
    assert pruned.get_layer("inner").get_layer("conv").filters == 4
    assert [layer.name for layer in pruned.layers] == [layer.name for layer in model.layers]
    assert [weight.path for weight in pruned.trainable_weights] == [weight.path for weight in model.trainable_weights]
    assert not pruned.get_layer("inner").trainable
    assert pruned.get_layer("narrow").dtype_policy.name == "mixed_bfloat16"
    assert pruned.output.keys() == {"scores"}


def test_a_layer_stands_for_its_group_and_the_last_pattern_counts():
    model = resnet(20, (16, 16, 3), 4, 8)
    pruned = prune_channels(
        model, {"stage1*_1_conv": 0.5, "stage1_block2*": 0.25, "stem_conv": 0.75, "*2_2_conv": 0.75}
    )
    widths = {layer.name: layer.filters for layer in pruned.layers if isinstance(layer, layers.Conv2D)}
    assert widths["stem_conv"] == widths["stage1_block3_2_conv"] == 6
    assert widths["stage1_block1_1_conv"] == 4
    assert widths["stage1_block2_1_conv"] == 2
    assert widths["stage2_block1_1_conv"] == 16


def test_group_norms_lose_whole_groups():
    model = convnet((48,), (8, 8, 1), 2, norm="group")
    kernel = model.get_layer("conv1").kernel.numpy()
    kernel[..., 16:32] *= 0.1
    model.get_layer("conv1").kernel.assign(kernel)
    pruned = prune_channels(model, 0.67)
    assert pruned.get_layer("norm1").groups == 2
    np.testing.assert_array_equal(pruned.get_layer("conv1").kernel, np.delete(kernel, np.s_[16:32], -1))


def test_what_the_outputs_show_stays():
    inputs = keras.Input((6,), name="numbers")
    x = layers.Dense(8, activation="relu", name="hidden")(inputs)
    image = layers.Reshape((2, 3, 1))(layers.Dense(6, name="pixels")(x))
    scores = layers.Softmax()(layers.Dense(4, name="scores")(x))
    turned = layers.Permute((2, 1))(layers.Reshape((2, 4))(layers.Dense(8, name="turned")(x)))
    pruned = prune_channels(keras.Model(inputs, [image, scores, turned]))
    assert [pruned.get_layer(name).units for name in ("hidden", "pixels", "scores", "turned")] == [4, 6, 4, 8]


@pytest.mark.parametrize("last", [layers.Flatten(), layers.Reshape((4, -1))], ids=["Flatten", "Reshape"])
def test_sizes_that_are_not_fixed_are_left_alone(last):
    model = keras.Sequential([keras.Input((None, 8, 3)), layers.Conv2D(8, 3), last])
    with pytest.warns(NoEffectWarning):
        assert prune_channels(model).count_params() == model.count_params()


def test_nothing_to_remove_is_said():
    with pytest.warns(NoEffectWarning, match="keep=1 removes no channel. .*: `conv1`: 4; `conv2`: 4"):
        prune_channels(convnet((4, 4), (14, 14, 1), 2), 1)
    with pytest.warns(NoEffectWarning, match=r"keep=0.5 removes no channel. .*: none"):
        prune_channels(keras.Sequential([keras.Input((4,)), layers.Dense(3)]))


class Odd(layers.Dense):
    """A subclass, which may do anything."""


def through(*parts, shape=(6, 6, 3)):
    """A model that sends the channels of `conv` through layers, and what comes out into a dense layer."""

    def make():
        inputs = keras.Input(shape)
        x = layers.Conv2D(8, 3, name="conv")(inputs)
        for part in parts:
            x = part(x)
        return keras.Model(inputs, layers.Dense(2, name="head")(x))

    return make


def with_initial_state():
    inputs = keras.Input((6, 3))
    state = layers.Dense(4, name="state")(layers.Flatten()(inputs))
    return keras.Model(inputs, layers.Dense(1)(layers.GRU(4, name="gru")(inputs, initial_state=state)))


def self_attention():
    inputs = keras.Input((6, 3))
    x = layers.Conv1D(8, 1, name="conv")(inputs)
    return keras.Model(inputs, layers.Dense(1)(layers.MultiHeadAttention(2, 4, name="mha")(x, x)))


UNFOLLOWED = {
    "`each` (TimeDistributed) is of a kind": through(layers.TimeDistributed(layers.Dense(3), name="each")),
    "`any` (Lambda) is of a kind": through(layers.Lambda(lambda x: x, name="any", output_shape=(4, 4, 8))),
    "`odd` (Odd) is of a kind": through(Odd(4, name="odd")),
    "`norm` (LayerNormalization) makes each channel": through(layers.LayerNormalization(name="norm")),
    "`norm` (GroupNormalization) takes its statistics": through(layers.GroupNormalization(1, name="norm")),
    "`norm` (BatchNormalization) works on the axis 1": through(layers.BatchNormalization(axis=1, name="norm")),
    "`soft` (Activation) has the activation `softmax`": through(layers.Activation("softmax", name="soft")),
    "`own` (Dense) has the activation `glu`": through(layers.Dense(4, activation="glu", name="own")),
    "`turn` (Permute) moves the channels": through(layers.Permute((3, 1, 2), name="turn")),
    "`odd` (Reshape) reshapes 8 channels to (6, 12)": through(layers.Reshape((6, 12), name="odd"), shape=(5, 5, 3)),
    "`scale` (Rescaling) scales each channel": through(layers.Rescaling(np.ones(8), name="scale")),
    "`drop` (Dropout) has a noise_shape": through(layers.Dropout(0.5, (None, 1, 1, 8), name="drop")),
    "(Sum) is an operation": through(lambda x: keras.ops.sum(x, -1, keepdims=True)),
    "(Multiply) has a constant that is no single number": through(lambda x: x * np.ones(8, "float32")),
    "`sum` (Add) is called on a constant": through(lambda x: layers.Add(name="sum")([x, np.ones((1, 4, 4, 8))])),
    "`gru` (GRU) is called on 2 tensors": with_initial_state,
    "`mha` (MultiHeadAttention) is of a kind": self_attention,
}


@pytest.mark.parametrize("reason", UNFOLLOWED)
def test_what_cannot_be_followed_is_refused_by_name(reason):
    message = rf"prune_channels: the channels of `.* cannot be pruned: .*{re.escape(reason)}.*Leave them out"
    with pytest.raises(InputError, match=message):
        prune_channels(UNFOLLOWED[reason]())


def test_refused_channels_can_be_left_out():
    make = through(layers.ReLU(), layers.Conv2D(6, 1, name="last"), layers.LayerNormalization())
    with pytest.raises(InputError, match="the channels of `last`"):
        prune_channels(make())
    pruned = prune_channels(make(), {"conv": 0.5})
    assert [pruned.get_layer(name).filters for name in ("conv", "last")] == [4, 6]


def test_a_layer_that_is_refused_in_one_place_stays_as_it_is_in_all():
    inputs = keras.Input((8, 3))
    twin = layers.GRU(4, return_sequences=True, name="twin")
    one, other = (layers.Conv1D(6, 1, name=name)(inputs) for name in ("one", "other"))
    state = layers.Dense(4, name="state")(layers.GlobalAveragePooling1D()(inputs))
    x = layers.Concatenate()([twin(one), twin(other, initial_state=state)])
    model = keras.Model(inputs, layers.Dense(2, name="head")(x))
    with pytest.raises(InputError, match=r"the channels of `.*` cannot be pruned: `twin`"):
        prune_channels(model)
    with pytest.warns(NoEffectWarning):
        assert prune_channels(model, {"*": 1.0}).count_params() == model.count_params()


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        ({"one": 0.5, "other": 0.75}, "one fraction for the channels that `one`, `other` have in common.*`other` 0.75"),
        ({"onne": 0.5}, "keys fit layers of which channels can go. .*Did you mean 'one'"),
        ({"head": 0.5, "one": 0.5}, "keys fit layers of which channels can go. .*Choose from one, other"),
    ],
)
def test_a_dict_that_does_not_fit_is_refused(keep, message):
    with pytest.raises(InputError, match=message):
        prune_channels(residual_sum(), keep)


def test_a_dict_may_say_that_outputs_stay():
    pruned = prune_channels(residual_sum(), {"*": 0.34, "head": 1.0})
    assert [pruned.get_layer(name).units for name in ("one", "head")] == [1, 1]


def test_gammas_that_are_not_there_are_named():
    with pytest.raises(InputError, match="no BatchNorm has a gamma for the channels of `one`, `other`"):
        prune_channels(residual_sum(), criterion="bn_gamma")


def test_an_initializer_of_one_size_is_in_no_way():
    words = keras.initializers.Constant(np.arange(12.0).reshape(3, 4))
    embedding = layers.Embedding(3, 4, embeddings_initializer=words, name="words")
    model = keras.Sequential([keras.Input((2,)), embedding, layers.Flatten(), layers.Dense(2)])
    pruned = prune_channels(model)
    np.testing.assert_array_equal(pruned.get_layer("words").get_weights()[0], [[2, 3], [6, 7], [10, 11]])


@pytest.mark.parametrize("mode", ["int", full("tf_idf")])
def test_words_that_a_layer_has_learnt_are_still_known(mode):
    words = layers.TextVectorization(output_mode=mode)
    words.adapt(["a b c", "a d"])
    parts = [layers.Embedding(6, 3), layers.GlobalMaxPooling1D()] if mode == "int" else []
    hidden = layers.Dense(4, name="hidden")
    model = keras.Sequential([keras.Input((), dtype="string"), words, *parts, hidden, layers.Dense(2)])
    hidden.kernel.assign(hidden.kernel * [1, 0, 1, 0])
    text = tf.constant(["d a", "b b c"])
    np.testing.assert_allclose(prune_channels(model, {"hidden": 0.5})(text), model(text), rtol=1e-5)


@pytest.mark.parametrize("model", [keras.Sequential([layers.Dense(2)]), layers.Dense(2), "model"])
def test_a_model_without_a_graph_is_refused(model):
    with pytest.raises(InputError, match="argument `model` must be a built model with a graph of layers"):
        prune_channels(model)
