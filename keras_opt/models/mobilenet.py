"""MobileNetV2 of any width, for large and small images."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_opt.core.errors import argument_error, check_positive
from keras_opt.models.blocks import (
    Blocks,
    check_classifier,
    check_input_shape,
    drop,
    is_small,
    preprocess,
    stage_rates,
)

# Expansion, filters, blocks and strides of each stage: table 2 of the paper.
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def mobilenet(
    input_shape: Sequence[int],
    classes: int,
    alpha: float = 1.0,
    *,
    stem: str = "auto",
    norm: str = "batch",
    norm_position: str = "before_activation",
    bn_momentum: float = 0.9,
    bn_epsilon: float = 1e-3,
    zero_init_last: bool = True,
    activation: str = "relu6",
    dropout: float | Sequence[float] = 0.0,
    weight_decay: float = 0.0,
    classifier_activation: str | None = "softmax",
    preprocessing: keras.layers.Layer | Sequence[keras.layers.Layer] = (),
    name: str = "mobilenet",
) -> keras.Model:
    """Builds a MobileNetV2: depthwise convolutions between a widening and a narrowing 1x1 convolution.

    The network for phones and microcontrollers: a depthwise convolution does a ninth of the work of a 3x3 one. What a
    block adds to its input is narrow and has no activation, so that little is lost and little must be kept in memory.
    The result is a plain functional model: Keras opens its file without keras_opt, and it converts to full int8 without
    a float island.

    Args:
        input_shape: `(height, width, channels)` of the raw image.
        classes: Int of at least 1, the width of the classifier; 1 for one number, with the `classifier_activation`
            `"sigmoid"` for two classes or `None` for a regression.
        alpha: Float above 0 by which all filters are multiplied, then rounded to multiples of 8; below 1 the last 1280
            stay. Default 1.0.
        stem: `"large"` makes one pixel of 32, as for 224; `"small"` leaves out the first two halvings. Default
            `"auto"`: small where a side has 64 pixels or fewer.
        norm: `"batch"`; `"sync"`, a BatchNorm with the statistics of all replicas; `"group"`, GroupNorm of 16
            channels a group (or the next larger number that divides them), for batches too small for statistics; or
            `"none"`.
        norm_position: `"before_activation"`, as published, or `"after_activation"`: each norm that has an activation
            changes places with it. The last norm of a block has none, and stays. `fold_batch_norm` refuses the second,
            because the depthwise convolution pads with zeros that the norm's shift would not reach.
        bn_momentum: Float in [0, 1). Default 0.9, for runs of a few hundred updates; Keras's 0.99 suits long ones.
        bn_epsilon: Float above 0. Default 1e-3, as in Keras.
        zero_init_last: The last gamma (without norm: the last kernel) of each block with a shortcut starts at 0, so
            that the block starts as the identity. Default `True`.
        activation: Name of a Keras activation. Default `"relu6"`, whose range suits int8.
        dropout: Float in [0, 1), the rate before the classifier; or a list of seven, the rate at the end of each stage
            of the paper's table 2, of which the last stands before the classifier.
        weight_decay: Float of at least 0. Adds `weight_decay / 2 * sum(kernel^2)` to the loss for each kernel but the
            depthwise ones, which hold few weights and suffer from it; not for biases and norms. The paper has 4e-5.
        classifier_activation: Name of an activation, or `None` for logits.
        preprocessing: Layers applied to the raw input first, for example `keras.layers.Rescaling(1 / 127.5, -1)`.
            A saved model with layers of keras_opt in it opens with `keras_opt.load_model`.
        name: Name of the model.

    Returns:
        A `keras.Model` from `(batch, *input_shape)` to `(batch, classes)`; `mobilenet((224, 224, 3), 1000)` has
        3,538,984 parameters, as keras.applications.MobileNetV2 has.

    Raises:
        ValueError: An argument is out of its range, or the input is smaller than what the stages make one pixel of.

    Source: M. Sandler et al., 2018, "MobileNetV2: Inverted Residuals and Linear Bottlenecks", tables 1 and 2;
        A. Howard et al., 2017, "MobileNets", section 3 (width multiplier, no decay on depthwise kernels); P. Goyal et
        al., 2017, "Accurate, Large Minibatch SGD", section 5.1 (gamma 0); Y. Wu and K. He, 2018, "Group Normalization".

    Example:
        >>> import keras_opt
        >>> model = keras_opt.models.mobilenet((96, 96, 3), 5, alpha=0.35)
    """
    blocks = Blocks("mobilenet", norm, norm_position, bn_momentum, bn_epsilon, activation, weight_decay)
    check_input_shape("mobilenet", input_shape, {3: "(height, width, channels)"})
    check_positive("mobilenet", "alpha", alpha)
    check_classifier("mobilenet", classes, classifier_activation)
    rates = stage_rates("mobilenet", dropout, len(_STAGES))
    halvings = (1, 1) if is_small("mobilenet", stem, input_shape) else (2, 2)  # of the stem and of stage 2
    reduction = 8 * halvings[0] * halvings[1]
    if min(input_shape[:2]) < reduction:
        must_be, cure = f"at least {reduction} along each side", "Take larger images, or the small stem."
        raise argument_error("mobilenet", "input_shape", input_shape, must_be, cure)
    inputs = keras.Input(input_shape, name="image")
    x = preprocess("mobilenet", inputs, preprocessing)
    x = blocks.convolve(x, _scaled(32, alpha), 3, "stem", strides=halvings[0])
    for stage, (expansion, filters, count, strides) in enumerate(_STAGES, start=1):
        for number in range(1, count + 1):
            stride = 1 if number > 1 else halvings[1] if stage == 2 else strides
            block = f"stage{stage}_block{number}"
            x = _block(blocks, x, expansion, _scaled(filters, alpha), stride, zero_init_last, block)
        if stage < len(_STAGES):
            x = drop(x, rates[stage - 1], f"dropout{stage}")
    x = blocks.convolve(x, _scaled(1280, max(alpha, 1.0)), 1, "top")
    x = drop(keras.layers.GlobalAveragePooling2D(name="global_pool")(x), rates[-1], "dropout")
    outputs = keras.layers.Dense(
        classes, activation=classifier_activation, kernel_regularizer=blocks.decay(), name="classifier"
    )(x)
    return keras.Model(inputs, outputs, name=name)


def _block(blocks: Blocks, x: Any, expansion: int, filters: int, strides: int, zero_init_last: bool, name: str) -> Any:
    shortcut = x if strides == 1 and x.shape[-1] == filters else None
    if expansion > 1:
        x = blocks.convolve(x, expansion * x.shape[-1], 1, f"{name}_expand")
    x = keras.layers.DepthwiseConv2D(
        3,
        strides,
        padding="same",
        use_bias=blocks.use_bias(),
        depthwise_initializer=blocks.depthwise_initializer(),
        name=f"{name}_depthwise_conv",
    )(x)
    norm = blocks.norm_layer(x.shape[-1], f"{name}_depthwise_norm")
    x = blocks.finish(x, norm, f"{name}_depthwise_activation")
    zero = zero_init_last and shortcut is not None
    x = blocks.convolve(x, filters, 1, f"{name}_project", active=False, zero=zero)
    return x if shortcut is None else keras.layers.Add(name=f"{name}_add")([shortcut, x])


def _scaled(filters: int, alpha: float) -> int:
    """`alpha * filters` rounded to a multiple of 8, and not down by more than a tenth."""
    wanted = filters * alpha
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * wanted else rounded + 8
