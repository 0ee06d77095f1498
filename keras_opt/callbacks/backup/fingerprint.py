"""What tells one training from another, so that no backup is put into the wrong one."""

import itertools
import json
from collections.abc import Iterable, Iterator
from typing import Any

import keras

from keras_opt.core.all_layers import all_layers

# What differs between two runs of one script, or changes while a training runs. Some layers draw a seed where they get
# none; and the code of a `Lambda` has the number of its line.
_PASSING = ("name", "trainable", "build_config", "shared_object_id", "seed", "code")


def fingerprint(model: keras.Model, data: dict[str, str]) -> dict[str, str]:
    """The layers of `model` with their settings and wiring, the kind of its optimizer, and the description `data`."""
    layers = [layer for layer in all_layers(model) if not isinstance(layer, keras.Model)]
    unbuilt = "" if model.built else " before it is built"  # a model that is resumed where it was broken off has more
    parts = {f"layer {number}{unbuilt}": _described(layer) for number, layer in enumerate(layers, 1)}
    parts |= {f"number of layers{unbuilt}": str(len(layers)), f"wiring{unbuilt}": _wiring(model)}
    parts["number of replicas"] = str(model.distribute_strategy.num_replicas_in_sync)
    return {**parts, "optimizer": type(getattr(model, "optimizer", None)).__name__, **data}


def settings(model: keras.Model) -> dict[str, str]:
    """What may be changed without another training's being meant: the learning rate and the loss."""
    loss = getattr(model, "loss", None)
    rate = model.optimizer.get_config().get("learning_rate") if getattr(model, "optimizer", None) else None
    return {"the learning rate": _text(rate), "the loss": _text(loss if isinstance(loss, str) else type(loss).__name__)}


def differences(before: dict[str, str], now: dict[str, str]) -> list[str]:
    """What differs, one sentence each; layers are compared as far as both go."""
    names = [name for name in before if name in now and before[name] != now[name]]
    return [f"{name} was {_cut(before[name], now[name])}, is {_cut(now[name], before[name])}" for name in names]


def _described(layer: keras.layers.Layer) -> str:
    try:
        config = layer.get_config()
    except Exception:  # as of a layer that cannot be saved: a reason to know less of it, not to train no more
        config = {}
    return f"{type(layer).__name__} {_text(config)}"


def _wiring(model: keras.Model) -> str:
    """What goes into which layer, in a functional model and those in it, by the numbers of layers in their model."""
    models = [model, *(layer for layer in all_layers(model) if isinstance(layer, keras.Model) and layer is not model)]
    return " | ".join(filter(None, map(_wiring_of_one, models)))


def _wiring_of_one(model: keras.Model) -> str:
    try:
        layers = model.get_config()["layers"]
        numbers = {layer["name"]: number for number, layer in enumerate(layers, 1)}
        links = [(layer["class_name"], list(_links(layer["inbound_nodes"]))) for layer in layers]
    except Exception:  # a model of another kind, or one that cannot be saved: as in `_described`
        return ""
    sources = [", ".join(f"{numbers[name]}{_place(*place)}" for name, *place in link) for _, link in links]
    return "; ".join(
        f"{number} {kind}{source and ' from '}{source}"
        for number, ((kind, _), source) in enumerate(zip(links, sources, strict=True), 1)
    )


def _links(nodes: Any) -> Iterator[list[Any]]:
    """What stands under "keras_history" in the configs of nodes: a layer's name, and the numbers of call and output."""
    if isinstance(nodes, dict):
        if "keras_history" in nodes:
            yield nodes["keras_history"]
        nodes = nodes.values()
    if not isinstance(nodes, str) and isinstance(nodes, Iterable):
        for each in nodes:
            yield from _links(each)


def _place(call: int, output: int) -> str:
    return f" (call {call}, output {output})" if call or output else ""


def _text(config: Any) -> str:
    return json.dumps(_lasting(config), default=lambda value: type(value).__name__, sort_keys=True)


def _lasting(config: Any) -> Any:
    if isinstance(config, dict):
        if config.get("class_name") == "DTypePolicy":
            return config["config"]["name"]
        return {str(key): _lasting(value) for key, value in config.items() if key not in _PASSING}
    return [_lasting(value) for value in config] if isinstance(config, list | tuple) else config


def _cut(text: str, other: str, length: int = 60) -> str:
    """`text`, or the part of it around the first character in which `other` differs."""
    if len(text) <= length:
        return text
    alike = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(text, other, strict=False))
    begin = max(0, sum(1 for _ in alike) - length // 2)
    return f"{'...' if begin else ''}{text[begin : begin + length]}{'...' if begin + length < len(text) else ''}"
