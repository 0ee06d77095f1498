"""The graph of a functional model, read from its public config: which layer feeds which."""

from typing import Any

import keras


def calls(model: keras.Model) -> dict[str, list[tuple[str, ...]]]:
    """For each layer by name the calls of it in the model's graph, each as the names of the layers that feed it.

    A layer that is called twice has two entries.
    """
    return {name: [tuple(_sources(node)) for node in nodes] for name, nodes in serialized_calls(model).items()}


def serialized_calls(model: keras.Model) -> dict[str, list[dict[str, Any]]]:
    """For each layer by name the calls of it in the model's graph, each with its `args` and `kwargs` as in the config.

    Calls of a layer in other graphs, which `layer.input` and `layer.output` know too, are not among them.
    """
    return {layer["name"]: layer["inbound_nodes"] for layer in functional(model).get_config()["layers"]}


def functional(model: keras.Model) -> keras.Model:
    """`model` itself, or the functional model of a Sequential one, with the same layers."""
    if isinstance(model, keras.Sequential):
        return keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    return model


def has_graph(layer: keras.Layer) -> bool:
    """Whether `layer` is a built functional or Sequential model, and its config that of its graph."""
    if not isinstance(layer, keras.Model) or not getattr(layer, "inputs", None):
        return False
    return "output_layers" in functional(layer).get_config()


def graph_layers(model: keras.Model) -> list[keras.Layer]:
    """The layers in the graph of `model` and in those of nested models: what the saved file has one config for each.

    A model without a graph has none.
    """
    if not has_graph(model):
        return []
    return [each for layer in model.layers for each in (graph_layers(layer) if has_graph(layer) else [layer])]


def output_names(model: keras.Model) -> set[str]:
    """The names of the layers whose outputs are outputs of the model."""
    return set(output_leaves(model))


def output_leaves(model: keras.Model) -> list[str]:
    """For each output of the model, in order, the name of the layer that gives it."""
    leaves = keras.tree.flatten(functional(model).get_config()["output_layers"])
    return [leaf for leaf in leaves if isinstance(leaf, str)]


def trained_calls(model: keras.Model) -> set[str]:
    """The names of the layers that are called with `training=True`, unless the model is called with another."""
    return {
        name
        for name, nodes in serialized_calls(model).items()
        if any(node["kwargs"].get("training") is True for node in nodes)
    }


def histories(part: Any) -> list[tuple[str, int, int]]:
    """Where the tensors in a part of a serialised call come from: (layer, its call, place in its outputs)."""
    return [tuple(tensor["keras_history"]) for tensor in _tensors(part)]


def shapes(part: Any) -> list[tuple[int | None, ...]]:
    """The shapes of the tensors in a part of a serialised call, with the batch first."""
    return [tuple(tensor["shape"]) for tensor in _tensors(part)]


def _tensors(part: Any) -> list[dict[str, Any]]:
    """The config of each tensor in a part of a serialised call."""
    if isinstance(part, dict):
        if part.get("class_name") == "__keras_tensor__":
            return [part["config"]]
        part = list(part.values())
    return [each for item in part for each in _tensors(item)] if isinstance(part, list | tuple) else []


def _sources(part: Any) -> list[str]:
    """The names of the layers whose tensors stand in a part of a serialised call."""
    return [name for name, _, _ in histories(part)]
