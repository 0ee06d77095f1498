"""A bias for each operator: TensorFlow's int16x8 converter lets operators share one in the scale of the first."""

import copy
from typing import Any

import numpy as np

from keras_opt.export.model_file import names, schema

_PLACES = {  # of input, kernel and bias among an operator's inputs
    "CONV_2D": (0, 1, 2),
    "DEPTHWISE_CONV_2D": (0, 1, 2),
    "FULLY_CONNECTED": (0, 1, 2),
    "TRANSPOSE_CONV": (2, 1, 3),
}
_TYPES = {"INT32": np.int32, "INT64": np.int64}


def own_biases(tree: Any) -> None:
    """Give each operator of an integer file whose bias is in another's scale one in its own.

    A stored bias stands for `bias_scale * stored`, and kernels compute with `bias_scale = input_scale * kernel_scale`
    whatever the file says. A layer that is called twice, or two with equal biases, come with one tensor for both: the
    second is off by the ratio of the scales.
    """
    kinds, types = names(schema().BuiltinOperator), names(schema().TensorType)
    graph = tree.subgraphs[0]
    for operator in graph.operators:
        places = _PLACES.get(kinds[tree.operatorCodes[operator.opcodeIndex].builtinCode], ())
        if not places or len(operator.inputs) <= places[-1] or operator.inputs[places[-1]] < 0:
            continue
        given, kernel, bias = (graph.tensors[operator.inputs[place]] for place in places)
        stored_as, data = _TYPES.get(types[bias.type]), tree.buffers[bias.buffer].data
        if stored_as is None or data is None or not _scales(bias).size:
            continue
        stands_for, wanted = np.broadcast_arrays(_scales(bias), _scales(given) * _scales(kernel))
        # A channel of zeros may have no scale, and a converter that divided by 0 an infinite one.
        is_scale = (wanted > 0) & np.isfinite(wanted)
        ratio = np.divide(stands_for, wanted, out=np.ones(len(wanted)), where=is_scale)
        if np.allclose(ratio, 1, rtol=1e-3):
            continue
        own = copy.deepcopy(bias)
        own.quantization.scale = wanted.astype(np.float32)
        own.quantization.zeroPoint = np.zeros(len(wanted), np.int64)
        own.buffer, own.name = len(tree.buffers), b"%b_%d" % (bias.name, len(graph.tensors))
        stored = np.round(np.frombuffer(bytes(data), stored_as) * ratio).astype(stored_as)
        tree.buffers.append(schema().BufferT(data=np.frombuffer(stored.tobytes(), np.uint8)))
        operator.inputs = [*operator.inputs]
        operator.inputs[places[-1]] = len(graph.tensors)
        graph.tensors.append(own)


def _scales(tensor):
    quantization = tensor.quantization
    return np.array([] if quantization is None or quantization.scale is None else quantization.scale, np.float64)
