"""Random graphs as files of every kind: they answer as Keras does, or were refused; never wrong.

Two graphs by default, of three kinds each; 200 of all kinds with `--full`. What is compared are rows that `to_tflite`
has not seen.
"""

import keras
import numpy as np
from ai_edge_litert.interpreter import Interpreter
from random_graphs import random_inputs, random_model

from keras_opt.core.errors import InputError
from keras_opt.export import to_tflite
from keras_opt.export.interpreter import dequantize, quantize

# The largest ||file - Keras|| / ||Keras||: what rounding may do, far below what a wrong graph does.
TOLERANCE = {"float32": 1e-4, "float16": 2e-2, "dynamic": 0.2, "int8": 0.5, "int16x8": 0.5, "int4": 0.8}
GRAPHS = 200
DEFAULT = {2: ("float32", "int8", "int4"), 10: ("float16", "dynamic", "int16x8")}


def pytest_generate_tests(metafunc):
    rows = DEFAULT.items()
    if metafunc.config.getoption("full"):
        rows = [(seed, tuple(TOLERANCE)) for seed in range(GRAPHS)]
    metafunc.parametrize(("seed", "kinds"), rows)


def answers(path, columns):
    """The file run by hand, row by row."""
    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    rows = []
    for row in zip(*columns, strict=True):
        for values, details in zip(row, interpreter.get_input_details(), strict=True):
            stored = quantize(values[np.newaxis], details["dtype"], *details["quantization"])
            interpreter.set_tensor(details["index"], stored)
        interpreter.invoke()
        rows.append(
            [
                dequantize(interpreter.get_tensor(details["index"])[0], *details["quantization"])
                for details in interpreter.get_output_details()
            ]
        )
    return [np.stack(output) for output in zip(*rows, strict=True)]


def test_verified_or_refused(seed, kinds, tmp_path):
    model = random_model(seed)
    shown, fresh = random_inputs(model, 100, seed=1), random_inputs(model, 20, seed=2)
    expected = keras.tree.flatten(model(fresh if len(fresh) > 1 else fresh[0], training=False))
    written = 0
    for kind in kinds:
        path = tmp_path / f"{kind}.tflite"
        try:
            export = to_tflite(model, path, kind, shown)
        except InputError:
            assert list(tmp_path.glob(f"*{kind}*")) == []
            continue
        written += 1
        names = [tensor.name for tensor in export.inputs]
        assert len(model.inputs) == 1 or names == [tensor.name for tensor in model.inputs]
        for ours, theirs in zip(answers(path, fresh), expected, strict=True):
            error = np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)
            assert error < TOLERANCE[kind], kind
    assert written or seed not in DEFAULT
