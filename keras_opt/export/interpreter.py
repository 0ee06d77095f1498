"""A .tflite file run in LiteRT, the interpreter that devices have, one row at a time."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from keras_opt.core.errors import InputError, check_at_least, check_choice
from keras_opt.core.optional import require
from keras_opt.core.quiet import captured_output
from keras_opt.export.file_tensors import FileTensor, dequantize, given_as, quantize, rows_by_input
from keras_opt.export.metadata import read_labels

KERNELS = {"default": "AUTO", "builtin": "BUILTIN_WITHOUT_DEFAULT_DELEGATES", "reference": "BUILTIN_REF"}


class LiteRTModel:
    """Runs a .tflite file as its Keras model is run.

    Inputs are raw (pixels 0..255): they are quantized to the file's input type and outputs are brought back to
    float32, so that float and int8 files are used alike. Not for several threads at once: give each its own.

    Args:
        path: The .tflite file.
        threads: Threads that one call may use; 1, what a small device has, by default.
        kernels: Which of LiteRT's sets of kernels computes; they round differently, by a step an operator. "default",
            the fastest (XNNPACK where it serves); "builtin", LiteRT's own; "reference", the portable ones, slow, of
            which TFLite Micro has the convolutions.

    Raises:
        InputError: There is no such file, LiteRT cannot run it, or another argument does not fit.
    """

    def __init__(self, path: str | os.PathLike, threads: int = 1, kernels: str = "default"):
        check_at_least("LiteRTModel", "threads", threads, 1)
        check_choice("LiteRTModel", "kernels", kernels, KERNELS)
        self.path = Path(path)
        self.class_names = _labels_of(self.path)
        self._interpreter = _load(self.path, threads, kernels)
        self._input_details = self._interpreter.get_input_details()
        self._output_details = self._interpreter.get_output_details()

    @property
    def inputs(self) -> tuple[FileTensor, ...]:
        """What the file says of each input, in order."""
        return tuple(map(_file_tensor, self._input_details))

    @property
    def outputs(self) -> tuple[FileTensor, ...]:
        """What the file says of each output, in order."""
        return tuple(map(_file_tensor, self._output_details))

    @property
    def input(self) -> FileTensor:
        """The only input."""
        return only(self.inputs, "inputs")

    @property
    def output(self) -> FileTensor:
        """The only output."""
        return only(self.outputs, "outputs")

    def predict(
        self, x: np.ndarray | Sequence[np.ndarray] | Mapping[str, np.ndarray]
    ) -> np.ndarray | list[np.ndarray] | dict[str, np.ndarray]:
        """Return one row of outputs, float32, for each row of raw inputs.

        Args:
            x: Raw inputs, (rows, *input_shape[1:]), of any number type. For a file with several inputs a list of such
                arrays in their order, or a dict of them by name.

        Returns:
            An array. For a file with several outputs a list of arrays in their order; where `x` is a dict, a dict of
            arrays by name.

        Raises:
            InputError: The rows have another shape than the file's inputs, or values that an operator cannot take.
        """
        columns = rows_by_input("LiteRTModel", x, self.inputs)
        rows = [self._predict_row(row) for row in zip(*columns, strict=True)]
        outputs = [np.stack(parts) for parts in zip(*rows, strict=True)]
        return given_as(x, outputs, self.outputs)

    def invoke(self) -> None:
        """Run the file once more on the last row it was given (zeros before the first); for timing."""
        self._interpreter.invoke()

    def _predict_row(self, row):
        for values, details in zip(row, self._input_details, strict=True):
            stored = quantize(values[np.newaxis], details["dtype"], *details["quantization"])
            self._interpreter.set_tensor(details["index"], stored)
        try:
            self._interpreter.invoke()
        except RuntimeError as error:
            cure = "Give values that the model takes: token ids, for example, below the size of its vocabulary."
            raise InputError(f"LiteRTModel: the file stopped on a row ({_one_line(error)}). {cure}") from error
        return [
            dequantize(self._interpreter.get_tensor(details["index"])[0], *details["quantization"])
            for details in self._output_details
        ]


def only(tensors: Sequence[FileTensor], kind: str) -> FileTensor:
    """The one tensor of `tensors`; several are read from `inputs` and `outputs`."""
    if len(tensors) != 1:
        named = ", ".join(repr(tensor.name) for tensor in tensors)
        raise InputError(f"The file has {len(tensors)} {kind} ({named}). Read the property `{kind}`, one entry each.")
    return tensors[0]


def _labels_of(path):
    if not path.is_file():
        raise InputError(f"LiteRTModel: there is no file {path}. Give the path of a .tflite file.")
    return read_labels(path)


def _load(path, threads, kernels):
    litert = require("ai_edge_litert.interpreter")
    try:
        with captured_output():
            interpreter = litert.Interpreter(
                model_path=str(path),
                num_threads=threads,
                experimental_op_resolver_type=litert.OpResolverType[KERNELS[kernels]],
            )
            interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise InputError(
            f"LiteRTModel: {path} is no .tflite file that LiteRT can run ({_one_line(error)}). "
            "Export it again with keras_opt.export.to_tflite."
        ) from error
    return interpreter


def _one_line(error):
    return " ".join(str(error).split())


def _file_tensor(details):
    scale, zero_point = details["quantization"]
    shape = tuple(int(size) for size in details["shape"])
    return FileTensor(details["name"], shape, np.dtype(details["dtype"]).name, float(scale), int(zero_point))
