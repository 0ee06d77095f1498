"""The inputs and outputs of a .tflite file: what it says of them, and the values that go in and come out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_opt.core.errors import argument_error
from keras_opt.export.model_file import names, schema


@dataclass(frozen=True)
class FileTensor:
    """One input or output.

    Args:
        name: Its name in the file.
        shape: Its shape, batch first.
        dtype: What the file stores: "float32", "int8", "uint8", "int16", ...
        scale: `real = scale * (stored - zero_point)`; 0.0 where nothing is quantized.
        zero_point: As above.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float
    zero_point: int

    def stored(self, real: np.ndarray) -> np.ndarray:
        """Real values as the file stores them."""
        return quantize(real, np.dtype(self.dtype).type, self.scale, self.zero_point)

    def real(self, stored: np.ndarray) -> np.ndarray:
        """What stored values stand for, float32."""
        return dequantize(stored, self.scale, self.zero_point)


def inputs_and_outputs(tree: Any) -> tuple[tuple[FileTensor, ...], tuple[FileTensor, ...]]:
    """Return the inputs and the outputs of an unpacked file, in its order."""
    graph = tree.subgraphs[0]
    types = names(schema().TensorType)
    inputs, outputs = (
        tuple(_file_tensor(graph.tensors[index], types) for index in indices)
        for indices in (graph.inputs, graph.outputs)
    )
    return inputs, outputs


def rows_by_input(
    owner: str,
    x: np.ndarray | Sequence[np.ndarray] | Mapping[str, np.ndarray],
    inputs: Sequence[FileTensor],
    name: str = "x",
) -> list[np.ndarray]:
    """Return an array of rows for each input, in the file's order.

    Args:
        owner: The public name that received `x`.
        x: Raw inputs, (rows, *input shape). For several inputs a list of such arrays in their order, or a dict of them
            by name.
        inputs: Those of the file.
        name: The argument that it came as.

    Raises:
        InputError: Names, shapes or numbers of rows do not fit.
    """
    names_of_inputs = [tensor.name for tensor in inputs]
    listed = ", ".join(map(repr, names_of_inputs))
    if isinstance(x, Mapping):
        if set(x) != set(names_of_inputs):
            must_be = f"a dict of arrays by the names {listed}"
            raise argument_error(owner, name, sorted(x), must_be, "Name each input once.")
        x = [x[name] for name in names_of_inputs]
    elif len(inputs) == 1:
        x = x if _is_list_of_one(x, inputs[0]) else [x]
    elif not isinstance(x, list | tuple) or len(x) != len(inputs):
        must_be = f"a list or dict of {len(inputs)} arrays, for {listed}"
        raise argument_error(owner, name, type(x).__name__, must_be, "Give an array for each input.")
    columns = [np.asarray(column) for column in x]
    for column, tensor in zip(columns, inputs, strict=True):
        if column.shape[1:] != tensor.shape[1:] or len(column) == 0 or len(column) != len(columns[0]):
            shape = ", ".join(str(size) for size in tensor.shape[1:])
            must_be = f"an array of shape (rows, {shape}), rows >= 1"
            if len(inputs) > 1:
                must_be += f", for {tensor.name!r}, as many rows as the others"
            cure = "Resize the images and give them a channel axis."
            raise argument_error(owner, name, column.shape, must_be, cure)
    return columns


def _is_list_of_one(x, tensor):
    """Whether `x` is the array of rows in a list, which Keras takes for one input too."""
    return isinstance(x, list | tuple) and len(x) == 1 and np.shape(x[0])[1:] == tensor.shape[1:]


def given_as(
    x: Any, answers: Sequence[np.ndarray], outputs: Sequence[FileTensor]
) -> np.ndarray | list[np.ndarray] | dict[str, np.ndarray]:
    """The answers of a file in the form that Keras gives them: one array, or several as `x` was several.

    Returns:
        An array for one output; a dict by name where `x` is a dict; else a list in the file's order.
    """
    if len(outputs) == 1:
        return answers[0]
    if isinstance(x, Mapping):
        return dict(zip((tensor.name for tensor in outputs), answers, strict=True))
    return list(answers)


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


def _file_tensor(tensor, types):
    quantization = tensor.quantization
    quantized = quantization is not None and quantization.scale is not None and len(quantization.scale) == 1
    return FileTensor(
        name=tensor.name.decode(),
        shape=tuple(int(size) for size in tensor.shape),
        dtype=types[tensor.type].lower(),
        scale=float(quantization.scale[0]) if quantized else 0.0,
        zero_point=int(quantization.zeroPoint[0]) if quantized else 0,
    )
