"""The graph of a .tflite file seen as the Keras layers that it came from."""

import copy
import re
from dataclasses import dataclass
from typing import Any

import keras

from keras_opt.core.all_layers import all_layers
from keras_opt.export.model_file import names, schema

WITH_KERNEL = {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"}  # their second input
CONVERSIONS = {"QUANTIZE", "DEQUANTIZE", "FAKE_QUANT"}  # of one value's form into another


@dataclass(frozen=True)
class Step:
    """One operator of a graph, in order.

    Args:
        operator: Its kind, "CONV_2D".
        inputs: Indices of the tensors that it reads.
        output: Index of the (first) tensor that it writes.
        shape: Shape of that tensor.
    """

    operator: str
    inputs: tuple[int, ...]
    output: int
    shape: tuple[int, ...]


def steps(tree: Any) -> list[Step]:
    """The operators of a file's graph, but those that only change a value's form."""
    graph, kinds = tree.subgraphs[0], names(schema().BuiltinOperator)
    found = []
    for operator in graph.operators:
        code = tree.operatorCodes[operator.opcodeIndex]
        kind = kinds[max(code.builtinCode, code.deprecatedBuiltinCode)]
        output = int(operator.outputs[0])
        if kind not in CONVERSIONS:
            shape = tuple(int(size) for size in graph.tensors[output].shape)
            found.append(Step(kind, tuple(int(index) for index in operator.inputs), output, shape))
    return found


def layers_of(tree: Any, model: keras.Model) -> list[str]:
    """The layer that each of the `steps` of `tree`, a file just made from `model`, belongs to.

    The converter names a tensor "model_1/layer_1/operation", the file's outputs apart. Where it fused layers, the one
    that brought the kernel gives its name.
    """
    graph = tree.subgraphs[0]
    known = {layer.name for layer in all_layers(model) if not isinstance(layer, keras.Model)}
    found = {}

    def named(index):
        parts = graph.tensors[index].name.decode().split(";")[0].split("/")
        names_in_model = (re.sub(r"_\d+$", "", part) for part in reversed(parts))
        return next((name for name in names_in_model if name in known), None)

    for step in steps(tree):
        kernel = named(step.inputs[1]) if step.operator in WITH_KERNEL else None
        before = [found[index] for index in step.inputs if index in found]
        unnamed = before[0] if len(before) == 1 else graph.tensors[step.output].name.decode()
        found[step.output] = kernel or named(step.output) or unnamed
    return list(found.values())


def cuts_between(tree: Any, layers: list[str]) -> list[int]:
    """The tensors that leave a layer: what another layer reads, or the graph gives."""
    layer_of = {step.output: layer for step, layer in zip(steps(tree), layers, strict=True)}
    read = {
        index
        for step in steps(tree)
        for index in step.inputs
        if index in layer_of and layer_of[index] != layer_of[step.output]
    }
    return [index for index in layer_of if index in read or index in tree.subgraphs[0].outputs]


def apart(tree: Any, layers: list[str], cuts: list[int]) -> Any:
    """A copy of `tree` whose layers do not feed one another.

    Behind the graph's own inputs it has one for each cut, which the layers read that come after it; its outputs are
    what the layers before the cuts give.
    """
    tree = copy.deepcopy(tree)
    graph = tree.subgraphs[0]
    layer_of = {step.output: layer for step, layer in zip(steps(tree), layers, strict=True)}
    fed = {index: len(graph.tensors) + place for place, index in enumerate(cuts)}
    for operator in graph.operators:
        own = layer_of[int(operator.outputs[0])]
        operator.inputs = [fed[i] if i in fed and layer_of[i] != own else i for i in map(int, operator.inputs)]
    graph.tensors += [copy.copy(graph.tensors[index]) for index in cuts]
    graph.inputs = [*graph.inputs, *fed.values()]
    graph.outputs = list(cuts)
    tree.signatureDefs = []  # they name the graph as it was
    return tree
