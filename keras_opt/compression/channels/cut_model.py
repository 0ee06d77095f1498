"""A copy of a model of which some channels are gone."""

import keras
import numpy as np

from keras_opt.compression.channels.graph import ChannelGraph, references
from keras_opt.core.clone_layer import clone_layer
from keras_opt.core.errors import is_number
from keras_opt.core.set_weights import set_weights
from keras_opt.models.graph import functional, has_graph


def cut_model(graph: ChannelGraph, stays: np.ndarray) -> keras.Model:
    """A copy of the model of `graph` with only the channels that stay.

    Args:
        graph: The model, its channels and how each layer is cut.
        stays: For each channel by its number whether it stays.
    """
    copies: dict[int, tuple[keras.Layer, keras.Layer]] = {}

    def clone(layer):
        if id(layer) not in copies:
            copies[id(layer)] = layer, _cloned(layer)
        return copies[id(layer)][1]

    def _cloned(layer):
        if isinstance(layer, keras.Layer) and has_graph(layer):
            whole = functional(layer)
            # Without what it was compiled with, which `clone_model` would copy.
            whole = keras.Model(whole.input, whole.output, name=layer.name)
            inputs = _cut_inputs(whole, graph.inputs[id(layer)], stays) if id(layer) in graph.inputs else None
            return keras.models.clone_model(whole, inputs, clone_function=clone, call_function=_call)
        if id(layer) not in graph.cuts:
            return clone_layer(layer)
        sizes = graph.cuts[id(layer)][1].config
        cut = {name: size(int(stays[labels].sum())) for name, (labels, size) in sizes.items()}
        cut |= {name: "zeros" for name, value in layer.get_config().items() if _is_table(value)}
        return clone_layer(layer, **cut)

    copy = clone(graph.model)
    for layer, its_copy in copies.values():
        if isinstance(layer, keras.Layer) and layer.weights and not has_graph(layer):
            axes = graph.cuts[id(layer)][1].weights if id(layer) in graph.cuts else {}
            set_weights(its_copy, [_cut(weight, axes.get(weight.name, ()), stays) for weight in layer.weights])
    for layer, its_copy in reversed(copies.values()):  # models before what they hold, whose flags they set
        _copy_trainable(layer, its_copy)
    return copy


def _cut_inputs(model, channels, stays):
    """Inputs for a copy of `model`, of the same names; those that `clone_model` makes have the names of tensors."""
    tensors = []
    for (name, _, _), labels in zip(references(model.get_config()["input_layers"]), channels, strict=True):
        config = model.get_layer(name).get_config()
        shape = config["batch_shape"]
        if not stays[labels].all():
            shape = (*shape[:-1], int(stays[labels].sum()))
        tensors.append(keras.Input(**{**config, "batch_shape": shape}))
    return keras.tree.pack_sequence_as(model.input, tensors)


def _call(layer, *inputs, **arguments):
    return layer(*inputs, **arguments)


def _is_table(value):
    """Whether `value` is an initializer that gives arrays of one size, such as those of word vectors."""
    is_constant = isinstance(value, dict) and value.get("class_name") == "Constant"
    return is_constant and not is_number(value["config"]["value"])


def _cut(weight, axes, stays):
    values = keras.ops.convert_to_numpy(weight)
    for axis, labels in enumerate(axes, start=values.ndim - len(axes)):
        if labels is not None:
            values = np.compress(stays[labels], values, axis)
    return values


def _copy_trainable(layer, copy):
    if isinstance(layer, keras.Layer) and copy.trainable != layer.trainable:
        copy.trainable = layer.trainable
    for weight, its_copy in zip(getattr(layer, "weights", ()), getattr(copy, "weights", ()), strict=True):
        if its_copy.trainable != weight.trainable:
            its_copy.trainable = weight.trainable
