"""What tells one training from another, so that no backup is put into the wrong one."""

import itertools
import json
from typing import Any

import keras

from keras_opt.core.all_layers import all_layers

# What differs between two runs of one script, or changes while a training runs.
_PASSING = ("name", "trainable", "build_config", "shared_object_id")


def fingerprint(model: keras.Model, data: dict[str, str]) -> dict[str, str]:
    """The layers of `model` with their settings, the kind of its optimizer, and the description `data`."""
    layers = [layer for layer in all_layers(model) if not isinstance(layer, keras.Model)]
    parts = {f"layer {number}": _described(layer) for number, layer in enumerate(layers, 1)}
    optimizer = getattr(model, "optimizer", None)
    return {**parts, "number of layers": str(len(layers)), "optimizer": type(optimizer).__name__, **data}


def differences(before: dict[str, str], now: dict[str, str]) -> list[str]:
    """What differs, one sentence each; layers are compared as far as both go."""
    names = [name for name in before if name in now and before[name] != now[name]]
    return [f"{name} was {_cut(before[name], now[name])}, is {_cut(now[name], before[name])}" for name in names]


def _described(layer: keras.layers.Layer) -> str:
    try:
        config = layer.get_config()
    except NotImplementedError:  # what Keras raises for a layer with arguments and no config
        config = {}
    settings = json.dumps(_lasting(config), default=lambda value: type(value).__name__, sort_keys=True)
    return f"{type(layer).__name__} {settings}"


def _lasting(config: Any) -> Any:
    if isinstance(config, dict):
        return {key: _lasting(value) for key, value in config.items() if key not in _PASSING}
    return [_lasting(value) for value in config] if isinstance(config, list | tuple) else config


def _cut(text: str, other: str, length: int = 60) -> str:
    """`text`, or the part of it around the first character in which `other` differs."""
    if len(text) <= length:
        return text
    alike = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(text, other, strict=False))
    begin = max(0, sum(1 for _ in alike) - length // 2)
    return f"{'...' if begin else ''}{text[begin : begin + length]}{'...' if begin + length < len(text) else ''}"
