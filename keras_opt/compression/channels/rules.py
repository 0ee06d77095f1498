"""What each kind of layer does to the channels of its inputs, and how its weights are cut to those that stay."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from keras_opt.compression.channels.elementwise import ELEMENTWISE_ACTIVATIONS
from keras_opt.compression.channels.sets import ChannelSets, Labels
from keras_opt.models.affine_folding import AVERAGES, CONVOLUTIONS, DEPTHWISE, IDENTITIES, MAXIMA, SEPARABLE, TRANSPOSED


@dataclass(frozen=True)
class ChannelTensor:
    """A tensor of the graph: the channels along its last axis, and its shape with the batch first."""

    labels: Labels
    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class Cut:
    """How a layer is made smaller.

    Args:
        weights: For each weight by name the channels along its last axes; `None` for an axis that is not cut.
        config: For each entry of the config the channels that it depends on, and its value for the number that stay.
        kernel: The name of the weight that makes channels, and the axis along which they lie.
    """

    weights: dict[str, tuple[Labels | None, ...]] = field(default_factory=dict)
    config: dict[str, tuple[Labels, Callable[[int], Any]]] = field(default_factory=dict)
    kernel: tuple[str, int] | None = None

    @property
    def made(self) -> Labels:
        """The channels that the layer makes."""
        name, axis = self.kernel
        return self.weights[name][axis]

    def all_labels(self) -> list[Labels]:
        """The channels that it depends on, in an order that is the same for each call of a layer."""
        along_weights = [axis for axes in self.weights.values() for axis in axes if axis is not None]
        return [*along_weights, *(labels for labels, _ in self.config.values())]


class NotFollowed(Exception):
    """Channels cannot be followed through a layer, for the reason that the message gives."""


@dataclass(frozen=True)
class Step:
    """One call of a layer.

    Args:
        layer: The layer.
        inputs: The tensors it is called on.
        made: The channels that the layer makes, the same at each call; asked for by their number.
        channels: What is known of all channels.
    """

    layer: keras.Layer
    inputs: list[ChannelTensor]
    made: Callable[[int], Labels]
    channels: ChannelSets

    @property
    def labels(self) -> Labels:
        """The channels of the only input."""
        return self.inputs[0].labels

    @property
    def rank(self) -> int:
        return len(self.inputs[0].shape)

    def keep(self, labels: Labels, reason: str) -> Labels:
        """`labels`, of which none can go, for this reason."""
        self.channels.keep(labels, f"`{self.layer.name}` ({type(self.layer).__name__}) {reason}")
        return labels

    def activated(self, labels: Labels) -> Labels:
        """`labels` behind the layer's activation."""
        activation = self.layer.activation
        if activation in ELEMENTWISE_ACTIVATIONS or type(activation) in _ACTIVATIONS:
            return labels
        name = getattr(activation, "__name__", type(activation).__name__)
        return self.keep(labels, f"has the activation `{name}`, which may mix channels")


Result = tuple[Labels, Cut | None]


def follow(step: Step) -> Result:
    """The channels of the layer's output, and how the layer is cut, if it is.

    Raises:
        NotFollowed: With the reason.
    """
    rule = _RULES.get(type(step.layer))
    if rule is None:
        raise NotFollowed("is of a kind that keras_opt does not follow")
    if rule is not _merged and rule is not _concatenated and len(step.inputs) != 1:
        raise NotFollowed(f"is called on {len(step.inputs)} tensors")
    if getattr(step.layer, "data_format", "channels_last") != "channels_last":
        raise NotFollowed("has its channels first")
    if rule is not _embedding and any(len(x.shape) < 2 or x.shape[-1] is None for x in step.inputs):
        raise NotFollowed("has inputs without a known number of channels")
    labels, cut = rule(step)
    unknown = {weight.name for weight in step.layer.weights} - set(cut.weights if cut else ())
    if unknown:
        raise NotFollowed(f"has the weights {sorted(unknown)}, which keras_opt does not know")
    return labels, cut


def merge(inputs: list[ChannelTensor], channels: ChannelSets) -> Labels:
    """The channels of an elementwise function of several tensors: those in one place are tied.

    A tensor of one channel is spread over those of the others. It always stays: it is all that is left of its family.
    """
    widest = max((x.labels for x in inputs), key=len)
    for x in inputs:
        if len(x.labels) > 1:
            channels.tie(x.labels, widest)
    return widest


def _merged(step):
    return merge(step.inputs, step.channels), None


def _concatenated(step):
    if step.layer.axis in (-1, step.rank - 1):
        return np.concatenate([x.labels for x in step.inputs]), None
    return _merged(step)


def _passed(step):
    noise_shape = getattr(step.layer, "noise_shape", None)
    if noise_shape and noise_shape[-1] not in (None, 1):
        raise NotFollowed("has a noise_shape with a number of channels")
    return step.labels, None


def _activation(step):
    return step.activated(step.labels), None


def _rescaling(step):
    if np.ndim(step.layer.scale) or np.ndim(step.layer.offset):
        raise NotFollowed("scales each channel on its own")
    return step.labels, None


def _mixed(step):
    axes = step.layer.axis if isinstance(step.layer.axis, list | tuple) else [step.layer.axis]
    if not {-1, step.rank - 1}.isdisjoint(axes):
        step.keep(step.labels, "makes each channel depend on all others")
    return step.labels, _whole(step)


def _whole(step):
    return Cut({weight.name: () for weight in step.layer.weights})


def _dense(step):
    own = step.made(step.layer.units)
    cut = Cut({"kernel": (step.labels, own), "bias": (own,)}, {"units": (own, int)}, ("kernel", -1))
    return step.activated(own), cut


def _convolution(step):
    layer = step.layer
    own, inputs = step.made(layer.filters), step.labels
    config = {"filters": (own, int)}
    if layer.groups > 1:
        # A whole group goes, with all that it reads and makes: its kernel reads as many channels as before.
        size = layer.filters // layer.groups
        for read, made in zip(inputs.reshape(layer.groups, -1), own.reshape(layer.groups, -1), strict=True):
            step.channels.tie_all(np.concatenate([read, made]))
        config["groups"] = (own, lambda count: count // size)
        inputs = None
    return step.activated(own), Cut({"kernel": (inputs, own), "bias": (own,)}, config, ("kernel", -1))


def _transposed(step):
    own = step.made(step.layer.filters)
    cut = Cut({"kernel": (own, step.labels), "bias": (own,)}, {"filters": (own, int)}, ("kernel", -2))
    return step.activated(own), cut


def _depthwise(step):
    outputs = np.repeat(step.labels, step.layer.depth_multiplier)
    cut = Cut({"kernel": (step.labels, None), "bias": (outputs,)}, {}, ("kernel", -2))
    return step.activated(outputs), cut


def _separable(step):
    own = step.made(step.layer.filters)
    between = np.repeat(step.labels, step.layer.depth_multiplier)
    weights = {"depthwise_kernel": (step.labels, None), "pointwise_kernel": (between, own), "bias": (own,)}
    return step.activated(own), Cut(weights, {"filters": (own, int)}, ("pointwise_kernel", -1))


def _recurrent(step):
    """LSTM, GRU and SimpleRNN, whose kernels hold the gates side by side."""
    own = step.made(step.layer.units)
    gates = np.tile(own, step.layer.cell.kernel.shape[-1] // len(own))
    for name in ("activation", "recurrent_activation"):
        if getattr(step.layer, name, keras.activations.tanh) not in ELEMENTWISE_ACTIVATIONS:
            step.keep(own, f"has the {name} `{getattr(step.layer, name)}`, which may mix channels")
    weights = {"kernel": (step.labels, gates), "recurrent_kernel": (own, gates), "bias": (gates,)}
    return own, Cut(weights, {"units": (own, int)}, ("kernel", -1))


def _embedding(step):
    own = step.made(step.layer.output_dim)
    return own, Cut({"embeddings": (own,)}, {"output_dim": (own, int)}, ("embeddings", -1))


def _batch_norm(step):
    if step.layer.axis not in (-1, step.rank - 1):
        raise NotFollowed(f"works on the axis {step.layer.axis}")
    names = ("gamma", "beta", "moving_mean", "moving_variance")
    return step.labels, Cut(dict.fromkeys(names, (step.labels,)))


def _group_norm(step):
    layer = step.layer
    if layer.axis not in (-1, step.rank - 1):
        raise NotFollowed(f"works on the axis {layer.axis}")
    if layer.groups == 1 and len(step.labels) > 1:
        return step.keep(step.labels, "takes its statistics over all channels"), _whole(step)
    for members in step.labels.reshape(layer.groups, -1):
        step.channels.tie_all(members)
    size = len(step.labels) // layer.groups
    config = {"groups": (step.labels, lambda count: count // size)}
    return step.labels, Cut({"gamma": (step.labels,), "beta": (step.labels,)}, config)


def _prelu(step):
    shared = (step.rank - 1) in (step.layer.shared_axes or ())
    return step.labels, Cut({"alpha": (None if shared else step.labels,)})


def _permuted(step):
    if step.layer.dims[-1] != step.rank - 1:
        raise NotFollowed("moves the channels to another axis")
    return step.labels, None


def _flattened(step):
    positions = step.inputs[0].shape[1:-1]
    if None in positions:
        raise NotFollowed("flattens a tensor of no fixed size")
    return np.tile(step.labels, math.prod(positions)), None


def _reshaped(step):
    """Row by row the channels are the fastest index, before and behind."""
    before, shape = step.labels, step.layer.target_shape
    size = shape[-1] if shape else 1
    if size == -1:
        sizes = step.inputs[0].shape[1:]
        if None in sizes:
            raise NotFollowed("reshapes a tensor of no fixed size")
        size = math.prod(sizes) // -math.prod(shape)
    if not shape or (size % len(before) and len(before) % size):
        raise NotFollowed(f"reshapes {len(before)} channels to {shape}")
    if size % len(before) == 0:
        after = np.tile(before, size // len(before))
    else:
        after = before[:size]
        for row in before.reshape(-1, size):
            step.channels.tie(row, after)
    return after, Cut(config={"target_shape": (after, lambda count: (*shape[:-1], count))})


_ACTIVATIONS = (keras.layers.ELU, keras.layers.LeakyReLU, keras.layers.ReLU)
_PASSED = (
    *_ACTIVATIONS,
    *AVERAGES,
    *IDENTITIES,
    *MAXIMA,
    keras.layers.Cropping1D,
    keras.layers.Cropping2D,
    keras.layers.Cropping3D,
    keras.layers.RepeatVector,
    keras.layers.UpSampling1D,
    keras.layers.UpSampling2D,
    keras.layers.UpSampling3D,
    keras.layers.ZeroPadding1D,
    keras.layers.ZeroPadding2D,
    keras.layers.ZeroPadding3D,
)
_MERGED = (
    keras.layers.Add,
    keras.layers.Average,
    keras.layers.Maximum,
    keras.layers.Minimum,
    keras.layers.Multiply,
    keras.layers.Subtract,
)
_MIXED = (
    keras.layers.LayerNormalization,
    keras.layers.RMSNormalization,
    keras.layers.Softmax,
    keras.layers.UnitNormalization,
)
# A subclass may do something else: it is not followed.
_RULES: dict[type, Callable[[Step], Result]] = {
    **dict.fromkeys(_PASSED, _passed),
    **dict.fromkeys(_MERGED, _merged),
    **dict.fromkeys(_MIXED, _mixed),
    **dict.fromkeys(CONVOLUTIONS, _convolution),
    **dict.fromkeys(DEPTHWISE, _depthwise),
    **dict.fromkeys(SEPARABLE, _separable),
    **dict.fromkeys(TRANSPOSED, _transposed),
    **dict.fromkeys((keras.layers.GRU, keras.layers.LSTM, keras.layers.SimpleRNN), _recurrent),
    keras.layers.Activation: _activation,
    keras.layers.BatchNormalization: _batch_norm,
    keras.layers.Concatenate: _concatenated,
    keras.layers.Dense: _dense,
    keras.layers.Embedding: _embedding,
    keras.layers.Flatten: _flattened,
    keras.layers.GroupNormalization: _group_norm,
    keras.layers.Permute: _permuted,
    keras.layers.PReLU: _prelu,
    keras.layers.Rescaling: _rescaling,
    keras.layers.Reshape: _reshaped,
}
