"""A .tflite file run in TFLite Micro, the interpreter of microcontrollers."""

import io
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_opt.core.errors import InputError, check_path
from keras_opt.core.optional import require
from keras_opt.export import tflm_child
from keras_opt.export.file_tensors import given_as, inputs_and_outputs, rows_by_input
from keras_opt.export.model_file import unpack
from keras_opt.export.tflm_operators import supported_operators


@dataclass(frozen=True)
class TFLMRun:
    """What TFLite Micro gave for a file.

    Args:
        path: The file.
        outputs: float32, one row an example. For a file with several outputs a list of such arrays in its order; a
            dict by name where `x` was a dict.
        arena_bytes: The smallest tensor arena, a multiple of 16, in which the file runs.
        operators: The operators that the file uses.
    """

    path: Path
    outputs: np.ndarray | list[np.ndarray] | dict[str, np.ndarray]
    arena_bytes: int
    operators: tuple[str, ...]

    def __str__(self) -> str:
        used = f"{len(self.operators)} operators: {', '.join(self.operators)}"
        return f"{self.path.name}: runs in TFLite Micro with an arena of {self.arena_bytes:,} bytes; {used}"


def run_tflm(
    path: str | os.PathLike, x: np.ndarray | Sequence[np.ndarray] | Mapping[str, np.ndarray] | None = None
) -> TFLMRun:
    """Run a .tflite file in the real TFLite Micro interpreter and measure the memory it needs.

    Use it before a file is flashed: it shows that TFLite Micro has every operator, what it answers, and how large its
    tensor arena must be. The answers are those of its portable kernels, which for int8 are LiteRT's own to one step
    of the output. LiteRT on a host rounds otherwise by default (XNNPACK): a step an operator, which a deep network may
    make several. Not for accuracy on thousands of rows: LiteRT is many times faster.

    The arena is that of a 64-bit host. A 32-bit device needs less for the interpreter's own records; kernels written
    for a processor (CMSIS-NN, ESP-NN) may ask for scratch memory on top. `arena_used_bytes()` on the device has the
    last word.

    Args:
        path: A .tflite file of `to_tflite`: "int8", "int16x8" or "float32". Of "dynamic", "float16" and "int4" files
            TFLite Micro runs none.
        x: Raw inputs, (rows, *input shape); for a file with several inputs a list of such arrays in their order, or a
            dict of them by name. They are quantized to the file's input type. One row of zeros by default, for the
            arena alone.

    Raises:
        InputError: There is no such file, TFLite Micro lacks one of its operators (all are named) or cannot run it,
            or `x` does not fit.
        ImportError: tflite-micro is not installed (Linux only): `pip install "keras_opt[micro]"`.

    Cost: a process of 0.3 s, and the run.

    Example:
        >>> import keras, numpy, tempfile
        >>> from keras_opt.export import to_tflite
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        >>> file = to_tflite(model, tempfile.mkdtemp() + "/model.tflite")
        >>> run = run_tflm(file.path, numpy.ones((3, 4)))
        >>> run.outputs.shape, run.operators
        ((3, 2), ('FULLY_CONNECTED',))
    """
    check_path("run_tflm", "path", path)
    require("tflite_micro", extra="micro")
    path = Path(path)
    if not path.is_file():
        raise InputError(f"run_tflm: there is no file {path}. Give the path of a .tflite file.")
    tree = unpack(path.read_bytes())
    operators = supported_operators("run_tflm", path, tree)
    inputs, outputs = inputs_and_outputs(tree)
    if x is None:
        x = [np.zeros(tensor.shape) for tensor in inputs]
    columns = rows_by_input("run_tflm", x, inputs)
    stored = [tensor.stored(column) for tensor, column in zip(inputs, columns, strict=True)]
    *answers, arena_bytes = _run(path, stored, len(outputs))
    real = [tensor.real(answer) for tensor, answer in zip(outputs, answers, strict=True)]
    return TFLMRun(path, given_as(x, real, outputs), int(arena_bytes), operators)


def _run(path, stored, outputs):
    """The rows of each output as the file stores them, and the bytes of the arena, from a process of its own."""
    given = io.BytesIO()
    np.savez(given, *stored)
    command = [sys.executable, "-P", tflm_child.__file__, str(path), str(outputs)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = subprocess.run(command, input=given.getvalue(), capture_output=True, env=environment, check=False)
    if process.returncode:
        reason = _reason(process.stderr.decode(errors="replace"), process.returncode)
        cure = "Export it with quantize='int8', 'int16x8' or 'float32'."
        raise InputError(f"run_tflm: TFLite Micro cannot run {path}: {reason}. {cure}")
    return np.load(io.BytesIO(process.stdout)).values()


def _reason(said, code):
    """What TFLite Micro said before it gave up: all that stands before Python's traceback."""
    lines = [line.strip().rstrip(".") for line in said.split("Traceback")[0].splitlines() if line.strip()]
    if code < 0:
        lines.append(f"its interpreter crashed ({signal.Signals(-code).name}), as it does where a range is all but 0")
    return "; ".join(dict.fromkeys(lines)) or said.strip().splitlines()[-1]
