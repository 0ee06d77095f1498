"""Whole channels taken out of a model: the same graph, narrower."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

import keras
import numpy as np

from keras_opt.compression.channels.cut_model import cut_model
from keras_opt.compression.channels.graph import ChannelGraph
from keras_opt.compression.channels.sets import ChannelGroup
from keras_opt.core.errors import (
    InputError,
    NoEffectWarning,
    argument_error,
    check_choice,
    did_you_mean,
    is_number,
    kind_error,
)
from keras_opt.core.patterns import fits
from keras_opt.models.affine_folding import array
from keras_opt.models.graph import has_graph

_NO_SCORE = -1.0  # below the score of zeros


def prune_channels(model: keras.Model, keep: float | Mapping[str, float] = 0.5, criterion: str = "l1") -> keras.Model:
    """Returns a new, smaller model without the least important channels of `model`, to be trained further.

    Zeros in a kernel save nothing at run time; a channel that is gone does, on every device. With half of the channels
    most convolutions do a quarter of the multiplications. Prune a trained model, then train the new one at a low rate:
    until then its accuracy is poor. Prune channels before single weights and before quantization-aware training. Widths
    that are multiples of 8 run best, because LiteRT computes so many channels at a time.

    Channels are followed through the graph, and those that some layer ties together make one unit, which stays or goes
    as a whole: the channels in one place of all branches of a residual sum, those that a depthwise convolution makes of
    one channel, whole groups of GroupNormalization and of grouped convolutions. Units of which the same layers make
    the channels form a group. Of the n units of a group

        max(1, round(keep * n))

    stay, those with the largest scores, in their order. The score is the sum, over all filters that make the unit, of

        "l1": sum(|filter|)        "l2": sqrt(sum(filter^2))

    or, by "bn_gamma", of the |gamma| of each BatchNorm on it. What reads the channels is cut to those that are left,
    behind a Flatten at each position. Nothing else changes, so the outputs stay as they are if what goes is zero where
    the next convolution or dense layer reads it: where kernel, bias, beta and moving mean are zero, and the activation
    makes 0 of 0.

    Channels that are inputs or outputs of the model stay, also if a Reshape, a Softmax or the like stands between.
    Where channels should go that meet a layer that cannot be followed (TimeDistributed, Bidirectional, attention,
    Lambda, LayerNormalization, GroupNormalization of one group, a subclass of a Keras layer, keras.ops that are not
    elementwise), the model is refused; a dict `keep` leaves such channels out.

    Args:
        model: A built functional or Sequential model; it is left as it is. Nested models are pruned inside.
        keep: Float in (0, 1], the fraction of channels that stays in each group; or a dict from layers to fractions, by
            name, path or pattern (as in `fnmatch`), of which the last that fits counts. A layer stands for the group
            its channels are in; groups without a layer in the dict stay whole. Default 0.5.
        criterion: `"l1"`, `"l2"` or `"bn_gamma"`, which is meant for models trained with an L1 penalty on each gamma
            (`add_regularization(model, l1=1e-4, include=["*/gamma"])`). Default `"l1"`.

    Returns:
        A functional model of plain Keras, not compiled, with the names, dtype policies, regularizers and trainable
        flags of `model`.

    Raises:
        ValueError: An argument is out of its range; `keep` names no layer whose channels can go, or asks two fractions
            of one group; channels that should go cannot be followed; or a group has no BatchNorm with a gamma, for
            `"bn_gamma"`. The message names the layers.

    Warns:
        NoEffectWarning: Nothing was removed.

    Cost: one more model of the new size; seconds for the networks of keras.applications.

    Source: H. Li et al., 2017, "Pruning Filters for Efficient ConvNets", section 3.1 (L1 norms); Z. Liu et al., 2017,
        "Learning Efficient Convolutional Networks through Network Slimming", section 3 (gamma); G. Fang et al., 2023,
        "DepGraph: Towards Any Structural Pruning", section 3 (groups).

    Example:
        >>> import keras_opt
        >>> model = keras_opt.models.convnet((32, 64), (28, 28, 1), 10)
        >>> smaller = keras_opt.compression.prune_channels(model, keep={"conv*": 0.5, "conv1": 0.75})
        >>> smaller.get_layer("conv1").filters, smaller.get_layer("conv2").filters
        (24, 32)
        >>> keras_opt.models.macs(model), keras_opt.models.macs(smaller)
        (2440960, 990368)
    """
    check_keep("prune_channels", keep)
    check_choice("prune_channels", "criterion", criterion, ("l1", "l2", "bn_gamma"))
    if not has_graph(model):
        cure = "Give a functional or Sequential model that starts with keras.Input."
        raise argument_error("prune_channels", "model", model, "a built model with a graph of layers", cure)
    graph = ChannelGraph(model)
    groups = _groups(graph)
    fractions, scores = _fractions(groups, keep), _scores(graph, criterion)
    stays = np.ones(len(graph.channels), bool)
    for group, fraction in zip(groups, fractions, strict=True):
        if fraction < 1:
            for unit in group.least(scores, fraction):
                stays[unit] = False
    if stays.all():
        _warn_without_effect(groups, keep)
    return cut_model(graph, stays)


@dataclass(frozen=True)
class _Group:
    """Channels that are pruned together, and the layers that make them."""

    channels: ChannelGroup
    makers: list[keras.Layer]

    def __str__(self) -> str:
        names = [f"`{layer.name}`" for layer in self.makers]
        return ", ".join(names if len(names) <= 4 else [*names[:3], f"and {len(names) - 3} more"])

    def least(self, scores: np.ndarray, fraction: float) -> list[np.ndarray]:
        """The units that go, by the scores of their channels."""
        units = self.channels.units
        if any(np.all(scores[unit] == _NO_SCORE) for unit in units):
            raise InputError(
                f"prune_channels: no BatchNorm has a gamma for the channels of {self}, as criterion='bn_gamma' needs. "
                "Take another criterion, or leave these layers out: give `keep` as a dict of the others."
            )
        sums = [np.maximum(scores[unit], 0).sum() for unit in units]
        count = len(units) - max(1, round(fraction * len(units)))
        return [units[place] for place in np.argsort(sums, kind="stable")[:count]]


def _groups(graph: ChannelGraph) -> list[_Group]:
    groups = graph.channels.groups()
    number_of = np.empty(len(graph.channels), int)
    for number, group in enumerate(groups):
        number_of[group.labels] = number
    makers = [[] for _ in groups]
    for layer, cut in graph.cuts.values():
        if cut.kernel is not None:
            for number in np.unique(number_of[cut.made]):
                makers[number].append(layer)
    return [_Group(group, layers) for group, layers in zip(groups, makers, strict=True) if layers]


def _scores(graph: ChannelGraph, criterion: str) -> np.ndarray:
    """The score of each channel by its number."""
    scores = np.full(len(graph.channels), _NO_SCORE)
    for layer, cut in graph.cuts.values():
        scored = cut.kernel
        if criterion == "bn_gamma":
            has_gamma = isinstance(layer, keras.layers.BatchNormalization) and layer.scale
            scored = ("gamma", -1) if has_gamma else None
        if scored is None:
            continue
        name, axis = scored
        labels = cut.weights[name][axis]
        weight = next(array(weight) for weight in layer.weights if weight.name == name)
        filters = np.moveaxis(weight, axis, 0).reshape(len(labels), -1)
        scores[labels] = np.maximum(scores[labels], 0)
        np.add.at(scores, labels, np.linalg.norm(filters, 2 if criterion == "l2" else 1, axis=1))
    return scores


def _fractions(groups: list[_Group], keep: float | Mapping[str, float]) -> list[float]:
    """The fraction that stays of each group."""
    if isinstance(keep, Mapping):
        fractions = _fractions_by_layer(groups, keep)
    else:
        fractions = [1.0 if group.channels.stays else keep for group in groups]
    for group, fraction in zip(groups, fractions, strict=True):
        if fraction < 1 and group.channels.refusal:
            raise InputError(
                f"prune_channels: the channels of {group} cannot be pruned: {group.channels.refusal}. Leave them out: "
                "give `keep` as a dict of the other layers."
            )
    return fractions


def _fractions_by_layer(groups, keep):
    names = [layer.name for group in groups if not group.channels.stays for layer in group.makers]
    for pattern, fraction in keep.items():
        fitting = [group for group in groups if any(_fits(layer, pattern) for layer in group.makers)]
        if not fitting or (fraction < 1 and all(group.channels.stays for group in fitting)):
            must_be = "a dict whose keys fit layers of which channels can go"
            raise argument_error("prune_channels", "keep", pattern, must_be, did_you_mean(pattern, names))
    fractions = []
    for group in groups:
        by_layer = {layer.name: keep[pattern] for pattern in keep for layer in group.makers if _fits(layer, pattern)}
        if len(set(by_layer.values())) > 1 and not group.channels.stays:
            each = ", ".join(f"`{name}` {fraction}" for name, fraction in by_layer.items())
            must_be = f"one fraction for the channels that {group} have in common"
            raise argument_error("prune_channels", "keep", keep, must_be, f"They would keep: {each}.")
        fractions.append(1.0 if group.channels.stays else next(iter(by_layer.values()), 1.0))
    return fractions


def _fits(layer, pattern):
    return fnmatchcase(layer.name, pattern) or fits(layer.weights[0], [pattern])


def check_keep(owner: str, keep: object) -> None:
    """Raise unless `keep`, the argument of `owner`, is a fraction in (0, 1] or a dict of them."""
    if not isinstance(keep, Mapping):
        _check_fraction(owner, "keep", keep)
        return
    if not keep or not all(isinstance(pattern, str) for pattern in keep):
        must_be = "a fraction, or a dict from layers to fractions"
        raise kind_error(owner, "keep", keep, must_be, 'Give for example {"conv*": 0.5}.')
    for pattern, fraction in keep.items():
        _check_fraction(owner, f"keep[{pattern!r}]", fraction)


def _check_fraction(owner, name, value):
    if not is_number(value) or not 0 < value <= 1:
        cure = "Give the fraction of channels that stays, not a percentage."
        raise argument_error(owner, name, value, "a fraction in (0, 1]", cure)


def _warn_without_effect(groups: list[_Group], keep: object) -> None:
    free = [group for group in groups if not group.channels.stays and not group.channels.refusal]
    sizes = [f"{group}: {len(group.channels.units)}" for group in free]
    warnings.warn(
        f"prune_channels: keep={keep} removes no channel. Groups that could lose some, by their layers, and how many "
        f"units each has: {'; '.join(sizes) or 'none'}.",
        NoEffectWarning,
        stacklevel=3,
    )
