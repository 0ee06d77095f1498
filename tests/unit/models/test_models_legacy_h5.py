"""Old .h5 files, made with tf_keras as TensorFlow 2.x made them, loaded by Keras 3."""

import json

import h5py
import keras
import numpy as np
import pytest
import tf_keras

import keras_opt
from keras_opt.core.errors import InputError
from keras_opt.export import to_tflite, verify

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3)).astype("float32")


@pytest.fixture(scope="module")
def old():
    """The layers of a small image network of TensorFlow 2.x."""
    layers = tf_keras.layers
    pixels = tf_keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, padding="same", use_bias=False)(layers.Rescaling(1 / 255)(pixels))
    x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    x = layers.LeakyReLU()(layers.DepthwiseConv2D(3, padding="same")(x))
    x = layers.Conv2DTranspose(4, 2)(layers.SeparableConv2D(4, 3)(x))
    x = layers.GlobalAveragePooling2D()(layers.Add()([x, x]))
    model = tf_keras.Model(pixels, layers.Dense(3, activation="softmax", name="head")(layers.Dropout(0.2)(x)))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def saved(model, path):
    model.save(path)
    return path


def changed(path, layer_class, **keys):
    """The file with other keys in the config of its layers of a class."""
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        for layer in config["config"]["layers"]:
            if layer["class_name"] == layer_class:
                layer["config"].update(keys)
        file.attrs["model_config"] = json.dumps(config)
    return path


def test_a_file_that_keras_refuses_gives_the_same_outputs(old, tmp_path):
    path = saved(old, tmp_path / "old.h5")
    with pytest.raises(TypeError, match="groups"):
        keras.models.load_model(path, compile=False)
    model = keras_opt.load_model(path)
    assert model.class_names == ()
    assert isinstance(model.optimizer, keras.optimizers.Adam)
    assert isinstance(model.output, keras.KerasTensor)  # not a list with one entry
    np.testing.assert_allclose(model.predict(PIXELS, verbose=0), old.predict(PIXELS, verbose=0), atol=1e-6)
    assert sorted(tmp_path.iterdir()) == [path]


def test_the_whole_chain_works_on_it(old, tmp_path):
    model = keras_opt.load_model(saved(old, tmp_path / "old.h5"), compile=False)
    export = to_tflite(model, tmp_path / "m.tflite")
    assert verify(model, export.path, PIXELS).max_error < 1e-5


def test_a_nested_and_a_recurrent_model(old, tmp_path):
    layers = tf_keras.layers
    nested = tf_keras.Sequential([old, layers.Dense(2)])
    windows = tf_keras.Sequential(
        [tf_keras.Input((6, 3)), layers.DepthwiseConv1D(3), layers.LSTM(4, return_sequences=True), layers.GRU(4)]
    )
    for name, model, x in (("nested", nested, PIXELS), ("windows", windows, PIXELS[:, :6, 0])):
        loaded = keras_opt.load_model(saved(model, tmp_path / f"{name}.h5"), compile=False)
        np.testing.assert_allclose(loaded.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-6)


def backbone():
    """A nested model, as in transfer learning."""
    inputs = tf_keras.Input((4,))
    return tf_keras.Model(inputs, tf_keras.layers.BatchNormalization()(tf_keras.layers.Dense(4)(inputs)))


@pytest.mark.parametrize("make", [backbone, lambda: tf_keras.Sequential([tf_keras.Input((4,)), backbone()])])
@pytest.mark.parametrize(
    "outputs_of",
    [
        lambda nested, x: tf_keras.layers.Dense(2)(nested(x, training=False)),
        lambda nested, x: tf_keras.layers.Subtract()([nested(x), nested(nested(x))]),
        lambda nested, x: [nested(x), tf_keras.layers.Dense(2)(nested(x))],
    ],
    ids=["below a head", "called several times", "as an output"],
)
def test_a_nested_model_in_a_functional_one(outputs_of, make, tmp_path):
    inputs = tf_keras.Input((4,))
    model = tf_keras.Model(inputs, outputs_of(make(), inputs))
    loaded = keras_opt.load_model(saved(model, tmp_path / "nested.h5"), compile=False)
    x = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
    for ours, theirs in zip(keras.tree.flatten(loaded(x)), keras.tree.flatten(model(x)), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_hard_sigmoid_stays_that_of_keras_2_also_when_it_is_saved_anew(tmp_path):
    layers = tf_keras.layers
    cells = layers.GRU(3, recurrent_activation="hard_sigmoid", return_sequences=True)
    model = tf_keras.Sequential([tf_keras.Input((6, 3)), cells, layers.Dense(2, "hard_sigmoid")])
    loaded = keras_opt.load_model(saved(model, tmp_path / "old.h5"), compile=False)
    loaded.save(tmp_path / "new.keras")
    x = np.random.default_rng(0).normal(size=(5, 6, 3)).astype("float32")
    for each in (loaded, keras_opt.load_model(tmp_path / "new.keras")):
        np.testing.assert_allclose(each(x), model(x), atol=1e-6)


def test_hard_sigmoid_in_a_file_of_keras_3_is_that_of_keras_3(tmp_path):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, "hard_sigmoid")])
    model.save(tmp_path / "new.h5")
    loaded = keras_opt.load_model(tmp_path / "new.h5", compile=False)
    assert loaded.layers[-1].activation is keras.activations.hard_sigmoid


def test_a_model_in_mixed_precision(tmp_path):
    layers = tf_keras.layers
    hidden = [layers.Dense(8, "relu", dtype="mixed_float16"), layers.BatchNormalization(dtype="mixed_float16")]
    model = tf_keras.Sequential([tf_keras.Input((4,)), *hidden, layers.Dense(3)])
    model.compile(tf_keras.mixed_precision.LossScaleOptimizer(tf_keras.optimizers.Adam(0.5)), "mean_squared_error")
    loaded = keras_opt.load_model(saved(model, tmp_path / "mixed.h5"))
    assert isinstance(loaded.optimizer, keras.optimizers.Adam)
    assert float(loaded.optimizer.learning_rate) == 0.5
    assert [layer.compute_dtype for layer in loaded.layers] == ["float16", "float16", "float32"]
    assert {weight.dtype for weight in loaded.weights} == {"float32"}
    x = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
    np.testing.assert_allclose(loaded(x), model(x), atol=1e-2)


def test_an_optimizer_keeps_its_settings(tmp_path):
    rate = tf_keras.optimizers.schedules.CosineDecay(0.25, 10)
    for optimizer in (tf_keras.optimizers.SGD(0.25, momentum=0.5), tf_keras.optimizers.SGD(rate, momentum=0.5)):
        model = tf_keras.Sequential([tf_keras.Input((4,)), tf_keras.layers.Dense(2)])
        model.compile(optimizer, "mean_squared_error")
        loaded = keras_opt.load_model(saved(model, tmp_path / "old.h5")).optimizer
        assert float(loaded.learning_rate) == 0.25
        assert loaded.momentum == 0.5


def test_attention(tmp_path):
    layers = tf_keras.layers
    query, value = tf_keras.Input((4, 16)), tf_keras.Input((10, 8))
    several = layers.MultiHeadAttention(2, 8, value_dim=5, output_shape=7)(query, value)
    of_itself = layers.MultiHeadAttention(2, 4, use_bias=False)(query, query)
    model = tf_keras.Model([query, value], [several, of_itself])
    loaded = keras_opt.load_model(saved(model, tmp_path / "attention.h5"), compile=False)
    x = [np.random.default_rng(0).normal(size=(5, *tensor.shape[1:])).astype("float32") for tensor in model.inputs]
    for ours, theirs in zip(loaded(x), model(x), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_attention_to_the_outputs_of_a_nested_model(tmp_path):
    query, value = tf_keras.Input((4, 16)), tf_keras.Input((10, 8))
    nested = tf_keras.Sequential([tf_keras.Input((10, 8)), tf_keras.layers.Dense(8)])
    outputs = tf_keras.layers.MultiHeadAttention(2, 4)(query, value=nested(nested(value)), key=nested(value))
    model = tf_keras.Model([query, value], outputs)
    loaded = keras_opt.load_model(saved(model, tmp_path / "attention.h5"), compile=False)
    x = [np.random.default_rng(0).normal(size=(5, *tensor.shape[1:])).astype("float32") for tensor in model.inputs]
    np.testing.assert_allclose(loaded(x), model(x), atol=1e-6)


def test_attention_with_robust_masking_is_refused_by_name(tmp_path):
    x = tf_keras.Input((4, 16))
    path = saved(tf_keras.Model(x, tf_keras.layers.MultiHeadAttention(2, 4)(x, x)), tmp_path / "attention.h5")
    changed(path, "MultiHeadAttention", softmax_robust_masking=True)
    with pytest.raises(InputError, match=r"\(MultiHeadAttention\) has softmax_robust_masking=True"):
        keras_opt.load_model(path)


def test_random_layers_and_spatial_dropout(tmp_path):
    layers = tf_keras.layers
    model = tf_keras.Sequential(
        [tf_keras.Input((8, 8, 3)), layers.RandomFlip(), layers.RandomRotation(0.1), layers.SpatialDropout2D(0.1)]
    )
    loaded = keras_opt.load_model(saved(model, tmp_path / "random.h5"), compile=False)
    np.testing.assert_array_equal(loaded.predict(PIXELS, verbose=0), PIXELS)
    assert loaded.layers[-1].rate == 0.1


def test_a_loss_that_keras_3_cannot_read_is_told_from_a_damaged_file(tmp_path):
    model = tf_keras.Sequential([tf_keras.Input((4,)), tf_keras.layers.Dense(2)])
    model.compile("adam", "mse")
    path = saved(model, tmp_path / "old.h5")
    with pytest.raises(InputError, match=r"old\.h5' holds a loss, .* cannot read .*mse.* Give compile=False"):
        keras_opt.load_model(path)
    assert keras_opt.load_model(path, compile=False).count_params() == 10


@pytest.mark.parametrize("key", [{"groups": 2}, {"groups": "1"}])
def test_a_key_with_another_value_is_refused_by_name(key, old, tmp_path):
    path = changed(saved(old, tmp_path / "old.h5"), "DepthwiseConv2D", **key)
    message = rf"old\.h5' cannot be loaded: layer 'depthwise_conv2d.*' \(DepthwiseConv2D\) has groups={key['groups']!r}"
    with pytest.raises(InputError, match=message):
        keras_opt.load_model(path)


def test_a_key_that_nobody_knows_is_named(old, tmp_path):
    path = changed(saved(old, tmp_path / "old.h5"), "Dense", colour="red")
    with pytest.raises(InputError, match=r"Unrecognized keyword arguments passed to Dense: \{'colour': 'red'\}"):
        keras_opt.load_model(path)


def test_tensorflow_code_between_the_layers_is_named(tmp_path):
    x = tf_keras.Input((4,))
    path = saved(tf_keras.Model(x, tf_keras.layers.Dense(2)(x * 2.0)), tmp_path / "operators.h5")
    with pytest.raises(
        InputError, match=r"holds the operation 'tf\.math\.multiply.*' \(TFOpLambda\).*keras\.layers\.Add"
    ):
        keras_opt.load_model(path)


def test_a_lambda_stays_refused(tmp_path):
    """safe_mode stays on: a Lambda layer holds Python code."""
    model = tf_keras.Sequential([tf_keras.Input((4,)), tf_keras.layers.Lambda(lambda x: 2 * x)])
    with pytest.raises(InputError, match="cannot be loaded"):
        keras_opt.load_model(saved(model, tmp_path / "lambda.h5"))


def test_other_files(old, tmp_path):
    old.save_weights(tmp_path / "weights.h5")
    with pytest.raises(InputError, match=r"weights\.h5' holds no model, only weights\. Build the model and call"):
        keras_opt.load_model(tmp_path / "weights.h5")
    (tmp_path / "text.h5").write_text("no model")
    with pytest.raises(InputError, match=r"text\.h5' cannot be loaded \("):
        keras_opt.load_model(tmp_path / "text.h5")
    with pytest.raises(InputError, match=r"none\.h5' is not there"):
        keras_opt.load_model(tmp_path / "none.h5")


def test_what_h5py_raises_in_a_damaged_file_is_told_with_the_cure(tmp_path, monkeypatch):
    def read(*_, **__):
        raise RuntimeError("Unable to synchronously check link existence (addr overflow)")

    keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save(tmp_path / "damaged.h5")
    monkeypatch.setattr(keras.models, "load_model", read)
    with pytest.raises(InputError, match=r"damaged\.h5' cannot be loaded \(Unable .* if it was damaged, save it again"):
        keras_opt.load_model(tmp_path / "damaged.h5", compile=False)


def test_a_file_of_keras_3(tmp_path):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    model.save(tmp_path / "new.h5")
    loaded = keras_opt.load_model(tmp_path / "new.h5", compile=False)
    np.testing.assert_array_equal(loaded.get_weights()[0], model.get_weights()[0])
