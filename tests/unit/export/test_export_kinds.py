"""Kinds of file beyond the first four, types of inputs and outputs, and recurrent layers in integers."""

import re

import keras
import numpy as np
import pytest
from export_models import CLASS_NAMES, small_model
from full_rows import full

from keras_opt.core.errors import InputError
from keras_opt.export import ImageInput, LiteRTModel, ModelMetadata, read_metadata, to_tflite
from keras_opt.export.recurrent_loops import unrolled

WINDOWS = np.random.default_rng(0).normal(size=(120, 7, 3)).astype("float32")


@pytest.mark.parametrize(
    ("quantize", "io_dtype", "stored"),
    [
        ("int8", None, "int8"),
        ("int8", "uint8", "uint8"),
        full("int8", "float32", "float32"),
        ("int16x8", None, "int16"),
        ("int16x8", "float32", "float32"),
        ("int4", None, "float32"),
    ],
)
def test_a_file_of_each_kind_and_type(quantize, io_dtype, stored, exports, model, images, tmp_path):
    export = exports.get(quantize)
    if export is None or io_dtype is not None:
        export = to_tflite(model, tmp_path / "m.tflite", quantize, images, io_dtype=io_dtype)
    assert (export.input.dtype, export.output.dtype) == (stored, stored)
    error = np.abs(LiteRTModel(export.path).predict(images[:40]) - model.predict(images[:40], verbose=0)).max()
    assert error < (0.08 if quantize == "int4" else 8 / 256)
    kernels = {"int8": "INT8", "int16x8": "INT8", "int4": "INT4"}[quantize]
    assert kernels in export.tensor_types
    assert export.verification.rows == 16


def test_int4_takes_half_of_dynamic(model, exports, tmp_path):
    wide = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64), keras.layers.Dense(64)])
    dynamic, int4 = (to_tflite(wide, tmp_path / f"{kind}.tflite", kind) for kind in ("dynamic", "int4"))
    assert int4.size_bytes < dynamic.size_bytes - 3500  # of 8,192 kernel bytes 4,096 are left


def test_metadata_of_ones_own(model, tmp_path):
    given = ModelMetadata(
        "mine", "What it does.", "2.1", "me", ImageInput("photo", "A photo.", 1, 127.5, 127.5), CLASS_NAMES
    )
    export = to_tflite(model, tmp_path / "m.tflite", metadata=given)
    assert read_metadata(export.path) == given
    assert export.class_names == CLASS_NAMES
    with pytest.raises(InputError, match="`class_names` must be 3 names"):
        to_tflite(model, tmp_path / "m.tflite", metadata=ModelMetadata("a", "b", "1", "c", labels=("one",)))
    with pytest.raises(TypeError, match="`metadata` must be a ModelMetadata"):
        to_tflite(model, tmp_path / "m.tflite", metadata={"name": "mine"})


LAYERS = {
    "LSTM": lambda: keras.layers.LSTM(5),
    "LSTM sequences": lambda: keras.layers.LSTM(5, return_sequences=True, go_backwards=True, use_bias=False),
    "GRU": lambda: keras.layers.GRU(5, recurrent_activation="hard_sigmoid"),
    "GRU before": lambda: keras.layers.GRU(5, reset_after=False, return_sequences=True),
    "GRU without bias": lambda: keras.layers.GRU(5, use_bias=False),
    "SimpleRNN": lambda: keras.layers.SimpleRNN(5, return_sequences=True),
    "RNN": lambda: keras.layers.RNN([keras.layers.LSTMCell(4), keras.layers.GRUCell(3)]),
    "Bidirectional": lambda: keras.layers.Bidirectional(keras.layers.GRU(5, return_sequences=True), merge_mode="sum"),
}
ALWAYS = ("LSTM sequences", "GRU", "RNN", "Bidirectional")


def windows_model(layer):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((7, 3)), layer, keras.layers.Flatten(), keras.layers.Dense(2)])
    rng = np.random.default_rng(1)
    model.set_weights([weight + 0.3 * rng.normal(size=weight.shape) for weight in model.get_weights()])
    return model


@pytest.mark.parametrize("kind", [kind if kind in ALWAYS else full(kind) for kind in LAYERS])
def test_unrolled_layers_give_what_the_loop_gives(kind):
    model = windows_model(LAYERS[kind]())
    straight = unrolled("to_tflite", model)
    assert straight is not model
    np.testing.assert_allclose(straight(WINDOWS), model(WINDOWS), atol=2e-6)


@pytest.mark.parametrize("kind", ["LSTM sequences", full("GRU"), full("Bidirectional")])
def test_recurrent_layers_in_int8(kind, tmp_path):
    model = windows_model(LAYERS[kind]())
    export = to_tflite(model, tmp_path / "m.tflite", "int8", WINDOWS)
    assert not any(name.startswith("FLOAT") for name in export.tensor_types)
    assert export.verification.relative_error < 0.1


def test_models_without_recurrent_layers_are_left_alone(model):
    assert unrolled("to_tflite", model) is model


def test_a_loop_that_cannot_be_unrolled_is_refused_by_name(tmp_path):
    loop = keras.layers.ConvLSTM1D(2, 3, name="clouds")
    model = keras.Sequential([keras.Input((4, 6, 1)), loop, keras.layers.Flatten(), keras.layers.Dense(2)])
    message = "must be free of loops that cannot be unrolled for this kind, but 'clouds' is one. Received: model="
    with pytest.raises(InputError, match=re.escape(message)):
        to_tflite(model, tmp_path / "m.tflite", "int8", np.random.default_rng(0).normal(size=(100, 4, 6, 1)))


def test_whole_numbers_stay_whole(tmp_path):
    model = keras.Sequential(
        [keras.Input((4,), dtype="int32"), keras.layers.Embedding(9, 3), keras.layers.Flatten(), keras.layers.Dense(2)]
    )
    export = to_tflite(model, tmp_path / "m.tflite")
    assert export.input.dtype == "int32"
    assert export.verification.relative_error < 1e-5
    with pytest.raises(
        InputError, match="`model` must be a model whose inputs are real numbers for int16x8, not whole"
    ):
        to_tflite(model, tmp_path / "m.tflite", "int16x8", np.zeros((100, 4), int))
    with pytest.raises(InputError, match=r"LiteRTModel: the file stopped on a row \(gather index out of bounds"):
        LiteRTModel(export.path).predict(np.full((1, 4), 9))


def test_an_island_without_a_name_is_the_layers_that_reads_it(tmp_path):
    layers = [keras.layers.Embedding(9, 3, name="words"), keras.layers.SimpleRNN(2), keras.layers.Dense(2)]
    model = keras.Sequential([keras.Input((3,)), *layers])
    rows = np.random.default_rng(0).integers(0, 9, (120, 3))
    with pytest.raises(InputError, match="the int8 file computes in float32: in layer 'words'"):
        to_tflite(model, tmp_path / "m.tflite", "int8", rows)


def test_another_models_answers_are_refused(monkeypatch, model, images, tmp_path):
    """Planted fault: the converter is given other weights than the model has."""
    other = small_model(keras.layers.BatchNormalization(), keras.layers.Activation("relu"))
    other.set_weights([-3 * weight for weight in model.get_weights()])
    monkeypatch.setattr("keras_opt.export.converter._folded", lambda model: other)
    with pytest.raises(InputError, match="float32 file of model 'small' does not answer as Keras does: output"):
        to_tflite(model, tmp_path / "m.tflite")
    assert list(tmp_path.iterdir()) == []
