"""A quantization-aware model against its device file, against the plain layers it wraps, and in every mode of `fit`."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_opt import models
from keras_opt.callbacks import WeightAveraging
from keras_opt.compression import quantize_aware
from keras_opt.export import to_tflite
from keras_opt.export.interpreter import LiteRTModel
from keras_opt.export.model_file import unpack
from keras_opt.export.tflm_operators import operators

RNG = np.random.default_rng(0)
SCALE = keras.layers.Rescaling(1 / 127.5, -1)


def trained(model, x, batches=3):
    """The quantization-aware copy after a few eager batches, with norms that stand nowhere near their start."""
    copy = quantize_aware(model)
    for norm in filter(None, (getattr(layer, "norm", None) for layer in copy.layers)):
        norm.gamma.assign(RNG.uniform(0.2, 2, norm.gamma.shape))
        norm.beta.assign(RNG.normal(size=norm.beta.shape))
    for batch in np.array_split(x, batches):
        copy(batch, training=True)
    return copy


def everything():
    """Adds, concatenations of what has one range and of what has two, pools, one-dimensional and transposed layers."""
    layers = keras.layers
    image = keras.Input((8, 8, 3), name="image")
    x = layers.Rescaling(1 / 255)(image)
    x = layers.BatchNormalization()(layers.Conv2D(8, 3, padding="same")(x))
    y = layers.ReLU(6.0)(x)
    y = layers.Activation("relu")(layers.Add()([layers.SeparableConv2D(8, 3, padding="same")(y), y, x]))
    y = layers.Maximum()([y, layers.Conv2D(8, 1)(x)])
    both = layers.Concatenate()([y, layers.MaxPooling2D(3, 1, "same")(layers.Conv2D(4, 1)(y))])
    z = layers.AveragePooling2D(2)(layers.Conv2DTranspose(4, 2, strides=2)(both))
    z = layers.Conv1D(6, 3, padding="causal", activation="hard_silu")(layers.Reshape((16, 16))(z))
    z = layers.GlobalAveragePooling1D()(z)
    return keras.Model(image, layers.Dense(4)(layers.BatchNormalization()(z)), name="everything")


def fused():
    """What a device runs in one operation, means that are halves, and a kernel that is called twice."""
    layers = keras.layers
    image = keras.Input((11, 11, 3), name="image")
    x = layers.Conv2D(4, 2, bias_initializer="random_normal")(layers.Rescaling(1 / 127.5, -1)(image))
    x = layers.Flatten()(layers.ReLU()(layers.AveragePooling2D(2)(x)))
    x = layers.ReLU(6.0)(layers.Dropout(0.5)(layers.Dense(8, activation="silu")(x)))
    twice = layers.Dense(8)
    x = layers.Subtract()([twice(x), twice(twice(x))])
    return keras.Model(image, layers.Dense(20)(x), name="fused")


LINEAR = {"classes": 40, "classifier_activation": None}  # many outputs, of which a rounding of its own would move some
NETWORKS = {
    "mlp": lambda: models.mlp([16], (8, 8, 3), **LINEAR, preprocessing=SCALE),
    "convnet": lambda: models.convnet((4, 4), (10, 10, 3), 4, preprocessing=SCALE, norm_position="after_activation"),
    "convnet_1d": lambda: models.convnet((8,), (16, 3), **LINEAR, pooling="max"),
    "everything": everything,
    "fused": fused,
    "resnet": lambda: models.resnet(20, (16, 16, 3), **LINEAR, preprocessing=SCALE),
    "mobilenet": lambda: models.mobilenet((16, 16, 3), **LINEAR, alpha=0.25, preprocessing=SCALE),
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.full] * (name in ("mlp", "resnet", "mobilenet"))) for name in NETWORKS],
)
def test_the_model_says_what_its_file_will_answer(name, tmp_path):
    network = NETWORKS[name]()
    shape = (96, *network.input_shape[1:])
    x = (RNG.integers(0, 256, shape) if len(shape) == 4 else RNG.normal(size=shape)).astype("float32")
    model = trained(network, x)
    path = to_tflite(model, tmp_path / "model.tflite", "int8").path
    if name == "fused":  # the rescaling too is in the kernel behind it
        assert "DEPTHWISE_CONV_2D" not in operators(unpack(path.read_bytes()))
    file = LiteRTModel(path)
    for answers in (model(x).numpy(), model.predict(x, verbose=0)):  # whose graph multiplies in another order
        assert np.abs(file.predict(x) - answers).max() < 0.01 * file.output.scale


@pytest.mark.parametrize("kind", [keras.layers.Add, keras.layers.Subtract, keras.layers.Multiply])
def test_all_pairs_of_numbers_are_combined_as_in_the_file(kind, tmp_path):
    one, other = keras.Input((256, 256, 1), name="one"), keras.Input((256, 256, 1), name="other")
    model = quantize_aware(keras.Model([one, other], kind()([one, other])))
    model([RNG.normal(size=(1, 256, 256, 1)), RNG.normal(scale=3, size=(1, 256, 256, 1))], training=True)
    ranges = [model.get_layer(f"{name}_range") for name in ("one", "other")]
    numbers = [np.linspace(each.low, each.high, 256, dtype="float32") for each in ranges]
    pairs = [pair[np.newaxis, ..., np.newaxis] for pair in np.meshgrid(*numbers)]
    file = LiteRTModel(to_tflite(model, tmp_path / "model.tflite", "int8").path)
    assert np.abs(file.predict(pairs) - model(pairs).numpy()).max() < 0.01 * file.output.scale


@pytest.mark.parametrize("pooled", [False, True])
def test_a_norm_learns_as_in_the_plain_network_with_the_rounded_kernel(pooled):
    inputs = keras.Input((6, 6, 2))
    x = keras.layers.Conv2D(4, 3, use_bias=False, name="conv")(inputs)
    x = keras.layers.MaxPooling2D(name="pool")(x) if pooled else x
    x = keras.layers.BatchNormalization(momentum=0.9, name="norm")(x)
    plain = keras.Model(inputs, keras.layers.ReLU()(x))
    plain.get_layer("norm").gamma.assign([0.5, 1.0, 2.0, 0.0])
    copy = quantize_aware(plain)
    unit = copy.get_layer("quantized_conv")
    batch = RNG.normal(size=(16, 6, 6, 2)).astype("float32")
    batch = copy.get_layer(f"{inputs.name}_range")(batch, training=True)[0]
    scale = np.array([0.5, 1, 2, 1], "float32") / np.sqrt(1.001)  # a gamma of 0 leaves the kernel as it is
    step = np.abs(plain.get_layer("conv").kernel * scale).max((0, 1, 2)) / 127
    plain.get_layer("conv").kernel.assign(np.round(plain.get_layer("conv").kernel * scale / step) * step / scale)

    weights = RNG.normal(size=(4,)).astype("float32")
    results = []
    for function, kernel in ((plain, plain.get_layer("conv").kernel), (unit, unit.layer.kernel)):
        with tf.GradientTape() as tape:
            outputs = function(batch, training=True)
            loss = tf.reduce_sum(outputs * weights)
        results.append((outputs.numpy(), tape.gradient(loss, kernel.value).numpy()))
    for expected, got in zip(*results, strict=True):  # the second are the gradients: straight through
        np.testing.assert_allclose(got, expected, atol=2e-4)
    for expected, got in zip(plain.get_layer("norm").weights, unit.norm.weights, strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-5)


def test_xla_computes_the_same_step():
    x = RNG.integers(0, 256, (12, 8, 8, 1)).astype("float32")
    plain = models.convnet((4,), (8, 8, 1), 3, preprocessing=SCALE)

    def gradients(model):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(model(x, training=True)[:, 0])
        return tape.gradient(loss, [weight.value for weight in model.trainable_weights])

    eager, compiled = quantize_aware(plain), quantize_aware(plain)
    expected = gradients(eager)
    got = tf.function(lambda: gradients(compiled), jit_compile=True, autograph=False)()
    assert tf.linalg.global_norm([a - b for a, b in zip(expected, got, strict=True)]) < 0.02 * tf.linalg.global_norm(
        expected
    )
    for one, other in zip(eager.weights, compiled.weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3)


def test_several_steps_an_execution_train_alike():
    x, y = RNG.integers(0, 256, (12, 8, 8, 1)).astype("float32"), RNG.integers(0, 3, 12)
    results = []
    for steps in (1, 2):
        keras.utils.set_random_seed(3)
        model = quantize_aware(models.convnet((4,), (8, 8, 1), 3, preprocessing=SCALE))
        model.compile(keras.optimizers.SGD(0.01), "sparse_categorical_crossentropy", steps_per_execution=steps)
        model.fit(x, y, batch_size=4, shuffle=False, verbose=0)
        results.append(model.get_weights())
    for expected, got in zip(*results, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_two_replicas_train_as_one_device_does(two_replicas):
    x, y = RNG.integers(0, 256, (16, 8, 8, 1)).astype("float32"), RNG.integers(0, 3, 16)
    results = []
    for scope in (contextlib.nullcontext, two_replicas.scope):
        keras.utils.set_random_seed(3)
        with scope():
            model = quantize_aware(models.convnet((4,), (8, 8, 1), 3, norm="sync"))
            model.compile(keras.optimizers.SGD(1e-3), "sparse_categorical_crossentropy")
        model.fit(x, y, batch_size=8, shuffle=False, verbose=0)
        results.append(model)
    alone, together = results
    for expected, got in zip(alone.weights, together.weights, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5, err_msg=got.path)
        first, second = two_replicas.experimental_local_results(got.value)
        np.testing.assert_array_equal(first, second, err_msg=got.path)


def test_a_confident_error_has_the_gradient_that_it_has_in_float():
    """Rounded, its probability is 0; the logarithm of Keras's loss is cut there, and has none."""
    plain = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, "softmax")])
    plain.layers[0].bias.assign([8.0, 0.0, 0.0])
    x, y = np.ones((4, 2), "float32"), np.ones(4, int)

    def gradient(model):
        bias = model.trainable_weights[-1].value
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(y, model(x, training=True)))
        return tape.gradient(loss, bias)

    aware = quantize_aware(plain)
    np.testing.assert_allclose(gradient(aware), gradient(plain), atol=0.05)
    assert aware(x)[0, 1] == 0


def test_averaged_weights_predict_their_file(tmp_path):
    x, y = RNG.integers(0, 256, (32, 8, 8, 1)).astype("float32"), RNG.integers(0, 3, 32)
    model = quantize_aware(models.convnet((4,), (8, 8, 1), 40, preprocessing=SCALE, classifier_activation=None))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.05), loss)
    model.fit(x, y, batch_size=4, epochs=2, verbose=0, callbacks=[WeightAveraging(ema_momentum=0.75)])
    file = LiteRTModel(to_tflite(model, tmp_path / "model.tflite", "int8").path)
    assert np.abs(file.predict(x) - model.predict(x, verbose=0)).max() <= 1.01 * file.output.scale


def test_dropout_is_live_in_training_alone():
    model = quantize_aware(models.convnet((4,), (8, 8, 1), 3, dropout=0.5))
    x = RNG.normal(size=(4, 8, 8, 1)).astype("float32")
    state = model.get_layer("dropout").seed_generator.state
    before = state.numpy()
    first, second = model(x, training=True), model(x, training=True)
    assert np.any(first != second)
    assert np.any(state.numpy() != before)
    np.testing.assert_array_equal(model(x), model(x))
