"""A tf_keras model that TF-MOT quantizes, as a Keras 3 one for what calls a model: prediction and export."""

import sys
from typing import Any

import keras


class TfKerasModel(keras.layers.Layer):
    """Calls a tf_keras model for inference. Its weights are not those of the layer: it does not train, nor save."""

    keeps_quantized_ranges = True  # TF-MOT has learnt one for each activation

    def __init__(self, model: Any):
        super().__init__(name=model.name, trainable=False)
        vars(self)["_tf_keras_model"] = model  # past Keras's tracker

    def call(self, inputs: Any) -> Any:
        outputs = self._tf_keras_model(inputs, training=False)
        names = self._tf_keras_model.output_names
        return dict(zip(names, outputs, strict=True)) if isinstance(outputs, list | tuple) else outputs


def in_keras_3(model: Any) -> Any:
    """A Keras 3 model with the inputs and outputs of a tf_keras one of `tfmot_quantize`; any other `model` itself.

    Several inputs and outputs have the names of those of the tf_keras model.
    """
    tf_keras = sys.modules.get("tf_keras")
    if tf_keras is None or not isinstance(model, tf_keras.Model):
        return model
    if not any(type(layer).__name__ == "QuantizeWrapperV2" for layer in model.layers):
        return model
    inputs = {
        name: keras.Input(tensor.shape[1:], dtype=tensor.dtype.name, name=name)
        for name, tensor in zip(model.input_names, model.inputs, strict=True)
    }
    tensors = list(inputs.values())
    outputs = TfKerasModel(model)(tensors if len(tensors) > 1 else tensors[0])
    return keras.Model(inputs if len(tensors) > 1 else tensors[0], outputs, name=model.name)
