"""Random graphs as files of every kind: they answer as Keras does, or were refused; never wrong.

Two graphs by default, 200 with `--full`. What is compared are rows that `to_tflite` has not seen.
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
DEFAULT = (2, 10)


def pytest_generate_tests(metafunc):
    if "seed" in metafunc.fixturenames:
        metafunc.parametrize("seed", range(GRAPHS) if metafunc.config.getoption("full") else DEFAULT)


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


def test_verified_or_refused(seed, tmp_path):
    model = random_model(seed)
    shown, fresh = random_inputs(model, 100, seed=1), random_inputs(model, 20, seed=2)
    expected = keras.tree.flatten(model(fresh if len(fresh) > 1 else fresh[0], training=False))
    written = 0
    for kind, tolerance in TOLERANCE.items():
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
            assert error < tolerance, kind
    assert written or seed not in DEFAULT
