"""A range for the logits of a softmax that spends the 256 steps of int8 where they matter."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_opt.core.clone_layer import clone_layer
from keras_opt.core.set_weights import set_weights
from keras_opt.export.call_on import call_on
from keras_opt.models.softmax import is_softmax, logit_ends

BATCH = 32
WORTH_IT = 0.5  # of the range that the logits have


def with_bounded_logits(model: keras.Model, rows: Sequence[np.ndarray]) -> keras.Model:
    """`model`, or where few examples have logits far beyond the others' a copy that bounds them before its softmax.

    The converter takes the smallest and the largest logit of all rows for the ends of a range, and with them steps that
    may be too wide for the rows of ordinary logits. The ends that matter (`logit_ends`) are taken where their range is
    at most half as wide.

    Args:
        model: A functional or Sequential model. One that cannot be cloned is left as it is.
        rows: Examples for each input.
    """
    heads = dict(_heads(model))
    if not heads:
        return model
    try:
        linear = _copy(model, dict.fromkeys(heads, keras.activations.linear))
    except (TypeError, ValueError, NotImplementedError):  # a Lambda layer, an unnamed function as activation
        return model
    outputs = _outputs(linear, rows)
    bounded = {}
    for name, place in heads.items():
        low, high = map(float, logit_ends(outputs[place]))
        if high - low <= WORTH_IT * (max(outputs[place].max(), 0) - min(outputs[place].min(), 0)):
            bounded[name] = _BoundedSoftmax(low, high)
    return _copy(model, bounded) if bounded else model


class _BoundedSoftmax:
    """A softmax of logits whose range the converter is told."""

    def __init__(self, low: float, high: float):
        self._ends = low, high

    def __call__(self, logits: Any) -> Any:
        return keras.ops.softmax(tf.quantization.fake_quant_with_min_max_args(logits, *self._ends))


class _Softmax(keras.layers.Softmax):
    """A softmax that computes something else; with a mask it is left as it is."""

    def __init__(self, activation: Callable[[Any], Any], name: str):
        super().__init__(name=name)
        self._activation = activation

    def call(self, inputs: Any, mask: Any = None) -> Any:
        return self._activation(inputs) if mask is None else super().call(inputs, mask)


def _heads(model):
    """The layers that end outputs of the model in a softmax over more than one class, each with the output's place."""
    makers = {id(layer.output): layer for layer in model.layers if not isinstance(layer, keras.Model)}
    for place, output in enumerate(model.outputs):
        layer = makers.get(id(output))
        if is_softmax(layer) and output.shape[-1] > 1:
            yield layer.name, place


def _outputs(model, rows):
    parts = []
    for start in range(0, len(rows[0]), BATCH):
        part = [column[start : start + BATCH] for column in rows]
        parts.append(keras.tree.flatten(call_on(model, part)))
    return [np.concatenate(output) for output in zip(*parts, strict=True)]


def _copy(model, activations):
    def clone(layer):
        if layer.name in activations and isinstance(layer, keras.layers.Softmax):
            return _Softmax(activations[layer.name], name=layer.name)
        copy = clone_layer(layer)
        if layer.name in activations:
            copy.activation = activations[layer.name]
        return copy

    copy = keras.models.clone_model(model, clone_function=clone)
    set_weights(copy, model.get_weights())
    return copy
