"""What an exported file must show before anybody gets it."""

import math
import os
from pathlib import Path

from keras_opt.core.errors import InputError
from keras_opt.export.interpreter import LiteRTModel
from keras_opt.export.model_file import names, schema, unpack

VARIABLE_OPERATORS = {"VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE"}


def check_file(path: str | os.PathLike, quantize: str) -> LiteRTModel:
    """Return the .tflite file at `path`, run once, or raise what is wrong with it.

    Raises:
        InputError: The file reads variables instead of holding its weights; LiteRT cannot run it; an int8 file
            computes in float somewhere; quantizing narrowed none of its weights.
    """
    tree = unpack(Path(path).read_bytes())
    operators, types = names(schema().BuiltinOperator), names(schema().TensorType)
    _check_no_variables(tree, operators)
    if quantize == "int8":
        _check_no_float(tree, operators, types)
    if quantize != "float32":
        _check_narrowed(tree, types, quantize)
    model = LiteRTModel(path)
    model.invoke()
    return model


def _check_no_variables(tree, operators):
    found = {operators[code.builtinCode] for code in tree.operatorCodes} & VARIABLE_OPERATORS
    if found:
        raise InputError(
            f"to_tflite: the converter wrote variable operations ({', '.join(sorted(found))}) instead of the weights, "
            "so the file would not hold the trained model. Build the model from layers whose weights do not change "
            "at inference."
        )


def _check_no_float(tree, operators, types):
    islands = []
    for graph in tree.subgraphs:
        floats = {index for index, tensor in enumerate(graph.tensors) if types[tensor.type].startswith("FLOAT")}
        for operator in graph.operators:
            name = operators[tree.operatorCodes[operator.opcodeIndex].builtinCode]
            if name != "DEQUANTIZE":  # what comes after it is the island
                islands += [f"{name} at {_name(graph, index)}" for index in operator.outputs if index in floats]
        if floats and not islands:
            islands = [_name(graph, index) for index in sorted(floats)]
    if islands:
        more = f" and {len(islands) - 3} more" if len(islands) > 3 else ""
        raise InputError(
            f"to_tflite: the int8 file computes in float32: {', '.join(islands[:3])}{more}. LiteRT has no int8 kernel "
            "there. Use another layer in that place (ReLU in place of ELU), or quantize='dynamic'."
        )


def _check_narrowed(tree, types, quantize):
    """Weights must take fewer bytes than as float32: the converter leaves small kernels as they are, unasked."""
    stored = as_float = 0
    for graph in tree.subgraphs:
        for tensor in graph.tensors:
            data = tree.buffers[tensor.buffer].data
            if data is not None and types[tensor.type] in ("FLOAT32", "FLOAT16", "INT8", "INT4"):
                stored += len(data)
                as_float += 4 * math.prod([] if tensor.shape is None else tensor.shape.tolist())
    if stored >= as_float:
        raise InputError(
            f"to_tflite: quantize={quantize!r} narrowed none of the {as_float:,} bytes of weights (the converter "
            "leaves kernels of fewer than 1,024 values in float32). Use quantize='float32', 'float16' or 'int8'."
        )


def _name(graph, index):
    return repr(graph.tensors[index].name.decode())
