"""The exported file against the Keras model, and every refusal of `to_tflite`."""

import dataclasses
import re
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from export_models import CLASS_NAMES, small_model

from keras_opt.core.errors import InputError
from keras_opt.export import LiteRTModel, gzip_size, tflite, to_tflite, verify
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
    assert (export.quantize, export.input_shape, export.class_names) == ("int8", (1, 12, 12, 3), CLASS_NAMES)
    assert (export.input_dtype, export.output_dtype) == ("int8", "int8")
    assert (export.input_scale, export.input_zero_point) == (1.0, -128)  # raw pixels 0..255
    assert (export.output_scale, export.output_zero_point) == (1 / 256, -128)  # softmax
    assert export.size_bytes == export.path.stat().st_size
    assert export.gzip_bytes == gzip_size(export.path) < export.size_bytes
    assert (exports["float32"].input_dtype, exports["float32"].input_scale) == ("float32", 0.0)


def test_the_text_of_an_export(exports):
    export = dataclasses.replace(exports["int8"], path=Path("a.tflite"), size_bytes=12345, gzip_bytes=6789)
    assert str(export) == (
        "a.tflite: int8, 12,345 bytes, 6,789 with gzip\n"
        "input 1 x 12 x 12 x 3 int8 (scale 1, zero point -128), output int8 (scale 0.003906, zero point -128), "
        "3 class names"
    )
    assert "input 1 x 12 x 12 x 3 float32, output float32, 3" in str(exports["float32"])


def test_sizes_fall_with_the_kind(exports):
    sizes = [exports[kind].size_bytes for kind in ("float32", "float16", "int8")]
    assert sizes == sorted(sizes, reverse=True)


def test_equal_models_give_equal_files(exports, model, images, tmp_path):
    again = to_tflite(model, tmp_path / "again.tflite", "int8", images, CLASS_NAMES)
    assert again.path.read_bytes() == exports["int8"].path.read_bytes()


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


@pytest.mark.parametrize("kind", ["float32", "int8"])
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


def test_recurrent_loop_in_int8_is_refused_by_name(tmp_path):
    model = keras.Sequential([keras.Input((6, 3)), keras.layers.GRU(8, name="memory"), keras.layers.Dense(2)])
    with refusal(
        "must be free of recurrent loops for int8, but 'memory' is one. "
        f"Received: model={model!r}. Use quantize='dynamic' or 'float16'."
    ):
        to_tflite(model, tmp_path / "gru.tflite", "int8", np.zeros((100, 6, 3)))


def test_float_island_is_refused_by_name_and_nothing_is_left(images, tmp_path):
    model = small_model(keras.layers.Activation("elu", name="island"))
    with pytest.raises(InputError, match=r"int8 file computes in float32: ELU at '.*island.*/Elu'\. LiteRT has no"):
        to_tflite(model, tmp_path / "elu.tflite", "int8", images)
    assert list(tmp_path.iterdir()) == []


def test_variable_operations_are_refused(monkeypatch, tmp_path):
    """Planted fault: the trackable argument, with which the converter writes a file that holds no weights."""
    model = small_model(keras.layers.Activation("relu"))
    right_way = tf.lite.TFLiteConverter.from_concrete_functions
    monkeypatch.setattr(
        tf.lite.TFLiteConverter, "from_concrete_functions", lambda functions: right_way(functions, model)
    )
    with refusal(
        "to_tflite: the converter wrote variable operations (READ_VARIABLE, VAR_HANDLE) instead of the weight"
    ):
        to_tflite(model, tmp_path / "variables.tflite")
    assert list(tmp_path.iterdir()) == []


def test_operation_unknown_to_litert_is_refused_and_the_old_file_stays(tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(b"the old file")
    with refusal(
        "to_tflite: model 'small' cannot be written as float32: 'tf.Erf' op is neither a custom op nor a flex op. "
        "Replace the layer that holds this operation by one that LiteRT has."
    ):
        to_tflite(small_model(keras.layers.Activation(tf.math.erf)), path)
    assert path.read_bytes() == b"the old file"
    assert list(tmp_path.iterdir()) == [path]


def test_dynamic_that_narrows_nothing_is_refused(tmp_path):
    model = small_model(input_shape=(4, 4, 1))
    with refusal("quantize='dynamic' narrowed none of the 704 bytes of weights"):
        to_tflite(model, tmp_path / "tiny.tflite", "dynamic")


def test_representative_data_is_spread_evenly(monkeypatch, model, images, tmp_path):
    seen = []
    right_way = tf.lite.TFLiteConverter.from_concrete_functions

    def spy(functions):
        converter = right_way(functions)
        convert = converter.convert

        def spied():
            seen.extend(row for (row,) in converter.representative_dataset())
            return convert()

        converter.convert = spied
        return converter

    monkeypatch.setattr(tf.lite.TFLiteConverter, "from_concrete_functions", spy)
    to_tflite(model, tmp_path / "model.tflite", "int8", images)
    assert len(seen) == 200
    np.testing.assert_array_equal(seen[0][0], images[0])
    np.testing.assert_array_equal(seen[-1][0], images[-1])


@pytest.mark.parametrize("labels", [(), (np.arange(250),), (np.arange(250), np.ones(250))])
def test_an_endless_dataset_is_read_until_there_are_200_rows(labels, monkeypatch, model, images, tmp_path):
    given = []

    def convert(model, shape, quantize, rows):
        given.append(rows)
        raise InterruptedError

    monkeypatch.setattr(tflite, "_convert", convert)
    data = tf.data.Dataset.from_tensor_slices((images, *labels) if labels else images).batch(50).repeat()
    with pytest.raises(InterruptedError):
        to_tflite(model, tmp_path / "model.tflite", "int8", data)
    np.testing.assert_array_equal(given[0], images[:200])


def test_few_representative_rows_warn(model, images, tmp_path):
    message = "to_tflite: representative_data has 99 rows; under 100 the int8 ranges may be too narrow. Give 200"
    with pytest.warns(UserWarning, match=re.escape(message)) as caught:
        to_tflite(model, tmp_path / "model.tflite", "int8", images[:99])
    assert caught[0].filename == __file__
    with warnings.catch_warnings(action="error"):
        to_tflite(model, tmp_path / "model.tflite", "int8", images[:100])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "raw inputs of shape (rows, 12, 12, 3), rows >= 1. Received: representative_data=None. Give about 200"),
        (np.zeros((5, 12, 12)), "shape (rows, 12, 12, 3), rows >= 1. Received: representative_data=(5, 12, 12)."),
        (np.zeros((0, 12, 12, 3)), "rows >= 1. Received: representative_data=(0, 12, 12, 3)."),
        ((row for row in np.zeros((5, 12, 12, 3))), "rows >= 1. Received: representative_data='generator'. Give about"),
        ((np.zeros((5, 12, 12, 3)), np.zeros(5)), "rows >= 1. Received: representative_data='tuple'."),
        (tf.data.Dataset.from_tensor_slices(np.zeros((5, 12, 12, 3))), "representative_data=TensorSpec(shape=(12, 12,"),
        (tf.data.Dataset.from_tensors({"x": np.zeros((5, 12, 12, 3))}), "representative_data={'x': TensorSpec("),
        (tf.data.Dataset.from_tensors(np.zeros((5, 12, 12, 3))).take(0), "representative_data=(0, 12, 12, 3)."),
        (np.full((5, 12, 12, 3), "x"), "must be finite numbers. Received: representative_data='str32'."),
        (np.full((5, 12, 12, 3), np.nan), "must be finite numbers. Received: representative_data='float64'."),
    ],
)
def test_representative_data_that_does_not_fit(data, message, model, tmp_path):
    with refusal(message):
        to_tflite(model, tmp_path / "model.tflite", "int8", data)


class Subclassed(keras.Model):
    def call(self, x):
        return x


def two_outputs():
    x = keras.Input((4,))
    return keras.Model(x, [keras.layers.Dense(1)(x), keras.layers.Dense(1)(x)])


def any_size():
    return keras.Sequential([keras.Input((None, None, 3)), keras.layers.GlobalAveragePooling2D()])


def quantized():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    model.layers[0].quantize("int8")
    return model


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: 3, "must be a Keras 3 model. Received: model=3. Load or build one with keras."),
        (Subclassed, "must be a built functional or Sequential model."),
        (lambda: keras.Sequential([keras.layers.Dense(1)]), "start it with keras.Input(shape)."),
        (two_outputs, "must be a model with one input and one output."),
        (any_size, "must be a model whose input has a fixed size, not (None, None, 3)."),
        (quantized, "must be a float model."),
    ],
)
def test_model_that_cannot_be_exported(make, message, tmp_path):
    with refusal(f"to_tflite: argument `model` {message}" if message.startswith("must") else message):
        to_tflite(make(), tmp_path / "model.tflite")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"quantize": "int4"}, "`quantize` must be one of 'float32', 'float16', 'dynamic', 'int8'."),
        ({"class_names": ["a"]}, "`class_names` must be 3 names, one per output of the model. Received: class_names="),
        ({"class_names": ["a", "b", ""]}, "`class_names` must be texts of one line each."),
        ({"class_names": ["a", "b", "c\nd"]}, "Take out empty names and line breaks."),
    ],
)
def test_setting_that_does_not_fit(settings, message, model, tmp_path):
    with refusal(message):
        to_tflite(model, tmp_path / "model.tflite", **settings)


def test_missing_folder(model, tmp_path):
    with refusal(f"`path` must be in an existing folder. Received: path='{tmp_path}/no/m.tflite'. Make {tmp_path}/no "):
        to_tflite(model, tmp_path / "no" / "m.tflite")


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
