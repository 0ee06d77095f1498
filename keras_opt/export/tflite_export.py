"""What is known of an exported file."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_opt.export.file_tensors import FileTensor
from keras_opt.export.interpreter import only
from keras_opt.export.verification import Verification


@dataclass(frozen=True)
class TFLiteExport:
    """An exported file and what a program that runs it must know.

    A quantized tensor stores `round(x / scale) + zero_point`, clipped to the range of its type; a stored `q` stands
    for `scale * (q - zero_point)`. In float tensors the scale and the zero point are 0. Printing it shows both
    formulas with their numbers, for C and for Python.

    Args:
        path: The file.
        quantize: Its kind.
        size_bytes: Its size.
        gzip_bytes: Its size after gzip, which is what a download takes.
        inputs: Name, shape, type, scale and zero point of each input, in order.
        outputs: The same of each output.
        class_names: Those in the file; empty where it has none.
        tensor_types: How many tensors are of each type: `{"INT8": 12, "INT32": 4}` for an int8 file.
        verification: How close its answers were to Keras's before it was handed out.
    """

    path: Path
    quantize: str
    size_bytes: int
    gzip_bytes: int
    inputs: tuple[FileTensor, ...]
    outputs: tuple[FileTensor, ...]
    class_names: tuple[str, ...]
    tensor_types: dict[str, int]
    verification: Verification

    @property
    def input(self) -> FileTensor:
        """The only input."""
        return only(self.inputs, "inputs")

    @property
    def output(self) -> FileTensor:
        """The only output."""
        return only(self.outputs, "outputs")

    def __str__(self) -> str:
        lines = [f"{self.path}: {self.quantize}, {self.size_bytes:,} bytes, {self.gzip_bytes:,} with gzip"]
        names = f"{len(self.class_names)} class names"
        if len(self.inputs) == len(self.outputs) == 1:
            (takes,), (gives,) = self.inputs, self.outputs
            lines.append(f"input {_sizes(takes)} {_stored(takes)}, output {_stored(gives)}, {names}")
        else:
            for kind, tensors in (("input", self.inputs), ("output", self.outputs)):
                lines += [f"{kind} {tensor.name}: {_sizes(tensor)} {_stored(tensor)}" for tensor in tensors]
            lines.append(names)
        return "\n".join(lines + _conversions(self.inputs, self.outputs))


def _sizes(tensor):
    return " x ".join(map(str, tensor.shape))


def _stored(tensor):
    if tensor.scale == 0:
        return tensor.dtype
    return f"{tensor.dtype} (scale {tensor.scale:.4g}, zero point {tensor.zero_point})"


def _conversions(inputs, outputs):
    """How real numbers become stored ones and back, in C and in Python: for one input and one output by number."""
    takes, gives = (next((tensor for tensor in tensors if tensor.scale), None) for tensors in (inputs, outputs))
    c, python = [], []
    if takes is not None:
        scale, shift = _numbers(takes, len(inputs) == 1, "+")
        low, high = (np.iinfo(takes.dtype).min, np.iinfo(takes.dtype).max)
        c.append(f"q = fminf(fmaxf(rintf(x / {scale}f) {shift}, {low}), {high});")
        python.append(f"q = np.clip(np.round(x / {scale}) {shift}, {low}, {high})")
    if gives is not None:
        scale, shift = _numbers(gives, len(outputs) == 1, "-")
        c.append(f"y = {scale}f * (q {shift});")
        python.append(f"y = {scale} * (q {shift})")
    return [f"C:      {'  '.join(c)}", f"Python: {';  '.join(python)}"] if c else []


def _numbers(tensor, alone, sign):
    """The scale, and the zero point behind its sign."""
    if not alone:
        return "scale", f"{sign} zero_point"
    zero_point = tensor.zero_point if sign == "+" else -tensor.zero_point
    scale = f"{tensor.scale:.9g}"  # nine digits give the float32 back
    return scale if {*scale} & {*".e"} else f"{scale}.0", f"{'-' if zero_point < 0 else '+'} {abs(zero_point)}"
