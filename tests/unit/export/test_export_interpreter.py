"""LiteRTModel against the interpreter used by hand, and what it refuses."""

import re

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from export_models import CLASS_NAMES

from keras_opt.core.errors import InputError
from keras_opt.export import LiteRTModel
from keras_opt.export.interpreter import dequantize, quantize


def test_int8_file_is_fed_and_read_as_by_hand(exports, images):
    interpreter = Interpreter(str(exports["int8"].path))
    interpreter.allocate_tensors()
    expected = []
    for image in images[:20]:
        interpreter.set_tensor(
            interpreter.get_input_details()[0]["index"], (image.astype(int) - 128).astype(np.int8)[np.newaxis]
        )
        interpreter.invoke()
        output = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0]
        expected.append((output.astype(float) + 128) / 256)
    actual = LiteRTModel(exports["int8"].path).predict(images[:20])
    np.testing.assert_array_equal(actual, expected)
    assert actual.dtype == np.float32


@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_uint8_and_float_images_give_the_same_answers(kind, exports, images):
    model = LiteRTModel(exports[kind].path, threads=2)
    np.testing.assert_array_equal(model.predict(images[:5]), model.predict(images[:5].astype(np.float64)))


def test_it_knows_its_shape_and_names(exports):
    model = LiteRTModel(exports["float16"].path)
    assert (model.input.shape, model.class_names) == ((1, 12, 12, 3), CLASS_NAMES)


def test_quantizing_rounds_and_clips():
    real = np.array([-200.0, -0.26, 0.24, 0.26, 200.0])
    np.testing.assert_array_equal(quantize(real, np.int8, 0.5, 3), [-128, 2, 3, 4, 127])
    np.testing.assert_array_equal(quantize(real, np.uint8, 0.5, 3), [0, 2, 3, 4, 255])
    np.testing.assert_array_equal(quantize(real, np.float32, 0.0, 0), real.astype(np.float32))


def test_dequantizing_undoes_quantizing():
    stored = np.arange(-128, 128).astype(np.int8)
    np.testing.assert_array_equal(quantize(dequantize(stored, 0.25, -7), np.int8, 0.25, -7), stored)


@pytest.mark.parametrize("shape", [(12, 12, 3), (1, 12, 12, 1), (0, 12, 12, 3)])
def test_rows_of_another_shape(shape, exports):
    message = (
        f"LiteRTModel: argument `x` must be an array of shape (rows, 12, 12, 3), rows >= 1. Received: x={shape}. "
        "Resize the images and give them a channel axis."
    )
    with pytest.raises(InputError, match=re.escape(message)):
        LiteRTModel(exports["int8"].path).predict(np.zeros(shape))


def test_missing_file(tmp_path):
    path = tmp_path / "no.tflite"
    message = f"LiteRTModel: there is no file {path}. Give the path of a .tflite file."
    with pytest.raises(InputError, match=re.escape(message)):
        LiteRTModel(path)


@pytest.mark.parametrize("content", [b"", b"not a model", None])
def test_file_that_is_no_model(content, exports, tmp_path):
    """`None`: the first half of a good file."""
    path = tmp_path / "damaged.tflite"
    whole = exports["float32"].path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if content is None else content)
    message = r"LiteRTModel: .*damaged\.tflite is no \.tflite file that LiteRT can run \(.+\)\. Export it again with"
    with pytest.raises(InputError, match=message):
        LiteRTModel(path)


@pytest.mark.parametrize(
    ("kernels", "resolver"),
    [("reference", "BUILTIN_REF"), ("builtin", "BUILTIN_WITHOUT_DEFAULT_DELEGATES"), ("default", "AUTO")],
)
def test_the_kernels_are_those_asked_for(kernels, resolver, exports, images):
    path = exports["int8"].path
    by_hand = Interpreter(str(path), experimental_op_resolver_type=OpResolverType[resolver])
    by_hand.allocate_tensors()
    file = LiteRTModel(path, kernels=kernels)
    for image in images[:5]:
        by_hand.set_tensor(by_hand.get_input_details()[0]["index"], file.input.stored(image[np.newaxis]))
        by_hand.invoke()
        stored = by_hand.get_tensor(by_hand.get_output_details()[0]["index"])
        np.testing.assert_array_equal(file.output.stored(file.predict(image[np.newaxis])), stored)
    # Those of the default are a delegate's: one operator in place of all.
    assert [detail["op_name"] for detail in file._interpreter._get_ops_details()] == [
        detail["op_name"] for detail in by_hand._get_ops_details()
    ]


def test_kernels_that_there_are_not(exports):
    with pytest.raises(InputError, match="`kernels` must be one of 'default', 'builtin', 'reference'"):
        LiteRTModel(exports["int8"].path, kernels="xnnpack")


def test_no_threads(exports):
    with pytest.raises(InputError, match="`threads` must be an integer of at least 1"):
        LiteRTModel(exports["int8"].path, threads=0)


def test_loading_is_silent(exports, capfd):
    LiteRTModel(exports["int8"].path)
    assert capfd.readouterr() == ("", "")
