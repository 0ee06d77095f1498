"""The channels of a functional model, followed from its inputs to its outputs."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import keras
import numpy as np

from keras_opt.compression.channels.elementwise import ELEMENTWISE_OPERATIONS
from keras_opt.compression.channels.rules import ChannelTensor, Cut, NotFollowed, Step, follow, merge
from keras_opt.compression.channels.sets import ChannelSets, Labels
from keras_opt.models.graph import functional, graph_layers, has_graph


class ChannelGraph:
    """Follows the channels of a model, and of the models in it.

    Args:
        model: A built functional or Sequential model.

    Attributes:
        channels: What is known of the channels. Those of the inputs and outputs stay.
        cuts: The layers that are to be cut, each with its cut, by `id(layer)`; the others stay as they are.
        inputs: The channels of the inputs of the model and of each model in it, by its `id`.
    """

    def __init__(self, model: keras.Model):
        self.model = model
        self.channels = ChannelSets()
        self.cuts: dict[int, tuple[keras.Layer, Cut]] = {}
        self.inputs: dict[int, list[Labels]] = {}
        self._made: dict[int, Labels] = {}
        self._refused: set[int] = set()
        inputs = [self.channels.new(tensor.shape[-1] or 1) for tensor in functional(model).inputs]
        self.inputs[id(model)] = inputs
        for labels in [*inputs, *self._replay(model, inputs)]:
            self.channels.keep(labels)

    def _replay(self, model: keras.Model, inputs: list[Labels]) -> list[Labels]:
        """The channels of the outputs of `model` when it is called on tensors that have the channels `inputs`."""
        model = functional(model)
        config = model.get_config()
        operations = {operation.name: operation for operation in model.operations}
        tensors = {
            (name, call): [labels]
            for (name, call, _), labels in zip(references(config["input_layers"]), inputs, strict=True)
        }
        waiting = [
            (entry, call, _without_mask(arguments))
            for entry in config["layers"]
            for call, arguments in enumerate(entry["inbound_nodes"])
        ]
        while waiting:
            later = []
            for entry, call, arguments in waiting:
                sources = [source["config"] for source in _tensors(arguments)]
                if all(tuple(source["keras_history"][:2]) in tensors for source in sources):
                    found = [_found(tensors, *source["keras_history"], source["shape"]) for source in sources]
                    tensors[entry["name"], call] = self._outputs(operations[entry["name"]], entry, arguments, found)
                else:
                    later.append((entry, call, arguments))
            waiting = later
        outputs = []
        for name, call, number in references(config["output_layers"]):
            # Keras counts the calls of a nested model from 1 here, and from 0 everywhere else.
            nested = isinstance(operations[name], keras.Model) and not isinstance(operations[name], keras.Sequential)
            outputs.append(_found(tensors, name, call - nested, number).labels)
        return outputs

    def _outputs(self, operation: Any, entry: dict, arguments: dict, found: list[ChannelTensor]) -> list[Labels]:
        """The channels of what a layer or operation returns."""
        try:
            if not isinstance(operation, keras.Layer):
                return [self._operation(entry, arguments, found)]
            if any(isinstance(leaf, dict) and not _is_tensor(leaf) for leaf in _leaves(arguments)):
                raise NotFollowed("is called on a constant tensor")
            if has_graph(operation):
                return self._nested(operation, found)
            return [self._layer(operation, found)]
        except NotFollowed as reason:
            return [self._unfollowed(operation, f"`{entry['name']}` ({entry['class_name']}) {reason}", found)]

    def _layer(self, layer, found):
        if id(layer) in self._refused:
            raise NotFollowed("is called in another place too, where it cannot be followed")

        labels, cut = follow(Step(layer, found, partial(self._made_by, layer), self.channels))
        if cut is not None:
            _, before = self.cuts.setdefault(id(layer), (layer, cut))
            self._tie(before.all_labels(), cut.all_labels())
        return labels

    def _made_by(self, layer, size):
        if id(layer) not in self._made:
            self._made[id(layer)] = self.channels.new(size)
        return self._made[id(layer)]

    def _nested(self, model, found):
        if len(found) != len(functional(model).inputs):
            raise NotFollowed("is called on tensors that are not its inputs")
        labels = [x.labels for x in found]
        self._tie(self.inputs.setdefault(id(model), labels), labels)
        return self._replay(model, labels)

    def _tie(self, before, now):
        """Tie the channels of two calls of one layer."""
        if any(len(one) != len(other) for one, other in zip(before, now, strict=True)):
            raise NotFollowed("is called on inputs of several sizes")
        for one, other in zip(before, now, strict=True):
            self.channels.tie(one, other)

    def _operation(self, entry, arguments, found):
        name, config = entry["class_name"], entry["config"]
        joined = name == "Concatenate" and config["axis"] in (-1, len(found[0].shape) - 1)
        if not entry["module"].startswith("keras.src.ops") or not (joined or name in ELEMENTWISE_OPERATIONS):
            raise NotFollowed("is an operation that keras_opt does not follow")
        values = [*arguments["args"], *arguments["kwargs"].values(), *config.values()]
        if not all(_tensors(value) or not isinstance(value, dict | list) for value in values):
            raise NotFollowed("has a constant that is no single number")
        if any(len(x.shape) < 2 or x.shape[-1] is None for x in found):
            raise NotFollowed("has inputs without a known number of channels")
        return np.concatenate([x.labels for x in found]) if joined else merge(found, self.channels)

    def _unfollowed(self, operation, reason, found):
        """One channel that stands for all that the operation returns; what it reads stays, as does what it has."""
        read = [x.labels for x in found]
        for layer in [operation, *graph_layers(operation)]:
            self._refused.add(id(layer))
            if id(layer) in self.cuts:
                read += self.cuts.pop(id(layer))[1].all_labels()
        made = self.channels.new(1)
        for labels in [*read, made]:
            self.channels.keep(labels, reason)
            if not getattr(operation, "weights", None):
                self.channels.show(labels, made)
        return made


def _found(
    tensors: dict[tuple[str, int], list[Labels]], name: str, call: int, number: int, shape: Any = (1,)
) -> ChannelTensor:
    """The tensor with this number among the outputs of a call of a layer.

    The one channel that stands for all that an operation returns is each of the tensor's.
    """
    outputs = tensors[name, call]
    labels = outputs[min(number, len(outputs) - 1)]
    size = shape[-1] if shape else None
    return ChannelTensor(np.resize(labels, size) if len(labels) == 1 and size else labels, tuple(shape))


def references(structure: Any) -> Iterator[tuple[str, int, int]]:
    """Layer, call and number of each tensor in the `input_layers` or `output_layers` of a model's config."""
    leaves = iter(keras.tree.flatten(structure))
    return zip(leaves, leaves, leaves, strict=True)


def _without_mask(arguments: dict) -> dict:
    """The arguments of a layer's call but for the mask of its steps, which has no channels."""
    mask, *others = [arguments["kwargs"].get("mask"), *_tensors(arguments["args"])]
    if not others or not _is_tensor(mask) or len(mask["config"]["shape"]) != len(others[0]["config"]["shape"]) - 1:
        return arguments
    return {**arguments, "kwargs": {**arguments["kwargs"], "mask": None}}


def _is_tensor(part: Any) -> bool:
    return isinstance(part, dict) and part.get("class_name") == "__keras_tensor__"


def _tensors(part: Any) -> list[dict]:
    return [leaf for leaf in _leaves(part) if _is_tensor(leaf)]


def _leaves(part: Any) -> Iterator[Any]:
    """The leaves of a serialised call, serialised objects in one piece, in the order in which Keras flattens them."""
    if isinstance(part, dict) and "class_name" not in part:
        part = [part[key] for key in sorted(part)]
    if isinstance(part, list | tuple):
        for item in part:
            yield from _leaves(item)
    else:
        yield part
