"""Which weights a regularizer goes to, and the settings by which their layers save one."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import keras

from keras_opt.core.all_layers import all_layers
from keras_opt.core.patterns import fits

KERNELS, ALL_TRAINABLE = "kernels", "all_trainable"


@dataclass(frozen=True)
class RegularizedWeight:
    """A weight and the layer that made it."""

    variable: keras.Variable
    layer: keras.Layer

    @property
    def setting(self) -> str | None:
        """The layer's setting of the regularizer of this weight; `None` if it has none."""
        name = self.variable.name
        # A DepthwiseConv names its weight `kernel` and the setting `depthwise_regularizer`.
        stems = [name, name.removesuffix("_kernel"), *(["depthwise"] if name == "kernel" else [])]
        return next((f"{stem}_regularizer" for stem in stems if hasattr(self.layer, f"{stem}_regularizer")), None)


def weights_to_regularize(
    model: keras.Layer, include: str | Sequence[str], exclude: Sequence[str]
) -> list[RegularizedWeight]:
    """The weights that `include` means and `exclude` does not, each once."""
    excluded = {id(weight.variable) for weight in weights_that_fit(model, exclude)}
    if include == ALL_TRAINABLE:
        included = [weight for weight in _weights(model) if weight.variable.trainable]
    elif include == KERNELS:
        included = [weight for weight in _weights(model) if _is_kernel(weight.variable)]
    else:
        included = [
            weight
            for weight in weights_that_fit(model, include)
            if _is_kernel(weight.variable) or _fits_by_path(weight.variable, include)
        ]
    return [weight for weight in included if id(weight.variable) not in excluded]


def weights_that_fit(model: keras.Layer, patterns: Sequence[str]) -> list[RegularizedWeight]:
    """The weights that one of `patterns` fits, or whose layer one fits."""
    return [
        weight
        for weight in _weights(model)
        if fits(weight.variable, patterns) or _fits_by_path(weight.variable, patterns)
    ]


def _weights(model: keras.Layer) -> list[RegularizedWeight]:
    owners = {}
    for layer in sorted(all_layers(model), key=lambda layer: -len(all_layers(layer))):  # each before those in it
        for variable in layer.weights:
            owners[id(variable)] = RegularizedWeight(variable, layer)
    return list(owners.values())


def _is_kernel(variable: keras.Variable) -> bool:
    """By the name: biases have rank 2 as well, in attention and GRU layers."""
    return variable.name == "kernel" or variable.name.endswith("_kernel")


def _fits_by_path(variable: keras.Variable, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(variable.path, pattern) for pattern in patterns)
