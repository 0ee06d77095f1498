"""Copies of models: the same layers and weights, not compiled, with nothing in common."""

from collections.abc import Mapping
from typing import Any

import keras

from keras_opt.core.clone_layer import clone_layer
from keras_opt.core.errors import argument_error
from keras_opt.core.set_weights import set_weights
from keras_opt.ensemble.class_names import class_names_of
from keras_opt.models.graph import functional, has_graph


def copy_of(model: keras.Model, owner: str) -> keras.Model:
    """A copy of any built model; a Sequential one stays Sequential.

    Raises:
        ValueError: `model` has no graph, and its class cannot be made from its config; the message names `owner`.
    """
    if not model.built:
        cure = "Start it with keras.Input(shape), or call it on a batch first."
        raise argument_error(owner, "models", model, "built models", cure)
    copied = _same_layers(model, owner)
    set_weights(copied, model.get_weights())
    copied.class_names = class_names_of(model)
    return copied


def functional_copy(
    model: keras.Model, name: str, changes: Mapping[str, Mapping[str, Any]] | None = None
) -> keras.Model:
    """A functional copy of a functional or Sequential model.

    Args:
        model: A built model with a graph of layers.
        name: The name of the copy.
        changes: By a layer's name, what is to be different in its config.
    """
    copied = _graph_copy(model, name, changes or {}, "PredictionEnsemble")
    set_weights(copied, model.get_weights())
    return copied


def _graph_copy(model: keras.Model, name: str, changes: Mapping[str, Mapping[str, Any]], owner: str) -> keras.Model:
    def clone(layer):
        if isinstance(layer, keras.Model):
            return _same_layers(layer, owner)
        return clone_layer(layer, **changes.get(layer.name, {}))

    graph = functional(model)
    # The model around the same tensors is not compiled: `clone_model` would make an optimizer too.
    return keras.models.clone_model(keras.Model(graph.input, graph.output, name=name), clone_function=clone)


def _same_layers(model: keras.Model, owner: str) -> keras.Model:
    if isinstance(model, keras.Sequential):
        start = clone_layer(functional(model).layers[0])  # the input, which `model.layers` leaves out
        layers = [
            _same_layers(layer, owner) if isinstance(layer, keras.Model) else clone_layer(layer)
            for layer in model.layers
        ]
        return keras.Sequential([start, *layers], name=model.name)
    if has_graph(model):
        return _graph_copy(model, model.name, {}, owner)
    try:
        copied = model.__class__.from_config(model.get_config())
        copied.build_from_config(model.get_build_config())
    except (TypeError, ValueError, NotImplementedError, AttributeError) as error:
        cure = f"Its class cannot be made from its config ({error}). Give it get_config, or make it functional."
        raise argument_error(owner, "models", model, "models that can be copied", cure) from error
    return copied
