"""What the network builders share: the checks of their arguments, and the layers these ask for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras

from keras_opt.core.errors import (
    argument_error,
    check_at_least,
    check_choice,
    check_fraction,
    check_positive,
    kind_error,
)

CONVOLUTION = {1: keras.layers.Conv1D, 2: keras.layers.Conv2D}
MAX_POOLING = {1: keras.layers.MaxPooling1D, 2: keras.layers.MaxPooling2D}
GLOBAL_AVERAGE = {1: keras.layers.GlobalAveragePooling1D, 2: keras.layers.GlobalAveragePooling2D}
GLOBAL_MAX = {1: keras.layers.GlobalMaxPooling1D, 2: keras.layers.GlobalMaxPooling2D}

SMALL_IMAGE = 64  # the largest side for which the stem keeps the resolution
_OTHER_RANKS = {
    0: "Give for example (96, 96, 3).",
    1: "For features without an order take mlp.",
    2: "It takes images only: give their channels too, or take convnet or resnet for (length, channels).",
}

GROUP_SIZE = 16  # Wu & He, 2018, table 3


@dataclass(frozen=True)
class Blocks:
    """The layers of one network, by the arguments of its builder `owner`; a bad argument raises that owner's error."""

    owner: str
    norm: str
    norm_position: str
    bn_momentum: float
    bn_epsilon: float
    activation: Any
    weight_decay: float

    def __post_init__(self) -> None:
        check_choice(self.owner, "norm", self.norm, ("batch", "sync", "group", "none"))
        check_choice(self.owner, "norm_position", self.norm_position, ("before_activation", "after_activation"))
        check_fraction(self.owner, "bn_momentum", self.bn_momentum)
        check_positive(self.owner, "bn_epsilon", self.bn_epsilon)
        check_at_least(self.owner, "weight_decay", self.weight_decay, 0, whole=False)
        check_activation(self.owner, "activation", self.activation)

    def use_bias(self, active: bool = True) -> bool:
        """Whether a layer needs a bias: a norm that takes its outputs as they are has a beta in its place."""
        return self.norm == "none" or (active and self.norm_position == "after_activation")

    def decay(self) -> keras.Regularizer | None:
        """The regularizer of a kernel: its gradient is `weight_decay * kernel`."""
        return keras.regularizers.L2(self.weight_decay / 2) if self.weight_decay else None

    def depthwise_initializer(self) -> str | keras.Initializer:
        """That of a depthwise kernel, whose filters read one channel each, where Keras counts all of them as inputs.

        What follows is then nearly 0, which matters where no norm puts it right.
        """
        return keras.initializers.VarianceScaling(2.0, "fan_out") if self.norm == "none" else "glorot_uniform"

    def norm_layer(self, channels: int, name: str, zero: bool = False, positive: bool = False) -> keras.Layer | None:
        """The norm of `channels`, or `None`; with gamma 0 at the start, or (in a BatchNorm) kept from below 0."""
        gamma = "zeros" if zero else "ones"
        if self.norm == "none":
            return None
        if self.norm == "group":
            size = next(n for n in range(min(GROUP_SIZE, channels), channels + 1) if channels % n == 0)
            return keras.layers.GroupNormalization(
                channels // size, epsilon=self.bn_epsilon, gamma_initializer=gamma, name=name
            )
        return keras.layers.BatchNormalization(
            momentum=self.bn_momentum,
            epsilon=self.bn_epsilon,
            gamma_initializer=gamma,
            gamma_constraint=keras.constraints.NonNeg() if positive else None,
            synchronized=self.norm == "sync",
            name=name,
        )

    def finish(self, x: Any, norm: keras.Layer | None, activation: str | None) -> Any:
        """Apply `norm` and an activation layer of the name `activation`, each unless `None`, in their order."""
        layers = [] if norm is None else [norm]
        if activation is not None:
            place = len(layers) if self.norm_position == "before_activation" else 0
            layers.insert(place, keras.layers.Activation(self.activation, name=activation))
        return in_turn(x, layers)

    def convolve(
        self, x: Any, filters: int, size: int, name: str, *, strides: int = 1, active: bool = True, zero: bool = False
    ) -> Any:
        """Apply a convolution that keeps the size, its norm and, if `active`, its activation.

        With `zero` the outputs are 0 at the start: by gamma, or by the kernel where there is no norm.
        """
        unnormed_zero = zero and self.norm == "none"
        x = CONVOLUTION[len(x.shape) - 2](
            filters,
            size,
            strides=strides,
            padding="same",
            use_bias=self.use_bias(active),
            kernel_initializer="zeros" if unnormed_zero else "he_normal",
            kernel_regularizer=self.decay(),
            name=f"{name}_conv",
        )(x)
        norm = self.norm_layer(filters, f"{name}_norm", zero=zero)
        return self.finish(x, norm, f"{name}_activation" if active else None)


def in_turn(x: Any, layers: keras.Layer | Sequence[keras.Layer]) -> Any:
    """Apply one layer, or several one after another."""
    for layer in [layers] if isinstance(layers, keras.Layer) else layers:
        x = layer(x)
    return x


def preprocess(owner: str, x: Any, layers: keras.layers.Layer | Sequence[keras.layers.Layer]) -> Any:
    """As `in_turn`, with the argument `preprocessing` of a builder."""
    if not isinstance(layers, keras.Layer) and not (isinstance(layers, Sequence) and all(map(callable, layers))):
        must_be, cure = "a Keras layer or a list of them", "Give for example keras.layers.Rescaling(1 / 255)."
        raise kind_error(owner, "preprocessing", layers, must_be, cure)
    return in_turn(x, layers)


def drop(x: Any, rate: float, name: str) -> Any:
    """Apply a dropout, if there is a rate."""
    return keras.layers.Dropout(rate, name=name)(x) if rate else x


def stage_rates(owner: str, dropout: float | Sequence[float], stages: int) -> list[float]:
    """The dropout rate at the end of each stage; one rate is that of the last."""
    if not isinstance(dropout, list | tuple):
        check_fraction(owner, "dropout", dropout)
        return [0.0] * (stages - 1) + [dropout]
    if len(dropout) != stages:
        cure = "Give one rate a stage, or one number for the rate before the classifier."
        raise argument_error(owner, "dropout", dropout, f"{stages} rates, one a stage", cure)
    for rate in dropout:
        check_fraction(owner, "dropout", rate)
    return list(dropout)


def check_activation(owner: str, name: str, value: object) -> None:
    """Raise unless Keras knows the activation `value`."""
    try:
        keras.activations.get(value)
    except (TypeError, ValueError) as error:
        cure = 'Give for example "relu".'
        raise argument_error(owner, name, value, "the name of a Keras activation", cure) from error


def check_classifier(owner: str, classes: object, classifier_activation: object) -> None:
    """Raise unless a dense layer of `classes` outputs with this activation can tell anything."""
    check_at_least(owner, "classes", classes, 1)
    check_activation(owner, "classifier_activation", classifier_activation)
    if classes == 1 and keras.activations.get(classifier_activation) is keras.activations.softmax:
        cure = 'Give 2, or classifier_activation="sigmoid" (or None for a regression).'
        must_be = "at least 2 under a softmax, which makes 1.0 of any one output"
        raise argument_error(owner, "classes", classes, must_be, cure)


def check_sizes(owner: str, name: str, value: object, example: str) -> None:
    """Raise unless `value` is a sequence of at least one int, all of at least 1."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise kind_error(owner, name, value, "a sequence of ints", f"Give {example}.")
    if not value:
        raise argument_error(owner, name, value, "a sequence of at least one int", f"Give {example}.")
    for place, size in enumerate(value):
        check_at_least(owner, f"{name}[{place}]", size, 1)


def check_input_shape(owner: str, value: object, shapes: dict[int, str]) -> None:
    """Raise unless `value` is a shape of fixed sizes of one of the ranks in `shapes`, each with how it reads."""
    readings = " or ".join(shapes.values())
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise argument_error(owner, "input_shape", value, readings, "Give for example (96, 96, 3).")
    if len(value) not in shapes:
        cure = _OTHER_RANKS.get(len(value), "Leave out the batch.")
        raise argument_error(owner, "input_shape", value, readings, cure)
    check_sizes(owner, "input_shape", value, readings)


def is_small(owner: str, stem: str, input_shape: Sequence[int]) -> bool:
    """Whether the stem keeps the resolution; raise unless `stem` is one that there is."""
    check_choice(owner, "stem", stem, ("auto", "small", "large"))
    return stem == "small" or (stem == "auto" and min(input_shape[:-1]) <= SMALL_IMAGE)
