"""Which operators TFLite Micro has: our list beside the interpreter that is installed."""

import os
import tempfile

import flatbuffers
import pytest
from ai_edge_litert import schema_py_generated as schema
from tflite_micro import runtime

from keras_opt.core.errors import InputError
from keras_opt.export.model_file import names, pack, unpack
from keras_opt.export.tflm_operators import CUSTOM, operators, resolver_method, supported_operators

BUILTINS = {
    code: name
    for code, name in names(schema.BuiltinOperator).items()
    if name not in ("CUSTOM", "DELEGATE", "PLACEHOLDER_FOR_GREATER_OP_CODES")
}
LACKING = schema.BuiltinOperator.HASHTABLE_LOOKUP


def file_of(*codes):
    """A file with one operator of each code; a text is a custom operator's."""
    tree = schema.ModelT(version=3, buffers=[schema.BufferT()], operatorCodes=[], subgraphs=[schema.SubGraphT()])
    graph = tree.subgraphs[0]
    graph.inputs, graph.outputs, graph.operators = [0], [1], []
    graph.tensors = [schema.TensorT(shape=[1], type=0, buffer=0, name=name) for name in ("in", "out")]
    for code in codes:
        operator = schema.OperatorT(opcodeIndex=len(tree.operatorCodes), inputs=[0], outputs=[1])
        if code == schema.BuiltinOperator.VAR_HANDLE:
            operator.builtinOptionsType = schema.BuiltinOptions.VarHandleOptions
            operator.builtinOptions = schema.VarHandleOptionsT(sharedName="variable")
        graph.operators.append(operator)
        kind = schema.BuiltinOperator.CUSTOM if isinstance(code, str) else code
        tree.operatorCodes.append(
            schema.OperatorCodeT(
                builtinCode=kind,
                deprecatedBuiltinCode=min(kind, 127),
                version=1,
                customCode=code if isinstance(code, str) else None,
            )
        )
    builder = flatbuffers.Builder(1024)
    builder.Finish(tree.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def found_by_tflm(code):
    """Whether TFLite Micro gets past this operator, to one behind it that it does not have."""
    with tempfile.TemporaryFile() as log:
        stderr = os.dup(2)
        os.dup2(log.fileno(), 2)
        try:
            with pytest.raises(RuntimeError, match="failed to allocate"):
                runtime.Interpreter.from_bytes(file_of(code, LACKING), arena_size=100_000)
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
        log.seek(0)
        return b"Didn't find op for builtin opcode 'HASHTABLE_LOOKUP'" in log.read()


def test_the_list_is_that_of_the_installed_interpreter():
    has = {name for code, name in BUILTINS.items() if code != LACKING and found_by_tflm(code)}
    assert len(has) > 90
    assert has == {name for name in BUILTINS.values() if resolver_method(name)}


@pytest.mark.parametrize(
    ("operator", "method"),
    [
        ("CONV_2D", "AddConv2D"),
        ("DEPTHWISE_CONV_2D", "AddDepthwiseConv2D"),
        ("FULLY_CONNECTED", "AddFullyConnected"),
        ("UNIDIRECTIONAL_SEQUENCE_LSTM", "AddUnidirectionalSequenceLSTM"),
        ("PADV2", "AddPadV2"),
        ("SignalRfft", "AddRfft"),
        ("GELU", None),
        ("FlexErf", None),
    ],
)
def test_methods(operator, method):
    assert resolver_method(operator) == method


def test_operators_stand_in_the_order_of_first_use():
    code = {name: number for number, name in BUILTINS.items()}
    tree = unpack(file_of(code["SOFTMAX"], code["ADD"], code["SOFTMAX"], "FlexErf", "SignalFramer"))
    assert operators(tree) == ("SOFTMAX", "ADD", "FlexErf", "SignalFramer")
    assert operators(unpack(pack(tree))) == operators(tree)


def test_all_that_lack_are_named():
    code = {name: number for number, name in BUILTINS.items()}
    tree = unpack(file_of(code["GELU"], code["ADD"], code["TILE"], "FlexErf"))
    with pytest.raises(InputError, match=r"run_tflm: a\.tflite has operators that .* lacks: GELU, TILE, FlexErf\. "):
        supported_operators("run_tflm", "a.tflite", tree)


def test_custom_operators_have_methods_of_their_own():
    assert set(map(resolver_method, CUSTOM)).isdisjoint(map(resolver_method, BUILTINS.values()))
