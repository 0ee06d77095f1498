"""The exported file against the Keras model, and every refusal of `to_tflite`."""

import concurrent.futures
import dataclasses
import errno
import re
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from export_models import CLASS_NAMES, small_model
from full_rows import full

from keras_opt.core.errors import InputError
from keras_opt.export import LiteRTModel, ModelMetadata, gzip_size, to_tflite, verify
from keras_opt.export.model_file import names, schema, unpack
from keras_opt.models import convnet


def refusal(message):
    return pytest.raises(InputError, match=re.escape(message))


@pytest.mark.parametrize(("kind", "tolerance"), [("float32", 1e-5), ("float16", 2e-3), ("dynamic", 2e-2)])
def test_float_kinds_answer_as_keras_does(kind, tolerance, exports, model, images):
    device = LiteRTModel(exports[kind].path).predict(images)
    assert np.abs(device - model.predict(images, verbose=0)).max() < tolerance


def test_int8_answers_as_keras_does(exports, model, images):
    device, keras_outputs = LiteRTModel(exports["int8"].path).predict(images), model.predict(images, verbose=0)
    assert np.mean(device.argmax(-1) == keras_outputs.argmax(-1)) >= 0.95
    assert np.abs(device - keras_outputs).max() < 8 / 256


def test_export_says_what_a_program_must_know(exports):
    export = exports["int8"]
    assert (export.quantize, export.input.shape, export.class_names) == ("int8", (1, 12, 12, 3), CLASS_NAMES)
    assert (export.input.dtype, export.output.dtype) == ("int8", "int8")
    assert (export.input.scale, export.input.zero_point) == (1.0, -128)  # raw pixels 0..255
    assert (export.output.scale, export.output.zero_point) == (1 / 256, -128)  # softmax
    assert export.size_bytes == export.path.stat().st_size
    assert export.gzip_bytes == gzip_size(export.path) < export.size_bytes
    assert (exports["float32"].input.dtype, exports["float32"].input.scale) == ("float32", 0.0)


def test_the_text_of_an_export(exports):
    export = dataclasses.replace(exports["int8"], path=Path("a.tflite"), size_bytes=12345, gzip_bytes=6789)
    assert str(export) == (
        "a.tflite: int8, 12,345 bytes, 6,789 with gzip\n"
        "input 1 x 12 x 12 x 3 int8 (scale 1, zero point -128), output int8 (scale 0.003906, zero point -128), "
        "3 class names\n"
        "C:      q = fminf(fmaxf(rintf(x / 1.0f) - 128, -128), 127);  y = 0.00390625f * (q + 128);\n"
        "Python: q = np.clip(np.round(x / 1.0) - 128, -128, 127);  y = 0.00390625 * (q + 128)"
    )
    assert "input 1 x 12 x 12 x 3 float32, output float32, 3" in str(exports["float32"])


def test_sizes_fall_with_the_kind(exports):
    sizes = [exports[kind].size_bytes for kind in ("float32", "float16", "int8")]
    assert sizes == sorted(sizes, reverse=True)


def test_equal_models_give_equal_files(exports, model, images, tmp_path):
    again = to_tflite(model, tmp_path / "again.tflite", "int8", images, CLASS_NAMES)
    assert again.path.read_bytes() == exports["int8"].path.read_bytes()


@pytest.mark.full
def test_int8_is_at_least_3_4_times_smaller_on_the_demo_network(tmp_path):
    def network(batch_norm):
        layers = [keras.Input((28, 28, 1)), keras.layers.Rescaling(1 / 255)]
        for filters in (32, 64):
            layers += [keras.layers.Conv2D(filters, 3, use_bias=not batch_norm)]
            if batch_norm:
                layers += [keras.layers.BatchNormalization(beta_initializer="random_normal")]
            layers += [keras.layers.Activation("relu"), keras.layers.MaxPooling2D()]
        layers += [keras.layers.Flatten(), keras.layers.Dropout(0.5), keras.layers.Dense(10, activation="softmax")]
        return keras.Sequential(layers)

    names = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
    pixels = np.random.default_rng(0).integers(0, 256, (200, 28, 28, 1))
    plain = to_tflite(network(False), tmp_path / "plain.tflite", "float32", class_names=names)
    small = to_tflite(network(True), tmp_path / "small.tflite", "int8", pixels, names)
    assert plain.size_bytes / small.size_bytes >= 3.4


def test_the_converter_is_silent(model, images, tmp_path, capfd, recwarn):
    to_tflite(model, tmp_path / "model.tflite", "int8", images)
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list


@pytest.mark.parametrize("kind", [full("float32"), "int8"])
def test_mixed_precision_model_is_exported_in_float32(kind, images, tmp_path):
    keras.mixed_precision.set_dtype_policy("mixed_float16")
    try:
        model = small_model(keras.layers.BatchNormalization(), keras.layers.Activation("relu"))
    finally:
        keras.mixed_precision.set_dtype_policy("float32")
    export = to_tflite(model, tmp_path / "mixed.tflite", kind, images)
    device = LiteRTModel(export.path).predict(images[:50])
    assert np.abs(device - model.predict(images[:50], verbose=0)).max() < 0.02
    assert {layer.dtype_policy.name for layer in model.layers} == {"mixed_float16"}  # the model is as it was


def test_float_island_is_refused_by_name_and_nothing_is_left(images, tmp_path):
    model = small_model(keras.layers.Activation("elu", name="island"))
    with pytest.raises(InputError, match=r"int8 file computes in float32: ELU in layer 'island' \('.*/Elu'\)\. "):
        to_tflite(model, tmp_path / "elu.tflite", "int8", images)
    assert list(tmp_path.iterdir()) == []


@keras.saving.register_keras_serializable("tests")
class Counting(keras.layers.Layer):
    """Counts its calls in a variable, at inference too."""

    def build(self, shape):
        self.calls = self.add_weight(shape=(), trainable=False, name="calls")

    def call(self, x):
        self.calls.assign_add(1.0)
        return x * self.calls


def test_a_model_that_changes_its_weights_at_inference_is_refused(tmp_path):
    model = small_model(Counting())
    with refusal("to_tflite: model 'small' cannot be written as float32"):
        to_tflite(model, tmp_path / "variables.tflite")
    assert list(tmp_path.iterdir()) == []


def test_operation_unknown_to_litert_is_refused_and_the_old_file_stays(tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(b"the old file")
    message = (
        r"to_tflite: model 'small' cannot be written as float32: 'tf.Erf' op is neither a custom op nor a flex op "
        r"\(at 'small.*/Erf'\)\. Replace the layer that holds this operation by one that LiteRT has\."
    )
    with pytest.raises(InputError, match=message):
        to_tflite(small_model(keras.layers.Activation(tf.math.erf)), path)
    assert path.read_bytes() == b"the old file"
    assert list(tmp_path.iterdir()) == [path]


def test_dynamic_that_narrows_nothing_is_refused(tmp_path):
    model = small_model(input_shape=(4, 4, 1))
    with refusal("quantize='dynamic' narrowed none of the 672 bytes of weights"):
        to_tflite(model, tmp_path / "tiny.tflite", "dynamic")


class Subclassed(keras.Model):
    def call(self, x):
        return x


def any_size():
    return keras.Sequential([keras.Input((None, None, 3), name="photo"), keras.layers.GlobalAveragePooling2D()])


def remembering():
    return keras.Sequential([keras.Input(batch_shape=(1, 4, 3)), keras.layers.LSTM(2, stateful=True, name="memory")])


def of_dtype(dtype):
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, dtype=dtype)])


def text():
    return keras.Sequential(
        [keras.Input((2,), dtype="string", name="words"), keras.layers.StringLookup(vocabulary=["a"])]
    )


def looks_up():
    layers = [keras.layers.IntegerLookup(vocabulary=[3, 5]), keras.layers.Embedding(4, 2)]
    return keras.Sequential([keras.Input((2,), dtype="int64"), *layers], name="looks_up")


def same_twice():
    inputs = keras.Input((4,))
    output = keras.layers.Dense(2, name="dense")(inputs)
    return keras.Model(inputs, [output, output])


def quantized():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    model.layers[0].quantize("int8")
    return model


def diverged():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="dense")], name="net")
    model.set_weights([np.full((4, 2), np.nan), np.zeros(2)])
    return model


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: 3, "must be a Keras 3 model. Received: model=3. Load or build one with keras."),
        (Subclassed, "must be a built functional or Sequential model."),
        (lambda: keras.Sequential([keras.layers.Dense(1)]), "start it with keras.Input(shape)."),
        (any_size, "must be a model whose inputs are fixed in size, not (None, None, 3) ('photo')."),
        (remembering, "must be without memory between calls, but 'memory' is stateful."),
        (lambda: of_dtype("float64"), "must be a model whose weights are float32, not float64."),
        (lambda: of_dtype("bfloat16"), "must be a model whose weights are float32, not bfloat16."),
        (text, "must be a model whose inputs are numbers, not text ('words')."),
        (looks_up, "to_tflite: model 'looks_up' reads a lookup table, which LiteRT lacks. Look the values up before"),
        (same_twice, "to_tflite: 'dense' and 'dense_1' are the same value, which a file cannot give two names. Take"),
        (quantized, "must be a float model."),
        (diverged, "must be a model of finite weights, but 'net/dense/kernel' has NaN or infinity."),
    ],
)
def test_model_that_cannot_be_exported(make, message, tmp_path):
    with refusal(f"to_tflite: argument `model` {message}" if message.startswith("must") else message):
        to_tflite(make(), tmp_path / "model.tflite")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"quantize": "int2"}, "`quantize` must be one of 'float32', 'float16', 'dynamic', 'int8', 'int16x8', 'int4'."),
        ({"io_dtype": "int8"}, "`io_dtype` must be one of 'float32'. Received: io_dtype='int8'."),
        ({"quantize": "int8", "io_dtype": "int16"}, "`io_dtype` must be one of 'int8', 'uint8', 'float32'."),
        ({"metadata": ModelMetadata("a", "b", "1", "c"), "name": "d"}, "`metadata` must be alone, without what it"),
        ({"class_names": ["a"]}, "`class_names` must be 3 names, one per output of the model. Received: class_names="),
        ({"class_names": ["a", "b", ""]}, "`class_names` must be texts of one line each."),
        ({"class_names": ["a", "b", "c\nd"]}, "Take out empty names, line breaks and what is no UTF-8."),
        ({"class_names": ["a", "b", "caf\udce9"]}, "`class_names` must be texts of one line each."),
        ({"class_names": "abc"}, "`class_names` must be a sequence of names. Received: class_names='abc'."),
        ({"class_names": 3}, "`class_names` must be a sequence of names. Received: class_names=3."),
        ({"class_names": {"z": "abc"}}, "`class_names` must be a sequence of names."),
        ({"class_names": {"a", "b", "c"}}, "`class_names` must be a sequence of names."),
        ({"name": 3}, "`metadata` must be texts. Received: metadata={'name': 3, "),
        ({"description": 3}, "`metadata` must be texts."),
    ],
)
def test_setting_that_does_not_fit(settings, message, model, tmp_path):
    with pytest.raises((InputError, TypeError), match=re.escape(message)):
        to_tflite(model, tmp_path / "model.tflite", **settings)


def test_missing_folder(model, tmp_path):
    with refusal(f"`path` must be in an existing folder. Received: path='{tmp_path}/no/m.tflite'. Make {tmp_path}/no "):
        to_tflite(model, tmp_path / "no" / "m.tflite")
    with refusal(f"`path` must be a file, not a folder. Received: path='{tmp_path}'. Add a name: 'model.tflite'."):
        to_tflite(model, tmp_path)
    with pytest.raises(TypeError, match="`path` must be a str or a"):
        to_tflite(model, None)


def test_a_full_disk_is_one_error_and_the_old_file_stays(model, tmp_path, monkeypatch):
    path = tmp_path / "model.tflite"
    path.write_bytes(b"the old file")

    def full(*arguments, **settings):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match=r"No space left on device: '.*/model\.tflite'"):
            to_tflite(model, path)

    def full_of_tensors(*arguments, **settings):
        raise tf.errors.ResourceExhaustedError(None, None, "shard-00000-of-00001; No space left on device [Op:SaveV2]")

    monkeypatch.setattr(tf.saved_model, "save", full_of_tensors)
    with pytest.raises(OSError, match=r"No space left on device: '.*/keras_opt-.*'"):
        to_tflite(model, path)
    assert path.read_bytes() == b"the old file"
    assert list(tmp_path.iterdir()) == [path]


def test_threads_at_once_and_to_one_path(images, tmp_path, capfd):
    """One after the other where the process has but one of a thing: streams, the policies of a model."""
    keras.mixed_precision.set_dtype_policy("mixed_float16")
    try:
        mixed = small_model(keras.layers.ReLU())
    finally:
        keras.mixed_precision.set_dtype_policy("float32")
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        jobs = [pool.submit(to_tflite, mixed, tmp_path / f"{number % 2}.tflite") for number in range(4)]
        files = [job.result() for job in jobs]
    assert {layer.dtype_policy.name for layer in mixed.layers} == {"mixed_float16"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.tflite", "1.tflite"]
    assert files[0].path.read_bytes() == files[1].path.read_bytes()
    assert verify(mixed, files[0].path, images[:20]).max_error < 1e-5
    print("heard")
    assert capfd.readouterr().out == "heard\n"


def operators(path):
    tree = unpack(path.read_bytes())
    names_of = names(schema().BuiltinOperator)
    return [names_of[tree.operatorCodes[one.opcodeIndex].builtinCode] for one in tree.subgraphs[0].operators]


def test_a_norm_behind_a_max_pooling_costs_no_operation(tmp_path):
    model = convnet((4, 6), (16, 16, 1), 3)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.moving_mean.assign(np.linspace(-0.2, 0.2, layer.moving_mean.shape[0]))
    export = to_tflite(model, tmp_path / "model.tflite")
    expected = ["CONV_2D", "MAX_POOL_2D"] * 2 + ["RESHAPE", "FULLY_CONNECTED", "SOFTMAX"]
    assert operators(export.path) == expected
    images = np.random.default_rng(0).normal(size=(20, 16, 16, 1)).astype("float32")
    assert verify(model, export.path, images).max_error < 1e-5


def test_a_layer_that_cannot_be_cloned_does_not_stop_the_export(tmp_path):
    model = small_model(keras.layers.BatchNormalization(), keras.layers.Activation(lambda x: 2 * x))
    images = np.random.default_rng(0).integers(0, 256, (20, *model.input_shape[1:]))
    with pytest.warns(UserWarning, match="to_tflite: model 'small' cannot be cloned to fold its BatchNormalization"):
        export = to_tflite(model, tmp_path / "model.tflite")
    assert verify(model, export.path, images).max_error < 1e-5
