"""What an exported file must show before anybody gets it."""

import collections
import math
import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from keras_opt.core.errors import InputError
from keras_opt.export.converter import INTEGER_KINDS
from keras_opt.export.interpreter import LiteRTModel
from keras_opt.export.model_file import names, schema, unpack
from keras_opt.export.verification import Verification

VARIABLE_OPERATORS = {"VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE"}
KERNEL_TYPES = ("FLOAT32", "FLOAT16", "INT8", "INT4")

LARGEST_SHARE = {  # of the bytes that the kernels take as float32; 1 stands for anything less than all
    "float16": 0.75,
    "dynamic": 1.0,
    "int8": 0.5,
    "int16x8": 0.5,
    "int4": 0.25,
}
LARGEST_RELATIVE_ERROR = {  # the other kinds may be as far from Keras as zeros are
    "float32": 1e-2,
    "float16": 0.1,
    "int16x8": 0.5,
}


def check_file(path: str | os.PathLike, quantize: str, layers: Collection[str] = ()) -> LiteRTModel:
    """Return the .tflite file at `path`, ready to run, or raise what is wrong with it.

    Args:
        path: The file.
        quantize: The kind that it must be of.
        layers: The names of the model's layers, one of which an error then names.

    Raises:
        InputError: The file reads variables instead of holding its weights; LiteRT cannot load it; a file that computes
            in integers computes in float somewhere; quantizing made its kernels no smaller than it must.
    """
    tree = unpack(Path(path).read_bytes())
    operators, types = names(schema().BuiltinOperator), names(schema().TensorType)
    _check_no_variables(tree, operators)
    if quantize in INTEGER_KINDS:
        _check_all_read(tree, quantize)
        _check_no_float(tree, operators, types, quantize, layers)
    if quantize != "float32":
        _check_narrowed(tree, types, quantize)
    return LiteRTModel(path)


def tensor_types(path: str | os.PathLike) -> dict[str, int]:
    """How many tensors of the .tflite file at `path` are of each type, the most frequent first."""
    tree, types = unpack(Path(path).read_bytes()), names(schema().TensorType)
    counts = collections.Counter(types[tensor.type] for graph in tree.subgraphs for tensor in graph.tensors)
    return dict(counts.most_common())


def check_answers(verification: Verification, quantize: str, model_name: str) -> None:
    """Raise where the file's answers are not the model's: not where it is merely coarse, but where it is wrong.

    Raises:
        InputError: An output is not finite, or farther from Keras's than `LARGEST_RELATIVE_ERROR` (for the kinds that
            it does not name: than zeros would be) and by more than two steps of the output.
    """
    largest = LARGEST_RELATIVE_ERROR.get(quantize, 1.0)
    for each, lsb in zip(verification.outputs, verification.lsb, strict=True):
        if each.relative_error < largest or each.max_error <= 2 * (lsb or 1e-6):  # NaN passes neither
            continue
        raise InputError(
            f"to_tflite: the {quantize} file of model {model_name!r} does not answer as Keras does: output "
            f"{each.output!r} has a relative error of {each.relative_error:.2g} (largest difference "
            f"{each.max_error:.3g}) on {verification.rows} rows. Give representative_data that shows the full range of "
            "raw inputs, or use quantize='float16'."
        )


def _check_no_variables(tree, operators):
    found = {operators[code.builtinCode] for code in tree.operatorCodes} & VARIABLE_OPERATORS
    if found:
        raise InputError(
            f"to_tflite: the converter wrote variable operations ({', '.join(sorted(found))}) instead of the weights, "
            "so the file would not hold the trained model. Build the model from layers whose weights do not change "
            "at inference."
        )


def _check_all_read(tree, quantize):
    """An input that nothing reads has no range, and stays in float32."""
    graph = tree.subgraphs[0]
    read = {int(index) for operator in graph.operators for index in operator.inputs}
    for index in graph.inputs:
        if int(index) not in read:
            raise InputError(
                f"to_tflite: no layer reads input {graph.tensors[index].name.decode()!r}, so that a file of kind "
                f"{quantize!r} has no type for it. Take it out of the model."
            )


def _check_no_float(tree, operators, types, quantize, layers):
    """Float may stand at the very ends, where the caller asked for it: QUANTIZE behind an input, DEQUANTIZE last."""
    islands = []
    for position, graph in enumerate(tree.subgraphs):
        floats = {index for index, tensor in enumerate(graph.tensors) if types[tensor.type].startswith("FLOAT")}
        ends = {*graph.inputs, *graph.outputs} if position == 0 else set()
        computed = False
        for operator in graph.operators:
            name = operators[tree.operatorCodes[operator.opcodeIndex].builtinCode]
            if name == "DEQUANTIZE":  # what comes after it is the island
                continue
            for index in floats & set(operator.outputs.tolist()):
                computed = True
                islands.append(f"{name} {_place(graph, index, layers)}")
        if not computed:
            islands += [_place(graph, index, layers) for index in sorted(floats - ends)]
    if islands:
        more = f" and {len(islands) - 3} more" if len(islands) > 3 else ""
        raise InputError(
            f"to_tflite: the {quantize} file computes in float32: {', '.join(islands[:3])}{more}. LiteRT has no "
            "integer kernel there. Use another layer in that place (ReLU in place of ELU), give token ids an input of "
            "dtype 'int32' and pixels one of 'float32', or use quantize='dynamic'."
        )


def _place(graph, index, layers):
    """The layer that a tensor comes from, and the tensor: "in layer 'head' ('net/head_1/Elu')".

    One without a name of a layer (a constant, or what a conversion gives) is of the layer that reads it first.
    """
    name = graph.tensors[index].name.decode()
    reached, found = [index], []
    for each in reached:
        found = _layers_in(graph.tensors[each].name.decode(), layers)
        if found:
            return f"in layer {found[-1]!r} ({name!r})"
        behind = [int(output) for step in graph.operators if each in step.inputs for output in step.outputs]
        reached += [output for output in behind if output not in reached]
    return f"at {name!r}"


def _layers_in(name, layers):
    segments = [part for path in name.split(";") for part in path.split("/")]
    return [each for part in segments for each in (part, re.sub(r"_\d+$", "", part)) if each in layers]


def _check_narrowed(tree, types, quantize):
    """Kernels must take fewer bytes than as float32: what the converter cannot narrow it leaves, unasked."""
    stored = as_float = 0
    for graph in tree.subgraphs:
        for tensor in graph.tensors:
            data, shape = tree.buffers[tensor.buffer].data, _shape(tensor)
            if data is not None and types[tensor.type] in KERNEL_TYPES and np.count_nonzero(np.array(shape) > 1) > 1:
                stored += len(data)
                as_float += 4 * math.prod(shape)
    share = LARGEST_SHARE[quantize]
    if stored > share * as_float or stored == as_float > 0:
        narrowed = "none" if stored == as_float else f"not enough ({stored:,} are left)"
        raise InputError(
            f"to_tflite: quantize={quantize!r} narrowed {narrowed} of the {as_float:,} bytes of weights (small kernels "
            "are left in float32, and layers without such a form). Use quantize='float32', 'float16' or 'int8'."
        )


def _shape(tensor: Any) -> list[int]:
    return [] if tensor.shape is None else tensor.shape.tolist()
