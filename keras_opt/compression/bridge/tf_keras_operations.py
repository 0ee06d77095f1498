"""Operations of Keras 3 (`x + y`, `keras.ops`) inside a tf_keras model."""

import functools
import json
from typing import Any

import keras

from keras_opt.compression.bridge.tf_keras_import import tf_keras

# Those for which tf_keras has a layer: TF-MOT knows what to do with layers.
_ACTIVATIONS = {"Relu": "relu", "Sigmoid": "sigmoid", "Tanh": "tanh", "Silu": "swish"}


def operation_layer(data: dict[str, Any], node: dict[str, Any], tensors: list[Any], name: str) -> Any:
    """The tf_keras layer that gives, called on `tensors`, what a serialised operation gives in a call.

    Args:
        data: The operation, as it stands in the config of a functional model.
        node: The call, {"args", "kwargs"}; `tensors` are those in it, in order.
    """
    layers, kind = tf_keras().layers, data["class_name"]
    alike = len({(tuple(tensor.shape), tensor.dtype) for tensor in tensors}) == 1
    if kind == "Add" and len(tensors) == 2 and alike:
        return layers.Add(name=name)
    if kind == "Concatenate" and len(tensors) > 1 and len({tensor.dtype for tensor in tensors}) == 1:
        return layers.Concatenate(axis=data["config"]["axis"], name=name)
    if kind in _ACTIVATIONS and len(tensors) == 1:
        return layers.Activation(_ACTIVATIONS[kind], name=name)
    if kind == "Relu6":
        return layers.ReLU(6.0, name=name)
    operation = {key: data[key] for key in ("module", "class_name", "config", "registered_name")}
    return _keras_operation()(json.dumps(operation), json.dumps(node), name=name)


@functools.cache
def _keras_operation() -> type:
    """The class, which cannot be made before tf_keras is imported."""

    @tf_keras().utils.register_keras_serializable("keras_opt")
    class KerasOperation(tf_keras().layers.Layer):
        """Runs an operation of Keras 3 itself; it and the arguments of its call are JSON, the tensors stand apart."""

        def __init__(self, operation: str, arguments: str, **kwargs: Any):
            super().__init__(**{**kwargs, "autocast": False})
            self.operation = operation
            self.arguments = arguments

        def call(self, inputs: Any) -> Any:
            tensors = iter(keras.tree.flatten(inputs))
            arguments = keras.tree.map_structure(
                lambda part: next(tensors) if isinstance(part, keras.KerasTensor) else part, _read(self.arguments)
            )
            return _read(self.operation)(*arguments["args"], **arguments["kwargs"])

        def get_config(self) -> dict[str, Any]:
            return {**super().get_config(), "operation": self.operation, "arguments": self.arguments}

    return KerasOperation


def _read(text: str) -> Any:
    return keras.saving.deserialize_keras_object(json.loads(text))
