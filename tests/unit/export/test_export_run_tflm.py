"""`run_tflm`: outputs, the arena to the byte, operators, and what cannot run."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from full_rows import full

from keras_opt.core.errors import InputError
from keras_opt.export import LiteRTModel, run_tflm, to_tflite
from keras_opt.export.file_tensors import inputs_and_outputs
from keras_opt.export.model_file import unpack


def test_outputs_are_those_of_litert(exports, images):
    for kind, steps in (("int8", 1 / 256), ("int16x8", 0.01), ("float32", 1e-6)):
        run = run_tflm(exports[kind].path, images[:20])
        assert run.outputs.dtype == np.float32
        np.testing.assert_allclose(run.outputs, LiteRTModel(exports[kind].path).predict(images[:20]), atol=1.01 * steps)
    backwards = run_tflm(exports["float32"].path, images[19::-1])
    np.testing.assert_array_equal(backwards.outputs, run.outputs[::-1])  # rows do not see one another


@pytest.mark.full
def test_four_bit_weights_are_refused(model, images, tmp_path):
    path = to_tflite(model, tmp_path / "int4.tflite", "int4", images).path
    with pytest.raises(InputError, match=r"TFLite Micro cannot run .*int4\.tflite: "):
        run_tflm(path, images[:1])


def test_what_it_tells(exports):
    run = run_tflm(exports["int8"].path)
    assert run.outputs.shape == (1, 3)  # of a row of zeros
    assert run.operators == ("CONV_2D", "RESHAPE", "FULLY_CONNECTED", "SOFTMAX")
    assert run.path == exports["int8"].path
    assert str(run).startswith(f"int8.tflite: runs in TFLite Micro with an arena of {run.arena_bytes:,} bytes; 4 oper")


FITS = """
import sys
from tflite_micro import runtime
runtime.Interpreter.from_file(sys.argv[1], arena_size=int(sys.argv[2])).invoke()
"""


def fits(path, arena_bytes):
    command = [sys.executable, "-c", FITS, str(path), str(arena_bytes)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.full
@pytest.mark.parametrize("kind", ["int8", "float32"])
def test_the_arena_is_the_smallest(kind, exports, images):
    arena = run_tflm(exports[kind].path, images[:1]).arena_bytes
    assert arena % 16 == 0
    assert fits(exports[kind].path, arena)
    assert not fits(exports[kind].path, arena - 16)


def test_the_arena_where_planning_needs_more_than_the_tensors(tmp_path):
    """What TFLite Micro reports as used is then too small."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((12, 3)), keras.layers.LSTM(6), keras.layers.Dense(2)])
    path = to_tflite(model, tmp_path / "lstm.tflite").path
    x = np.random.default_rng(0).normal(size=(5, 12, 3))
    run = run_tflm(path, x)
    assert fits(path, run.arena_bytes)
    assert not fits(path, run.arena_bytes - 16)
    np.testing.assert_allclose(run.outputs, model.predict(x, verbose=0), atol=1e-6)


@pytest.mark.parametrize("units", [8, full(640)])
def test_an_arena_in_which_the_interpreter_would_crash(units, tmp_path):
    """In one a little too small for this layer TFLite Micro 0.dev20261023 does not refuse but dies."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((16,)), keras.layers.Dense(units, bias_initializer="ones")])
    x = np.random.default_rng(0).normal(size=(100, 16)).astype("float32")
    path = to_tflite(model, tmp_path / "model.tflite", "int8", x).path
    arena = run_tflm(path, x[:1]).arena_bytes
    assert fits(path, arena)
    assert not fits(path, arena - 16)


def test_several_inputs_and_outputs(tmp_path):
    keras.utils.set_random_seed(0)
    left, right = keras.Input((4,), name="left"), keras.Input((3,), name="right")
    joined = keras.layers.Concatenate()([left, right])
    outputs = [keras.layers.Dense(2, name="two")(joined), keras.layers.Dense(5, name="five")(joined)]
    model = keras.Model([left, right], outputs)
    path = to_tflite(model, tmp_path / "model.tflite").path
    rng = np.random.default_rng(0)
    x = [rng.normal(size=(6, 4)).astype("float32"), rng.normal(size=(6, 3)).astype("float32")]
    by_name = run_tflm(path, {"right": x[1], "left": x[0]}).outputs
    assert list(by_name) == ["two", "five"]
    for ours, wanted in zip(by_name.values(), model.predict_on_batch(x), strict=True):
        np.testing.assert_allclose(ours, wanted, atol=1e-6)


class Tiled(keras.layers.Layer):
    def call(self, x):
        return keras.ops.tile(x, (1, 2)) ** 3


def test_an_operator_that_it_lacks_is_named(tmp_path):
    path = to_tflite(keras.Sequential([keras.Input((4,)), Tiled()]), tmp_path / "model.tflite").path
    with pytest.raises(InputError, match=r"run_tflm: .*model\.tflite has operators that TFLite Micro lacks: TILE, POW"):
        run_tflm(path, np.zeros((1, 4)))


@pytest.mark.parametrize(("kind", "reason"), [("float16", "DEQUANTIZE"), ("dynamic", "Hybrid|filter type: INT8")])
def test_a_kind_that_it_does_not_run_says_why(kind, reason, exports, images):
    with pytest.raises(InputError, match=rf"TFLite Micro cannot run .*{kind}\.tflite: .*({reason}).*quantize='int8'"):
        run_tflm(exports[kind].path, images[:1])


def test_a_crash_of_the_interpreter_is_an_error(tmp_path):
    """TFLite Micro aborts its process on a softmax whose input has steps of 1e-10."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, "softmax", kernel_initializer="zeros")])
    model.layers[0].kernel.assign(np.full((4, 2), 1e-9, "float32"))
    x = np.random.default_rng(0).normal(size=(200, 4)).astype("float32")
    path = to_tflite(model, tmp_path / "model.tflite", "int8", x).path
    with pytest.raises(InputError, match=r"cannot run .*model\.tflite: its interpreter crashed \(SIGABRT\)"):
        run_tflm(path, x[:1])


def test_what_does_not_fit(exports, tmp_path):
    with pytest.raises(InputError, match=r"run_tflm: argument `x` must be an array of shape \(rows, 12, 12, 3\)"):
        run_tflm(exports["int8"].path, np.zeros((2, 12, 12)))
    with pytest.raises(InputError, match="run_tflm: there is no file"):
        run_tflm(tmp_path / "none.tflite", np.zeros((1, 4)))
    (tmp_path / "text.tflite").write_text("no model")
    with pytest.raises(InputError, match=r"This is no \.tflite file"):
        run_tflm(tmp_path / "text.tflite", np.zeros((1, 4)))


def test_the_flatbuffer_tells_what_litert_tells(exports):
    for kind, export in exports.items():
        file, tree = LiteRTModel(export.path), unpack(export.path.read_bytes())
        assert (file.inputs, file.outputs) == inputs_and_outputs(tree), kind
