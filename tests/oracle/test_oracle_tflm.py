"""TFLite Micro beside LiteRT on every builder: within one step of the output.

LiteRT has three sets of kernels that round differently, by a step an operator, which adds up over a deep network.
TFLite Micro has the convolutions of the reference set and the dense layers of the built-in one; XNNPACK, LiteRT's
default on a host, is neither. Logits are compared, not probabilities: a softmax makes several steps of one where its
input has large ones.
"""

import keras
import numpy as np
import pytest
from full_rows import few

from keras_opt import models
from keras_opt.export import LiteRTModel, run_tflm, to_tflite


def separable():
    """What of mobilenet no other builder has, in a network that converts in a moment."""
    layers = [keras.layers.DepthwiseConv2D(3), keras.layers.BatchNormalization(), keras.layers.ReLU(6)]
    head = [keras.layers.Conv2D(8, 1), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3)]
    return keras.Sequential([keras.Input((8, 8, 3)), *layers, *head])


LOGITS = {"classes": 3, "classifier_activation": None}
BUILDERS = {
    "mlp": (lambda: models.mlp((16, 8), (6,), **LOGITS), "builtin"),
    "convnet": (lambda: models.convnet((8, 16), (12, 12, 3), **LOGITS), "reference"),
    "convnet_1d": (lambda: models.convnet((8, 16), (32, 3), **LOGITS), "reference"),
    "resnet": (lambda: models.resnet(20, (8, 8, 3), width=4, **LOGITS), "reference"),
    "resnet_1d": (lambda: models.resnet(20, (16, 3), width=4, **LOGITS), "reference"),
    "separable": (separable, "reference"),
    "mobilenet": (lambda: models.mobilenet((8, 8, 3), alpha=0.35, **LOGITS), "reference"),
}


def as_if_trained(model, x, rng):
    """Give the norms scales of their own and the statistics of `x`, so that no branch is silent."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.gamma.assign(rng.uniform(0.7, 1.3, layer.gamma.shape))
            layer.momentum = 0.0
    model(x, training=True)


@pytest.mark.parametrize("builder", few(BUILDERS, "mlp", "convnet", "separable"))
def test_int8_within_one_step(builder, tmp_path):
    build, kernels = builder
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    model = build()
    x = rng.normal(size=(100, *model.input_shape[1:])).astype("float32")
    as_if_trained(model, x, rng)
    file = to_tflite(model, tmp_path / "model.tflite", "int8", x)
    micro = file.output.stored(run_tflm(file.path, x).outputs).astype(int)
    assert len(np.unique(micro, axis=0)) > 50  # the answers differ, so that there is something to compare
    steps = {}
    for kind in ("reference", "builtin", "default"):
        litert = file.output.stored(LiteRTModel(file.path, kernels=kind).predict(x))
        steps[kind] = int(np.abs(micro - litert).max())
    print(f"LSB between TFLite Micro and LiteRT, by its kernels: {steps}")
    assert steps[kernels] <= 1
