"""The flatbuffer of a .tflite file, taken apart and put together again."""

import itertools
from typing import Any

import flatbuffers
import numpy as np

from keras_opt.core.errors import InputError
from keras_opt.core.optional import require

IDENTIFIER = b"TFL3"
BUFFER_ALIGNMENT = 16  # `force_align: 16` of Buffer.data in TFLite's schema.fbs


def schema() -> Any:
    """Return the module of classes generated from TFLite's schema."""
    return require("ai_edge_litert.schema_py_generated")


def unpack(file: bytes) -> Any:
    """Return the `ModelT` tree of a .tflite file.

    Raises:
        InputError: `file` does not begin as a .tflite file does.
    """
    if file[4:8] != IDENTIFIER:
        raise InputError("This is no .tflite file. Write one with keras_opt.export.to_tflite.")
    return schema().ModelT.InitFromPackedBuf(file)


def pack(tree: Any) -> bytes:
    """Return a `ModelT` tree as a .tflite file.

    Weights stand on 16-byte boundaries, as the schema asks; TensorFlow's own converter leaves them on 4.
    """
    builder = _AligningBuilder(1024)
    builder.Finish(tree.Pack(builder), IDENTIFIER)
    return bytes(builder.Output())


def shorten_names(tree: Any) -> None:
    """Name each tensor after the one operation that gives it; the names stay unique.

    The converter lists every operation fused into it ("Relu;add_1;convolution;sub"), which in a small int8 model with
    BatchNormalization makes 2% of the file.
    """
    for graph in tree.subgraphs:
        taken = set()
        for tensor in graph.tensors:
            tensor.name = _free_name(tensor.name.split(b";")[0], taken)
            taken.add(tensor.name)


def names(enumeration: type) -> dict[int, str]:
    """Return {number: name} of one of the schema's enumerations."""
    return {value: name for name, value in vars(enumeration).items() if isinstance(value, int)}


def _free_name(name, taken):
    if name not in taken:
        return name
    return next(numbered for n in itertools.count(1) if (numbered := b"%b_%d" % (name, n)) not in taken)


class _AligningBuilder(flatbuffers.Builder):
    def CreateNumpyVector(self, x):
        if x.dtype == np.uint8:  # the type of Buffer.data
            self.Prep(BUFFER_ALIGNMENT, x.nbytes)
        return super().CreateNumpyVector(x)
