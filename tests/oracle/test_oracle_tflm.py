"""TFLite Micro beside LiteRT on every builder: within one step of the output.

LiteRT has three sets of kernels that round differently, by a step an operator, which adds up over a deep network.
TFLite Micro has the convolutions of the reference set and the dense layers of the built-in one; XNNPACK, LiteRT's
default on a host, is neither. Logits are compared, not probabilities: a softmax makes several steps of one where its
input has large ones.
"""

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from full_rows import few

from keras_opt import models
from keras_opt.export import LiteRTModel, run_tflm, to_tflite

REFERENCE, BUILT_IN = OpResolverType.BUILTIN_REF, OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
DEFAULT = OpResolverType.AUTO
LOGITS = {"classes": 3, "classifier_activation": None}
BUILDERS = {
    "mlp": (lambda: models.mlp((16, 8), (6,), **LOGITS), BUILT_IN),
    "convnet": (lambda: models.convnet((8, 16), (12, 12, 3), **LOGITS), REFERENCE),
    "convnet_1d": (lambda: models.convnet((8, 16), (32, 3), **LOGITS), REFERENCE),
    "resnet": (lambda: models.resnet(20, (8, 8, 3), width=4, **LOGITS), REFERENCE),
    "resnet_1d": (lambda: models.resnet(20, (16, 3), width=4, **LOGITS), REFERENCE),
    "mobilenet": (lambda: models.mobilenet((8, 8, 3), alpha=0.35, **LOGITS), REFERENCE),
}


def as_if_trained(model, x, rng):
    """Give the norms scales of their own and the statistics of `x`, so that no branch is silent."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.gamma.assign(rng.uniform(0.7, 1.3, layer.gamma.shape))
            layer.momentum = 0.0
    model(x, training=True)


def answers(file, kernels, x):
    """The output as the file stores it, from LiteRT with one of its sets of kernels."""
    interpreter = Interpreter(str(file.path), experimental_op_resolver_type=kernels)
    interpreter.allocate_tensors()
    rows = []
    for row in file.inputs[0].stored(x):
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], row[np.newaxis])
        interpreter.invoke()
        rows.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0])
    return np.array(rows)


@pytest.mark.parametrize("builder", few(BUILDERS, "mlp", "convnet", "convnet_1d", "resnet", "mobilenet"))
def test_int8_within_one_step(builder, tmp_path):
    build, kernels = builder
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    model = build()
    x = rng.normal(size=(100, *model.input_shape[1:])).astype("float32")
    as_if_trained(model, x, rng)
    file = LiteRTModel(to_tflite(model, tmp_path / "model.tflite", "int8", x).path)
    micro = file.outputs[0].stored(run_tflm(file.path, x).outputs).astype(int)
    assert len(np.unique(micro, axis=0)) > 50  # the answers differ, so that there is something to compare
    steps = {kind.name: int(np.abs(micro - answers(file, kind, x)).max()) for kind in (REFERENCE, BUILT_IN, DEFAULT)}
    print(f"LSB between TFLite Micro and LiteRT, by its kernels: {steps}")
    assert steps[kernels.name] <= 1
