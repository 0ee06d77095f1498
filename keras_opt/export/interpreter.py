"""A .tflite file run in LiteRT, the interpreter that devices have, one image at a time."""

import os
from pathlib import Path

import numpy as np

from keras_opt.core.errors import InputError, argument_error, check_at_least
from keras_opt.core.optional import require
from keras_opt.core.quiet import captured_output
from keras_opt.export.metadata import read_labels


class LiteRTModel:
    """Runs a .tflite file with one input and one output.

    Inputs are raw (pixels 0..255): they are quantized to the file's input type and outputs are brought back to
    float32, so that float and int8 files are used alike.

    Args:
        path: The .tflite file.
        threads: Threads that one call may use; 1, what a small device has, by default.

    Raises:
        InputError: There is no such file, or LiteRT cannot run it.
    """

    def __init__(self, path: str | os.PathLike, threads: int = 1):
        check_at_least("LiteRTModel", "threads", threads, 1)
        self.path = Path(path)
        self.class_names = _labels_of(self.path)
        self._interpreter = _load(self.path, threads)
        self._input = _only(self._interpreter.get_input_details(), self.path, "inputs")
        self._output = _only(self._interpreter.get_output_details(), self.path, "outputs")

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one batch, batch first."""
        return tuple(int(size) for size in self._input["shape"])

    @property
    def input_dtype(self) -> str:
        return np.dtype(self._input["dtype"]).name

    @property
    def output_dtype(self) -> str:
        return np.dtype(self._output["dtype"]).name

    @property
    def input_quantization(self) -> tuple[float, int]:
        """Scale and zero point: `real = scale * (stored - zero_point)`; a scale of 0 means no quantization."""
        return self._input["quantization"]

    @property
    def output_quantization(self) -> tuple[float, int]:
        """Scale and zero point of the output, as for the input."""
        return self._output["quantization"]

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Return one row of outputs, float32, for each row of raw inputs.

        Args:
            x: Raw inputs, (rows, *input_shape[1:]), of any number type.

        Raises:
            InputError: The rows have another shape than the file's input.
        """
        x = np.asarray(x)
        if x.shape[1:] != self.input_shape[1:] or len(x) == 0:
            shape = ", ".join(str(size) for size in self.input_shape[1:])
            cure = "Resize the images and give them a channel axis."
            raise argument_error("LiteRTModel", "x", x.shape, f"an array of shape (rows, {shape}), rows >= 1", cure)
        return np.stack([self._predict_row(row) for row in x])

    def invoke(self) -> None:
        """Run the file once more on the last row it was given (zeros before the first); for timing."""
        self._interpreter.invoke()

    def _predict_row(self, row):
        stored = quantize(row[np.newaxis], self._input["dtype"], *self.input_quantization)
        self._interpreter.set_tensor(self._input["index"], stored)
        self._interpreter.invoke()
        return dequantize(self._interpreter.get_tensor(self._output["index"])[0], *self.output_quantization)


def quantize(real: np.ndarray, dtype: type, scale: float, zero_point: int) -> np.ndarray:
    """Return `real` as the file stores it: `round(real / scale) + zero_point`, clipped to the range of `dtype`."""
    if np.issubdtype(dtype, np.integer) and scale:
        limits = np.iinfo(dtype)
        real = np.clip(np.round(real / scale) + zero_point, limits.min, limits.max)
    return np.asarray(real, dtype)


def dequantize(stored: np.ndarray, scale: float, zero_point: int) -> np.ndarray:
    """Return what a stored value stands for: `scale * (stored - zero_point)`, or itself where there is no scale."""
    if not scale:
        return stored.astype(np.float32)
    return (stored.astype(np.float32) - zero_point) * np.float32(scale)


def _labels_of(path):
    if not path.is_file():
        raise InputError(f"LiteRTModel: there is no file {path}. Give the path of a .tflite file.")
    return read_labels(path)


def _load(path, threads):
    litert = require("ai_edge_litert.interpreter")
    try:
        with captured_output():
            interpreter = litert.Interpreter(model_path=str(path), num_threads=threads)
            interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise InputError(
            f"LiteRTModel: {path} is no .tflite file that LiteRT can run ({_one_line(error)}). "
            "Export it again with keras_opt.export.to_tflite."
        ) from error
    return interpreter


def _one_line(error):
    return " ".join(str(error).split())


def _only(details, path, kind):
    if len(details) != 1:
        raise InputError(f"LiteRTModel: {path} has {len(details)} {kind}; it must have one input and one output.")
    return details[0]
