"""What a student is told by its teacher's outputs: the loss between the two, softened by a temperature."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_opt.compression.qat.quantized_range import QuantizedRange
from keras_opt.core.errors import InputError, argument_error, check_choice
from keras_opt.models.graph import calls, functional, has_graph, output_leaves

TASKS = ("classification", "multi_label", "regression", "segmentation")

_SMALLEST = 1e-7  # the probability below which a logarithm is cut, as in Keras
_TASKS = {"softmax": "classification", "sigmoid": "multi_label"}
_ACTIVATIONS = {
    keras.activations.softmax: "softmax",
    **dict.fromkeys((keras.activations.sigmoid, ops.sigmoid, tf.sigmoid), "sigmoid"),
}


class SoftTargets(keras.losses.Loss):
    """The distance of a student's outputs from its teacher's, both as logits (for a regression as values).

        classification   T^2 * KL(softmax(teacher / T) || softmax(student / T))
        multi_label      T^2 * the same of sigmoid(. / T), averaged over the labels
        regression       (teacher - student)^2, averaged over the values

    A segmentation is a classification of each pixel. The factor T^2 keeps the gradient's size, which falls with
    1 / T^2. The student's outputs come as they are, of the kind `student`; reduction, sample weights and the mask that
    they carry are Keras's.

    Source: G. Hinton, O. Vinyals and J. Dean, 2015, "Distilling the Knowledge in a Neural Network", section 2.
    """

    def __init__(self, task: str, temperature: float, teacher: str = "linear", student: str = "linear"):
        super().__init__(name="soft_targets")
        self.task = task
        self.temperature = temperature
        self._kinds = teacher, student

    def call(self, y_true: Any, y_pred: Any) -> Any:
        if self.task == "regression":
            return ops.mean(ops.square(y_true - y_pred), axis=-1)
        teacher, student = (
            as_logits(outputs, kind) / self.temperature
            for outputs, kind in zip((y_true, y_pred), self._kinds, strict=True)
        )
        if self.task != "multi_label":
            gap = ops.log_softmax(teacher) - ops.log_softmax(student)
            divergence = ops.sum(ops.softmax(teacher) * gap, axis=-1)
        else:
            on = ops.sigmoid(teacher) * (ops.log_sigmoid(teacher) - ops.log_sigmoid(student))
            off = ops.sigmoid(-teacher) * (ops.log_sigmoid(-teacher) - ops.log_sigmoid(-student))
            divergence = ops.mean(on + off, axis=-1)
        return self.temperature**2 * divergence


def as_logits(outputs: Any, kind: str) -> Any:
    """The logits in float32 of which `outputs` are the softmax or sigmoid; linear outputs are logits.

    The logarithm of a softmax differs from its logits by a constant, which a softmax at any temperature ignores.
    """
    outputs = ops.cast(outputs, "float32")
    if kind == "linear":
        return outputs
    logarithm = ops.log(ops.maximum(outputs, _SMALLEST))
    return logarithm if kind == "softmax" else logarithm - ops.log(ops.maximum(1 - outputs, _SMALLEST))


def output_kinds(owner: str, argument: str, model: keras.Model) -> list[str]:
    """For each output of `model` how it ends: "softmax" (or a mean of such), "sigmoid" or "linear".

    What was a probability and is scaled behind its softmax or sigmoid, out of [0, 1], is linear.

    Raises:
        ValueError: The model has no graph, or ends in an operation whose outputs are none of these.
    """
    if not has_graph(model):
        raise InputError(
            f"{owner}: argument `{argument}` must be a built functional or Sequential model. "
            f"Received: {argument}={model.name!r} ({type(model).__name__}). Start a Sequential one with "
            "keras.Input(shape); a subclassed one has no graph from which its last activation could be read."
        )
    model = functional(model)
    ends = [_end(model, name) for name in output_leaves(model)]
    kinds = [_kind(end, output) for end, output in zip(ends, _shown(model), strict=True)]
    for kind, name in zip(kinds, output_leaves(model), strict=True):
        if kind is None:
            raise InputError(
                f"{owner}: argument `{argument}` must end in a layer that says whether its outputs are probabilities "
                f"or logits. Received: {argument}={model.name!r}, which ends in `{name}`. Put "
                'keras.layers.Activation("softmax"), "sigmoid" or "linear" behind it.'
            )
    return kinds


def tasks_of(owner: str, model: keras.Model, kinds: list[str], task: str | Sequence[str] | None) -> list[str]:
    """What each output of `model` is for: `task`, one for all or one for each, or what its kind says.

    Raises:
        ValueError: The kind does not say it, or the task is not one of such an output.
    """
    tasks = list(task) if isinstance(task, list | tuple) else [task] * len(kinds)
    if len(tasks) != len(kinds):
        raise argument_error(owner, "task", task, f"one task, or one for each of {len(kinds)} outputs", "Count them.")
    for each in tasks:
        check_choice(owner, "task", each, (None, *TASKS))
    tasks = [each or _TASKS.get(kind) for each, kind in zip(tasks, kinds, strict=True)]
    if None in tasks:
        must_be = "given where a model ends in no softmax and no sigmoid"
        raise argument_error(owner, "task", task, must_be, 'Logits: "classification". Values: "regression".')
    for each, kind, output in zip(tasks, kinds, keras.tree.flatten(functional(model).output), strict=True):
        if each in ("classification", "segmentation") and output.shape[-1] == 1:
            must_be = "'multi_label' for a model that ends in a single unit, which tells two classes apart"
            raise argument_error(owner, "task", each, must_be, "Leave it out where the model ends in a sigmoid.")
        if each == "multi_label" and kind == "softmax":
            must_be = "'classification' for a model that ends in a softmax"
            raise argument_error(owner, "task", each, must_be, "For labels of which many hold end in a sigmoid.")
    return tasks


def _end(model, name):
    """The activation that the output of the layer `name` comes from, or `None`."""
    layers = {operation.name: operation for operation in model.operations}
    layer = layers[name]
    while isinstance(getattr(layer, "layer", None), keras.Layer):  # a wrapper
        layer = layer.layer
    if type(layer).__name__ == "Sigmoid":  # the operation of keras.ops
        return "sigmoid"
    if has_graph(layer):
        return _end(functional(layer), output_leaves(layer)[0])
    graph = calls(model)
    sources = graph[name][0]
    if isinstance(layer, keras.layers.Average):
        return _common_end(model, sources)
    if _is_weighted_mean(layer) and isinstance(layers[sources[0]], keras.layers.Concatenate):
        return _common_end(model, graph[sources[0]][0])
    if hasattr(layer, "activation"):
        return _ACTIVATIONS.get(layer.activation, "linear")
    takes_one = len(sources) == 1 or isinstance(layer, QuantizedRange)  # which takes, beside values, what made them
    return _end(model, sources[0]) if takes_one else None


def _common_end(model, sources):
    """The activation that all of these come from, of which a mean has the kind; `None` if they differ."""
    ends = {_end(model, source) for source in sources}
    return ends.pop() if len(ends) == 1 else None


def _is_weighted_mean(layer):
    """Whether `layer` is that of an ensemble which weighs its members: they sum to 1, none is negative."""
    if not isinstance(layer, keras.layers.Dense) or layer.units > 1 or layer.use_bias:
        return False
    kernel = ops.convert_to_numpy(layer.kernel)
    return bool(np.all(kernel >= 0) and abs(kernel.sum() - 1) < 1e-3)


def _shown(model):
    """The outputs of `model` for random inputs, by which a mean or a vote of softmaxes is told from logits."""
    generator = np.random.default_rng(0)
    inputs = keras.tree.map_structure(
        lambda each: generator.uniform(0, 1, (4, *(size or 8 for size in each.shape[1:]))).astype(each.dtype),
        model.input,
    )
    return [ops.convert_to_numpy(output) for output in keras.tree.flatten(model(inputs, training=False))]


def _kind(end, output):
    """The kind of an output that comes from the activation `end`, by values of it."""
    if output.shape[-1] > 1 and np.all(output >= 0) and np.allclose(output.sum(-1), 1, atol=1e-3):
        return "softmax"
    is_probability = not np.any((output < 0) | (output > 1 + 1e-3))
    return "linear" if end in _TASKS and not is_probability else end
