"""to_tf_keras against Keras 3 itself: the same outputs, or a refusal that names the layer."""

import warnings

import keras
import numpy as np
import pytest
from full_rows import few, full
from keras import layers, ops
from random_graphs import random_inputs, random_model

from keras_opt import layers as our_layers
from keras_opt.compression import copy_weights_back, to_tf_keras
from keras_opt.compression.bridge import tf_keras_layers
from keras_opt.compression.bridge.tf_keras_import import tf_keras
from keras_opt.core.errors import InputError


def drawn(model):
    """Weights that training could have left, so that no layer is the identity and no two weights are alike."""
    rng = np.random.default_rng(0)
    for variable in model.variables:
        if "float" in variable.dtype:
            is_scale = variable.name in ("gamma", "moving_variance")
            variable.assign(rng.uniform(0.5, 1.5, variable.shape) if is_scale else rng.normal(0, 0.3, variable.shape))
    return model


def difference(model, twin, inputs):
    """The largest between two outputs, relative to the largest number in the output."""
    pairs = zip(
        keras.tree.flatten(model(inputs, training=False)), keras.tree.flatten(twin(inputs, training=False)), strict=True
    )
    arrays = [(ops.convert_to_numpy(a).astype("float64"), b.numpy().astype("float64")) for a, b in pairs]
    return max(np.abs(a - b).max() / max(np.abs(a).max(), 1e-30) for a, b in arrays)


# --- models of every kind ------------------------------------------------------------------------------------------


def dense_activations():
    names = ["hard_silu", "hard_sigmoid", "leaky_relu", "relu6", "mish", "celu", "glu", "silu", "gelu", "log_softmax"]
    x = keras.Input((4,))
    regularized = layers.Dense(4, "tanh", kernel_regularizer="l2", kernel_constraint=keras.constraints.MaxNorm(2))(x)
    outputs = [layers.Activation(name)(x) for name in names]
    outputs += [layers.LeakyReLU(0.05)(x), layers.PReLU()(x), layers.ReLU(6.0, 0.1, 0.2)(x), layers.ELU(0.5)(x)]
    return keras.Model(x, [regularized, layers.Dense(3, "hard_sigmoid")(x), *outputs])


def operators():
    x = keras.Input((4, 6))
    a, b = ops.split(ops.transpose(x, (0, 2, 1)), 2, axis=1)
    y = ops.matmul(ops.transpose(a, (0, 2, 1)), b)
    y = ops.where(y > 0, y, ops.exp(y)) + ops.max(x, axis=2, keepdims=True)
    z = ops.einsum("bij,bij->bi", y, y) / (1 + ops.abs(y[:, 0])) ** 0.5
    outputs = [z, 2.0 - z, -x, x[:, -1, ::2], ops.stack([z, z], axis=1), ops.mean(x, axis=(1, 2)), ops.relu6(x) * x]
    return keras.Model(x, [*outputs, ops.concatenate([x, x], axis=-1), ops.hard_sigmoid(x), ops.cast(x > 0, "int32")])


def recurrent():
    x = keras.Input((None, 4))
    y, hidden, cell = layers.LSTM(3, return_sequences=True, return_state=True)(x)
    y = layers.GRU(3, reset_after=False, return_sequences=True)(y, initial_state=hidden)
    both = layers.Bidirectional(layers.GRU(2, recurrent_activation="hard_sigmoid"), merge_mode="sum")(y)
    cells = layers.RNN([layers.LSTMCell(3), layers.GRUCell(2)])(y)
    return keras.Model(x, [both, cell, cells, layers.TimeDistributed(layers.Dense(2))(y), layers.SimpleRNN(2)(y)])


def masked():
    tokens, rows = keras.Input((6,)), keras.Input((6, 3))
    y = layers.Bidirectional(layers.SimpleRNN(4))(layers.Embedding(11, 4, mask_zero=True)(tokens))
    return keras.Model([tokens, rows], [y, layers.SimpleRNN(3)(layers.Masking()(rows))])


def masked_gates():
    tokens, rows = keras.Input((6,)), keras.Input((6, 3))
    y = layers.Bidirectional(layers.LSTM(4))(layers.Embedding(11, 4, mask_zero=True)(tokens))
    return keras.Model([tokens, rows], [y, layers.GRU(3)(layers.Masking()(rows))])


def attention():
    x, y = keras.Input((6, 8)), keras.Input((5, 8))
    z = layers.LayerNormalization()(layers.MultiHeadAttention(2, 4, value_dim=3)(x, y) + x)
    z = layers.MultiHeadAttention(2, 4)(z, z, use_causal_mask=True)
    return keras.Model([x, y], [z, layers.Attention()([z, y]), layers.AdditiveAttention()([z, y])])


def images():
    x = keras.Input((8, 8, 4))
    y = layers.SeparableConv2D(3, 3)(layers.GroupNormalization(2)(layers.Rescaling(1 / 3, offset=1)(x)))
    y = layers.Conv2DTranspose(2, 3, strides=2, output_padding=1)(layers.DepthwiseConv2D(3, depth_multiplier=2)(y))
    y = layers.BatchNormalization()(layers.Resizing(8, 8)(layers.UpSampling2D(interpolation="bilinear")(y)))
    return keras.Model(x, [y, layers.Conv2D(4, 3, groups=2, dilation_rate=2)(x), layers.MaxPooling2D(3, 1, "same")(x)])


def signals():
    x = keras.Input((12, 4))
    y = layers.DepthwiseConv1D(3)(layers.Conv1D(4, 3, padding="causal", dilation_rate=2)(x))
    y = layers.ZeroPadding1D(2)(layers.Cropping1D(1)(layers.Conv1DTranspose(3, 3)(y)))
    y = layers.EinsumDense("abc,cd->abd", output_shape=(None, 5))(layers.UnitNormalization()(y))
    return keras.Model(x, [y, layers.Dot(axes=2)([y, y]), layers.Permute((2, 1))(y), layers.Softmax(axis=1)(y)])


def normalized():
    norm = layers.Normalization()
    norm.adapt(np.random.default_rng(0).normal(3, 2, (50, 8, 3)))
    x = keras.Input((8, 3))
    fixed = layers.Normalization(mean=[1.0, 2.0, 3.0], variance=[2.0, 3.0, 4.0])
    return keras.Model(x, [norm(x), fixed(x)])


def nested_and_shared():
    x = keras.Input((4,))
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(3), layers.Dropout(0.5)], name="inner")
    pair = keras.Model(x, [inner(x), layers.Dense(2)(x)], name="pair")
    a, b = keras.Input((4,), name="zeta"), keras.Input((4,), name="alpha")
    (a0, a1), (b0, b1) = pair(a), pair(b)
    return keras.Model({"zeta": a, "alpha": b}, {"late": a0 - b0, "early": a1 * b1, "middle": inner(a * 2.0)})


def passed_through():
    x = keras.Input((4,))
    return keras.Model(x, [x, layers.Dense(3)(x)])


def called_as_training():
    x = keras.Input((4,))
    return keras.Model(x, layers.BatchNormalization()(layers.Dropout(0.5)(x, training=True), training=True))


def float64():
    keras.config.set_dtype_policy("float64")
    try:
        x = keras.Input((4,), dtype="float64")
        return keras.Model(x, layers.Dense(3)(x) + 1)
    finally:
        keras.config.set_dtype_policy("float32")


MODELS = {
    make.__name__: make
    for make in (
        dense_activations, operators, recurrent, masked, masked_gates, attention, images, signals, nested_and_shared,
        passed_through, called_as_training, float64,
    )
}  # fmt: skip


@pytest.mark.parametrize("make", few(MODELS, *(name for name in MODELS if name != "masked_gates")))
def test_a_model_of_every_kind_has_the_same_outputs(make):
    model = drawn(make())
    twin = to_tf_keras(model)  # compares them itself
    assert len(twin.outputs) == len(model.outputs)
    tf_keras().models.clone_model(twin)  # as TF-MOT does first of all


def test_an_adapted_normalization_is_carried_over():
    model = normalized()
    assert difference(model, to_tf_keras(model), np.random.default_rng(1).normal(size=(5, 8, 3))) < 1e-6


def test_a_fixed_batch_is_compared_in_several_calls():
    x = keras.Input(batch_shape=(2, 4))
    assert to_tf_keras(keras.Model(x, layers.Dense(3)(x))).inputs[0].shape == (2, 4)


def test_half_precision_is_carried_over():
    model = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(4, 3, dtype="mixed_float16"), layers.Flatten()])
    assert to_tf_keras(model).layers[1].dtype_policy.name == "mixed_float16"


def test_inputs_and_outputs_keep_their_names():
    model = drawn(nested_and_shared())
    twin = to_tf_keras(model)
    inputs = {name: np.random.default_rng(0).normal(size=(3, 4)).astype("float32") for name in ("zeta", "alpha")}
    expected, received = model(inputs), twin(inputs)
    assert set(received) == {"late", "early", "middle"}
    for name, value in received.items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-6)


def test_what_is_frozen_stays_frozen():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="body"), layers.Dense(2, name="head")])
    model.get_layer("body").trainable = False
    assert [layer.trainable for layer in to_tf_keras(model).layers[1:]] == [False, True]


# --- what acts in training only --------------------------------------------------------------------------------------


def test_augmentation_is_left_out_with_a_notice():
    body = [layers.RandomFlip(name="flip"), our_layers.RandomAffine(10, rescale=1 / 255, name="affine")]
    model = keras.Sequential([keras.Input((16, 16, 3)), *body, our_layers.DropBlock(0.1, 3), layers.Conv2D(2, 3)])
    with pytest.warns(UserWarning, match="left out.*flip, affine, drop_block"):
        twin = to_tf_keras(model)
    assert [type(layer).__name__ for layer in twin.layers] == ["InputLayer", "Rescaling", "Conv2D"]
    assert difference(model, twin, np.random.default_rng(0).uniform(0, 255, (2, 16, 16, 3))) < 1e-5


def test_augmentation_that_acts_always_is_refused():
    model = keras.Sequential([keras.Input((16, 16, 3)), layers.RandomCrop(8, 8, name="crop"), layers.Conv2D(2, 3)])
    with pytest.raises(InputError, match=r"`crop` \(RandomCrop\) changes its input"):
        to_tf_keras(model)


# --- what is refused -------------------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable("tests")
class Doubled(layers.Layer):
    def call(self, inputs):
        return inputs * 2


@keras.saving.register_keras_serializable("tests")
class OwnDense(layers.Dense):
    """A subclass may do anything."""


def low_rank():
    layer = layers.Dense(3, name="named")
    layer.build((None, 4))
    layer.enable_lora(2)
    return layer


REFUSED = {
    "a class of one's own": lambda: Doubled(name="named"),
    "a subclass": lambda: OwnDense(2, name="named"),
    "Lambda": lambda: layers.Lambda(lambda x: x + 1, name="named"),
    "a function as activation": lambda: layers.Dense(2, activation=lambda x: x * 2, name="named"),
    "a layer as activation": lambda: layers.Dense(2, activation=layers.LeakyReLU(0.3), name="named"),
    "a layer of Keras 3 alone": lambda: layers.RMSNormalization(name="named"),
    "an option of Keras 3 alone": low_rank,
    "a layer that fails in tf_keras": lambda: layers.SpectralNormalization(layers.Dense(3), name="named"),
    "another regularizer": lambda: layers.Dense(2, kernel_regularizer=OwnPenalty(), name="named"),
}


@keras.saving.register_keras_serializable("tests")
class OwnPenalty(keras.regularizers.Regularizer):
    def __call__(self, x):
        return ops.sum(x)

    def get_config(self):
        return {}


@pytest.mark.parametrize("make", REFUSED.values(), ids=REFUSED)
def test_what_tf_keras_lacks_is_refused_by_name(make):
    model = keras.Sequential([keras.Input((4,)), make(), layers.Dense(2)])
    with pytest.raises(InputError, match=r"^to_tf_keras: `named` \(\w+\)"):
        to_tf_keras(model)


def test_states_that_stay_are_refused_by_name():
    x = keras.Input(batch_shape=(2, 3, 4))
    with pytest.raises(InputError, match=r"`memory` \(LSTM\) is stateful"):
        to_tf_keras(keras.Model(x, layers.LSTM(3, stateful=True, name="memory")(x)))


@keras.saving.register_keras_serializable("tests")
class OwnOperation(keras.Operation):
    def call(self, x):
        return x + 1

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, x.dtype)


def test_an_operation_of_ones_own_is_refused_by_name():
    x = keras.Input((4,))
    with pytest.raises(InputError, match=r"`plus` \(OwnOperation\) is an operation of its own"):
        to_tf_keras(keras.Model(x, OwnOperation(name="plus")(x)))


def test_outputs_that_are_never_finite_are_refused():
    x = keras.Input((4,))
    with pytest.raises(InputError, match="no number in them is finite"):
        to_tf_keras(keras.Model(x, layers.Dense(2)(x) / 0.0))


def test_a_wrong_layer_is_found_by_its_outputs(monkeypatch):
    """tf_keras has a hard_sigmoid of another slope."""
    same = (*tf_keras_layers._SAME_ACTIVATIONS, "hard_sigmoid")
    monkeypatch.setattr(tf_keras_layers, "_SAME_ACTIVATIONS", same)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, "hard_sigmoid", name="gate")])
    with pytest.raises(InputError, match=r"the output 'gate' .* differs by .* a layer differs"):
        to_tf_keras(model)


def test_rounding_is_told_from_a_fault():
    """tf_keras computes the norm of an image in one operation, Keras 3 in several."""
    x = keras.Input((4, 4, 2))
    model = drawn(keras.Model(x, ops.sin(1e4 * layers.BatchNormalization()(x))))
    with pytest.raises(InputError, match="rounding, for the outputs move by"):
        to_tf_keras(model)


# --- S5 --------------------------------------------------------------------------------------------------------------


def test_random_graphs_are_exact_or_refused(request):
    count = 200 if request.config.getoption("full") else 10
    refused = []
    for seed in range(count):
        model = random_model(seed)
        try:
            twin = to_tf_keras(model)
        except InputError as error:
            refused.append(f"{seed}: {error}")
            continue
        inputs = random_inputs(model, 3, seed=1)
        assert difference(model, twin, inputs if len(inputs) > 1 else inputs[0]) < 1e-5, seed
    assert len(refused) <= count // 100, refused  # for rounding


# All families of keras.applications, at the smallest image that they take.
FAMILIES = {
    name: (getattr(keras.applications, name), settings)
    for name, settings in {
        "MobileNet": {"alpha": 0.25},
        "MobileNetV2": {"alpha": 0.35},
        "MobileNetV3Small": {"alpha": 0.5},
        "VGG16": {},
        "ResNet50": {},
        "DenseNet121": {},
        "EfficientNetB0": {},
        "EfficientNetV2S": {},
        "InceptionV3": {"input_shape": (75, 75, 3)},
        "MobileNetV3Large": {},
        "NASNetMobile": {},
        "NASNetLarge": {},
        "ResNet101": {},
        "ResNet152": {},
        "ResNet50V2": {},
        "ResNet101V2": {},
        "ResNet152V2": {},
        "DenseNet169": {},
        "DenseNet201": {},
        "VGG19": {},
        "Xception": {"input_shape": (71, 71, 3)},
        **{f"EfficientNetB{number}": {} for number in range(1, 8)},
        **{f"EfficientNetV2{size}": {} for size in ("B0", "B1", "B2", "B3", "M", "L")},
    }.items()
}


@pytest.mark.parametrize("family", few(FAMILIES, "MobileNet", "MobileNetV2", "MobileNetV3Small", "VGG16", "VGG19"))
def test_families_of_applications_are_exact(family):
    make, settings = family
    keras.backend.clear_session()  # forty of them together take 30 GB
    model = make(weights=None, include_top=False, pooling="avg", **{"input_shape": (32, 32, 3), **settings})
    for layer in model.layers:
        if layer.name.endswith("project_bn"):  # else the deepest untrained one makes 1.7 of a change of 1e-7
            layer.gamma.assign(np.full(layer.gamma.shape, 0.2))
    twin = to_tf_keras(model)
    assert difference(model, twin, np.random.default_rng(1).normal(size=(1, *model.input_shape[1:]))) < 1e-5


OWN_LAYERS = {
    **{f"ConvNeXt{size}": "LayerScale" for size in ("Tiny", "Small", "Base", "Large", "XLarge")},
    "InceptionResNetV2": "CustomScaleLayer",
}


def test_every_family_of_applications_has_a_row():
    families = {name for name, kind in vars(keras.applications).items() if callable(kind)}
    assert families == {*FAMILIES, *OWN_LAYERS}


@pytest.mark.parametrize("family", [full(name) for name in OWN_LAYERS])
def test_families_with_layers_of_their_own_are_refused_by_name(family):
    make = getattr(keras.applications, family)
    with pytest.raises(InputError, match=rf"to_tf_keras: `\w+` \({OWN_LAYERS[family]}\) is a class of its own"):
        to_tf_keras(make(weights=None, include_top=False, input_shape=(75, 75, 3)))


# --- and back --------------------------------------------------------------------------------------------------------


def test_trained_weights_come_back():
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        model = drawn(nested_and_shared())
        twin = to_tf_keras(model)
        twin.compile("adam", "mse")
        rng = np.random.default_rng(0)
        x = {name: rng.normal(size=(32, 4)).astype("float32") for name in ("zeta", "alpha")}
        y = {name: rng.normal(size=(32, size)) for name, size in (("late", 3), ("early", 2), ("middle", 3))}
        twin.fit(x, y, epochs=2, verbose=0)
    before = difference(model, twin, x)
    assert copy_weights_back(twin) is model
    assert difference(model, twin, x) < 1e-5 < before


def test_a_model_without_an_origin_is_refused():
    twin = tf_keras().models.clone_model(to_tf_keras(keras.Sequential([keras.Input((4,)), layers.Dense(2)])))
    with pytest.raises(InputError, match="was not made from a Keras 3 model"):
        copy_weights_back(twin)
