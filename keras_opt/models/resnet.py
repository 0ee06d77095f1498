"""Residual networks of the published depths, for large images, small images and sensor windows."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_opt.core.errors import argument_error, check_at_least, check_choice
from keras_opt.models.blocks import (
    GLOBAL_AVERAGE,
    MAX_POOLING,
    Blocks,
    check_classifier,
    check_input_shape,
    drop,
    is_small,
    preprocess,
    stage_rates,
)

# Blocks a stage: four stages in table 1 of the paper, three in its section 4.2.
_DEPTHS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    20: (3, 3, 3),
    32: (5, 5, 5),
    44: (7, 7, 7),
    56: (9, 9, 9),
    110: (18, 18, 18),
}
_BOTTLENECKS = (50, 101, 152)


def resnet(
    depth: int,
    input_shape: Sequence[int],
    classes: int,
    width: int = 64,
    *,
    stem: str = "auto",
    norm: str = "batch",
    norm_position: str = "before_activation",
    bn_momentum: float = 0.9,
    bn_epsilon: float = 1e-3,
    zero_init_last: bool = True,
    activation: str = "relu",
    dropout: float | Sequence[float] = 0.0,
    weight_decay: float = 0.0,
    classifier_activation: str | None = "softmax",
    preprocessing: keras.layers.Layer | Sequence[keras.layers.Layer] = (),
    name: str | None = None,
) -> keras.Model:
    """Builds a residual network: blocks that add what their convolutions find to what they were given.

        x = activation(shortcut(x) + branch(x))

    Compared with keras.applications: any input and width, no bias before a norm, the choice of norm, and branches that
    are 0 at the start. A bottleneck halves the image in its 3x3 convolution, not in the 1x1 before it, which would
    throw three pixels of four away. The result is a plain functional model: Keras opens its file without keras_opt, and
    it converts to full int8 without a float island.

    Args:
        depth: 18 or 34 (two 3x3 convolutions a block), 50, 101 or 152 (bottlenecks), in four stages; or 20, 32, 44, 56
            or 110, in the three stages that the paper has for images of 32 pixels, there with `width=16`.
        input_shape: `(height, width, channels)` of the raw image, or `(length, channels)` of a sensor window, whose
            convolutions and poolings are one-dimensional.
        classes: Int of at least 1, the width of the classifier; 1 for one number, with the `classifier_activation`
            `"sigmoid"` for two classes or `None` for a regression.
        width: Int of at least 1, the filters of the first stage; each further one has twice as many. Default 64.
        stem: `"large"` begins with a convolution of 7 with stride 2 and a pooling, as for 224 pixels; `"small"` with
            one of 3 and stride 1. Default `"auto"`: small where a side has 64 pixels or fewer.
        norm: `"batch"`; `"sync"`, a BatchNorm with the statistics of all replicas; `"group"`, GroupNorm of 16
            channels a group (or the next larger number that divides them), for batches too small for statistics; or
            `"none"`.
        norm_position: `"before_activation"`, as published, or `"after_activation"`: each norm that has an activation
            changes places with it. The last norm of a branch has none, and stays. `fold_batch_norm` refuses the
            second, because the next convolution pads with zeros that the norm's shift would not reach.
        bn_momentum: Float in [0, 1). Default 0.9, for runs of a few hundred updates; Keras's 0.99 suits long ones.
        bn_epsilon: Float above 0. Default 1e-3, as in Keras.
        zero_init_last: The last gamma of each branch starts at 0 (without norm: the last kernel), so that each block
            starts as its shortcut alone and the network as a shallow one. Default `True`.
        activation: Name of a Keras activation.
        dropout: Float in [0, 1), the rate before the classifier; or a list with the rate at the end of each stage, of
            which the last stands before the classifier.
        weight_decay: Float of at least 0. Adds `weight_decay / 2 * sum(kernel^2)` to the loss for each kernel, not for
            biases and norms: SGD then shrinks kernels as by its own `weight_decay`. The paper has 1e-4. With Adam
            prefer AdamW and `exclude_norm_and_bias_from_decay`.
        classifier_activation: Name of an activation, or `None` for logits.
        preprocessing: Layers applied to the raw input first, for example `keras.layers.Rescaling(1 / 255)`.
            A saved model with layers of keras_opt in it opens with `keras_opt.load_model`.
        name: Name of the model; `"resnet"` and the depth by default.

    Returns:
        A `keras.Model` from `(batch, *input_shape)` to `(batch, classes)`. `resnet(50, (224, 224, 3), 1000)` has
        25,557,032 trainable parameters, `resnet(20, (32, 32, 3), 10, width=16)` has 272,474.

    Raises:
        ValueError: An argument is out of its range, or the input is smaller than what the stages make one pixel of.

    Source: K. He et al., 2016, "Deep Residual Learning for Image Recognition", table 1 and section 4.2; P. Goyal et
        al., 2017, "Accurate, Large Minibatch SGD", section 5.1 (stride in the 3x3 convolution, gamma 0); Y. Wu and
        K. He, 2018, "Group Normalization"; H. Zhang et al., 2019, "Fixup Initialization" (last kernel 0).

    Example:
        >>> import keras_opt
        >>> model = keras_opt.models.resnet(20, (32, 32, 3), 10, width=16)
        >>> windows = keras_opt.models.resnet(20, (128, 6), 5, width=8)
    """
    blocks = Blocks("resnet", norm, norm_position, bn_momentum, bn_epsilon, activation, weight_decay)
    check_choice("resnet", "depth", depth, _DEPTHS)
    check_input_shape("resnet", input_shape, {3: "(height, width, channels)", 2: "(length, channels)"})
    check_at_least("resnet", "width", width, 1)
    check_classifier("resnet", classes, classifier_activation)
    counts, small = _DEPTHS[depth], is_small("resnet", stem, input_shape)
    rates = stage_rates("resnet", dropout, len(counts))
    reduction = 2 ** (len(counts) - 1) * (1 if small else 4)
    if min(input_shape[:-1]) < reduction:
        must_be, cure = f"at least {reduction} along each side", "Take larger images, or the small stem."
        raise argument_error("resnet", "input_shape", input_shape, must_be, cure)
    rank = len(input_shape) - 1
    inputs = keras.Input(input_shape, name="image" if rank == 2 else "window")
    x = preprocess("resnet", inputs, preprocessing)
    if small:
        x = blocks.convolve(x, width, 3, "stem")
    else:
        x = blocks.convolve(x, width, 7, "stem", strides=2)
        x = MAX_POOLING[rank](3, strides=2, padding="same", name="stem_pool")(x)
    for stage, count in enumerate(counts, start=1):
        for number in range(1, count + 1):
            strides = 2 if stage > 1 and number == 1 else 1
            convolutions = _convolutions(depth, width * 2 ** (stage - 1), strides)
            x = _block(blocks, x, convolutions, zero_init_last, f"stage{stage}_block{number}")
        if stage < len(counts):
            x = drop(x, rates[stage - 1], f"dropout{stage}")
    x = drop(GLOBAL_AVERAGE[rank](name="global_pool")(x), rates[-1], "dropout")
    outputs = keras.layers.Dense(
        classes, activation=classifier_activation, kernel_regularizer=blocks.decay(), name="classifier"
    )(x)
    return keras.Model(inputs, outputs, name=name or f"resnet{depth}")


def _convolutions(depth: int, filters: int, strides: int) -> list[tuple[int, int, int]]:
    """Filters, size and strides of each convolution in a branch."""
    if depth in _BOTTLENECKS:
        return [(filters, 1, 1), (filters, 3, strides), (4 * filters, 1, 1)]
    return [(filters, 3, strides), (filters, 3, 1)]


def _block(blocks: Blocks, x: Any, convolutions: list[tuple[int, int, int]], zero_init_last: bool, name: str) -> Any:
    shortcut, channels = x, convolutions[-1][0]
    strides = max(strides for _, _, strides in convolutions)
    if strides > 1 or x.shape[-1] != channels:
        shortcut = blocks.convolve(x, channels, 1, f"{name}_shortcut", strides=strides, active=False)
    for number, (filters, size, strides) in enumerate(convolutions, start=1):
        last = number == len(convolutions)
        x = blocks.convolve(
            x, filters, size, f"{name}_{number}", strides=strides, active=not last, zero=last and zero_init_last
        )
    x = keras.layers.Add(name=f"{name}_add")([shortcut, x])
    return keras.layers.Activation(blocks.activation, name=f"{name}_activation")(x)
