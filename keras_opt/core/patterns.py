"""Patterns that name layers."""

from collections.abc import Iterable
from fnmatch import fnmatchcase

import keras


def layer_of(variable: keras.Variable) -> str:
    """The path of the layer that has `variable`."""
    return variable.path.rsplit("/", 1)[0]


def fits(variable: keras.Variable, patterns: Iterable[str]) -> bool:
    """Whether one of `patterns` (as in `fnmatch`) fits the layer of `variable`, by its path or by its name."""
    layer = layer_of(variable)
    name = layer.rsplit("/", 1)[-1]
    return any(fnmatchcase(layer, pattern) or fnmatchcase(name, pattern) for pattern in patterns)
