"""The operators that TFLite Micro has, and the method that links each into a device's program."""

import re
from typing import Any

from keras_opt.core.errors import InputError
from keras_opt.export.model_file import names, schema

# The methods Add...() of MicroMutableOpResolver, without "Add"; each bears its operator's name in TFLite's schema.
BUILTIN = re.findall(
    r"\w+",
    """
    Abs Add AddN ArgMax ArgMin AssignVariable AveragePool2D BatchMatMul BatchToSpaceNd BroadcastArgs BroadcastTo
    CallOnce Cast Ceil Concatenation Conv2D Cos CumSum DepthToSpace DepthwiseConv2D Dequantize Div DynamicUpdateSlice
    Elu EmbeddingLookup Equal Exp ExpandDims Fill Floor FloorDiv FloorMod FullyConnected Gather GatherNd Greater
    GreaterEqual HardSwish If L2Normalization L2Pool2D LeakyRelu Less LessEqual Log LogSoftmax LogicalAnd LogicalNot
    LogicalOr Logistic MaxPool2D Maximum Mean Minimum MirrorPad Mul Neg NotEqual Pack Pad PadV2 Prelu Quantize
    ReadVariable ReduceAll ReduceMax ReduceMin Relu Relu6 Reshape ResizeBilinear ResizeNearestNeighbor ReverseV2 Round
    Rsqrt SelectV2 Shape Sin Slice Softmax SpaceToBatchNd SpaceToDepth Split SplitV Sqrt Square SquaredDifference
    Squeeze StridedSlice Sub Sum Svdf Tanh Transpose TransposeConv UnidirectionalSequenceLSTM Unpack VarHandle While
    ZerosLike
    """,
)
CUSTOM = {
    "CIRCULAR_BUFFER": "CircularBuffer",
    "TFLite_Detection_PostProcess": "DetectionPostprocess",
    "SignalDelay": "Delay",
    "SignalEnergy": "Energy",
    "SignalFftAutoScale": "FftAutoScale",
    "SignalFilterBank": "FilterBank",
    "SignalFilterBankLog": "FilterBankLog",
    "SignalFilterBankSpectralSubtraction": "FilterBankSpectralSubtraction",
    "SignalFilterBankSquareRoot": "FilterBankSquareRoot",
    "SignalFramer": "Framer",
    "SignalIrfft": "Irfft",
    "SignalOverlapAdd": "OverlapAdd",
    "SignalPCAN": "PCAN",
    "SignalRfft": "Rfft",
    "SignalStacker": "Stacker",
    "SignalWindow": "Window",
}
_METHODS = {name.lower(): f"Add{name}" for name in BUILTIN}


def operators(tree: Any) -> tuple[str, ...]:
    """The operators that a file's graphs use, each once, in the order of first use; a custom one by its own name."""
    kinds = names(schema().BuiltinOperator)
    used = [tree.operatorCodes[operator.opcodeIndex] for graph in tree.subgraphs for operator in graph.operators or ()]
    return tuple(dict.fromkeys(_name(code, kinds) for code in used))


def resolver_method(operator: str) -> str | None:
    """The method of `MicroMutableOpResolver` that adds `operator`, or `None` where TFLite Micro lacks it."""
    if operator in CUSTOM:
        return f"Add{CUSTOM[operator]}"
    return _METHODS.get(operator.replace("_", "").lower())


def supported_operators(owner: str, path: Any, tree: Any) -> tuple[str, ...]:
    """Return the file's operators.

    Raises:
        InputError: TFLite Micro lacks some of them; all are named.
    """
    used = operators(tree)
    lacking = [operator for operator in used if resolver_method(operator) is None]
    if lacking:
        raise InputError(
            f"{owner}: {path} has operators that TFLite Micro lacks: {', '.join(lacking)}. "
            "Replace the layers that they come from."
        )
    return used


def _name(code, kinds):
    kind = kinds[max(code.builtinCode, code.deprecatedBuiltinCode)]
    return code.customCode.decode() if kind == "CUSTOM" else kind
