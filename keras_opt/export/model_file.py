"""The flatbuffer of a .tflite file, taken apart and put together again."""

import itertools
from collections.abc import Sequence
from typing import Any

import flatbuffers
import numpy as np

from keras_opt.core.errors import InputError
from keras_opt.core.optional import require

IDENTIFIER = b"TFL3"
SIGNATURE = "serving_default"
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
    tree = schema().ModelT.InitFromPackedBuf(file)
    for buffer in tree.buffers:
        if buffer.offset > 1:  # what is too large for the flatbuffer stands behind it
            buffer.data = np.frombuffer(file, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0
    return tree


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


def name_ends(tree: Any, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Give the tensors of the first graph's inputs and outputs their names, and the file a signature of them.

    A tensor inside that has such a name gets another.

    Raises:
        InputError: Two of them are one tensor.
    """
    graph = tree.subgraphs[0]
    named = {}
    for index, name in (*zip(graph.inputs, inputs, strict=True), *zip(graph.outputs, outputs, strict=True)):
        if index in named:
            raise InputError(
                f"to_tflite: {named[index].decode()!r} and {name!r} are the same value, which a file cannot give two "
                "names. Take one of them out of the model's outputs."
            )
        named[index] = name.encode()
    taken = set(named.values())
    for index, tensor in enumerate(graph.tensors):
        tensor.name = named.get(index) or _free_name(tensor.name, taken)
        taken.add(tensor.name)
    signature = schema().SignatureDefT(signatureKey=SIGNATURE, subgraphIndex=0)
    signature.inputs, signature.outputs = (
        [schema().TensorMapT(name=name, tensorIndex=index) for index, name in zip(indices, given, strict=True)]
        for indices, given in ((graph.inputs, inputs), (graph.outputs, outputs))
    )
    tree.signatureDefs = [signature]


def names(enumeration: type) -> dict[int, str]:
    """Return {number: name} of one of the schema's enumerations."""
    return {value: name for name, value in vars(enumeration).items() if isinstance(value, int)}


def _free_name(name, taken):
    if name not in taken:
        return name
    return next(numbered for n in itertools.count(1) if (numbered := b"%b_%d" % (name, n)) not in taken)


class _AligningBuilder(flatbuffers.Builder):
    """Writes vectors that are alike once: the zero points of kernels by channel are 8 bytes of zeros for each."""

    def __init__(self, size):
        super().__init__(size)
        self._written = {}

    def CreateNumpyVector(self, x):
        content = x.dtype.str, x.tobytes()
        if content not in self._written:
            if x.dtype == np.uint8:  # the type of Buffer.data
                self.Prep(BUFFER_ALIGNMENT, x.nbytes)
            self._written[content] = super().CreateNumpyVector(x)
        return self._written[content]
