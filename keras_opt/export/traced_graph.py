"""A .tflite graph of which every tensor can be read."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_opt.core.optional import require
from keras_opt.core.quiet import captured_output
from keras_opt.export.interpreter import dequantize
from keras_opt.export.model_file import pack


class TracedGraph:
    """Runs an unpacked .tflite file with LiteRT's own kernels, whose results at each operator stay readable.

    Args:
        tree: The file.
    """

    def __init__(self, tree: Any):
        litert = require("ai_edge_litert.interpreter")
        with captured_output():
            self._interpreter = litert.Interpreter(
                model_content=pack(tree),
                experimental_preserve_all_tensors=True,
                experimental_op_resolver_type=litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            )
            self._interpreter.allocate_tensors()
        self._inputs = [int(index) for index in tree.subgraphs[0].inputs]
        details = {detail["index"]: detail for detail in self._interpreter.get_tensor_details()}
        self._quantization = {index: detail["quantization"] for index, detail in details.items()}
        self._types = {index: details[index]["dtype"] for index in self._inputs}

    def scale(self, tensor: int) -> float:
        """The size of one step of a tensor; 0.0 for a float one."""
        return self._quantization[tensor][0]

    def run(self, inputs: Sequence[np.ndarray], tensors: Sequence[int]) -> list[np.ndarray]:
        """Return the values of `tensors`, float32, for one example given as the graph stores it."""
        for index, value in zip(self._inputs, inputs, strict=True):
            self._interpreter.set_tensor(index, np.asarray(value, self._types[index]))
        self._interpreter.invoke()
        return [dequantize(self._interpreter.get_tensor(index), *self._quantization[index]) for index in tensors]
