"""A plain convolutional network for images or sensor windows, with BatchNorm where it belongs."""

from collections.abc import Sequence

import keras

from keras_opt.core.errors import argument_error, check_choice
from keras_opt.models.blocks import (
    CONVOLUTION,
    GLOBAL_AVERAGE,
    GLOBAL_MAX,
    MAX_POOLING,
    Blocks,
    check_classifier,
    check_input_shape,
    check_sizes,
    drop,
    preprocess,
    stage_rates,
)


def convnet(
    filters: Sequence[int],
    input_shape: Sequence[int],
    classes: int,
    *,
    norm: str = "batch",
    norm_position: str = "before_activation",
    bn_momentum: float = 0.9,
    bn_epsilon: float = 1e-3,
    activation: str = "relu",
    pooling: str | None = None,
    dropout: float | Sequence[float] = 0.0,
    weight_decay: float = 0.0,
    classifier_activation: str | None = "softmax",
    preprocessing: keras.layers.Layer | Sequence[keras.layers.Layer] = (),
    name: str = "convnet",
) -> keras.Model:
    """Builds stages of 3x3 convolution, 2x2 max-pooling, norm and activation, with a dense classifier on top.

    With `norm="none"` this is the network of Keras's MNIST example; with `norm="batch"` the same layer stack with a
    BatchNormalization in each stage. A convolution that feeds a norm directly has no bias, because the norm's beta is
    one; with the activation between the two it has. The result is a plain functional model: Keras opens its file
    without keras_opt, and it converts to full int8 without a float island.

    Pooling stands before norm and activation, which then work on a quarter of the values: a training step with
    BatchNorm costs what the usual order costs without. Without norm the function is that of the usual order, because a
    maximum commutes with a rising activation such as ReLU; with it, the batch statistics are those of the pooled
    values. Each gamma is kept from going negative (a stock Keras constraint), so that the norm commutes with the
    pooling and `to_tflite` can fold it into the convolution.

    Args:
        filters: One positive int a stage, for example `(32, 64)`.
        input_shape: `(height, width, channels)` of the raw image, or `(length, channels)` of a sensor window, whose
            convolutions and poolings are one-dimensional.
        classes: Int of at least 1, the width of the classifier; 1 for one number, with the `classifier_activation`
            `"sigmoid"` for two classes or `None` for a regression.
        norm: `"batch"`; `"sync"`, a BatchNorm with the statistics of all replicas; `"group"`, GroupNorm of 16
            channels a group (or the next larger number that divides them), for batches too small for statistics; or
            `"none"`.
        norm_position: `"before_activation"`, where the convolution absorbs the norm at export, or
            `"after_activation"`, where the next layer does.
        bn_momentum: Float in [0, 1). Default 0.9, for runs of a few hundred updates; Keras's 0.99 suits long ones.
        bn_epsilon: Float above 0. Default 1e-3, as in Keras.
        activation: Name of a Keras activation.
        pooling: What precedes the classifier: `None` flattens, `"avg"` and `"max"` pool globally, as in
            keras.applications. For inputs above 64 pixels a flattened map costs more parameters than all the rest.
        dropout: Float in [0, 1), the rate before the classifier; or a list with the rate at the end of each stage, of
            which the last stands before the classifier. One rate alone stands behind the last norm because a norm that
            follows a dropout learns statistics in training that do not hold at inference (Li et al., 2019).
        weight_decay: Float of at least 0. Adds `weight_decay / 2 * sum(kernel^2)` to the loss for each kernel, not for
            biases and norms: SGD then shrinks kernels as by its own `weight_decay`. With Adam prefer AdamW and
            `exclude_norm_and_bias_from_decay`.
        classifier_activation: Name of an activation, or `None` for logits.
        preprocessing: Layers applied to the raw input first, for example `keras.layers.Rescaling(1 / 255)`, so that the
            saved model and the device file take raw pixels. With layers of keras_opt it opens with
            `keras_opt.load_model`.
        name: Name of the model.

    Returns:
        A `keras.Model` from `(batch, *input_shape)` to `(batch, classes)`.

    Raises:
        ValueError: An argument is out of its range, or the input is too small for the stages.

    Source: S. Ioffe and C. Szegedy, 2015, "Batch Normalization: Accelerating Deep Network Training by Reducing Internal
        Covariate Shift", section 3.2 (norm before the activation, no bias before a norm); Y. Wu and K. He, 2018, "Group
        Normalization"; X. Li et al., 2019, "Understanding the Disharmony between Dropout and Batch Normalization by
        Variance Shift".

    Example:
        >>> import keras, keras_opt
        >>> model = keras_opt.models.convnet(
        ...     (32, 64), (28, 28, 1), 10, dropout=0.5, preprocessing=keras.layers.Rescaling(1 / 255)
        ... )
    """
    blocks = Blocks("convnet", norm, norm_position, bn_momentum, bn_epsilon, activation, weight_decay)
    _check_sizes(filters, input_shape)
    check_choice("convnet", "pooling", pooling, (None, "avg", "max"))
    check_classifier("convnet", classes, classifier_activation)
    rates = stage_rates("convnet", dropout, len(filters))
    rank = len(input_shape) - 1
    inputs = keras.Input(input_shape, name="image" if rank == 2 else "window")
    x = preprocess("convnet", inputs, preprocessing)
    for stage, width in enumerate(filters, start=1):
        x = CONVOLUTION[rank](
            width, 3, use_bias=blocks.use_bias(), kernel_regularizer=blocks.decay(), name=f"conv{stage}"
        )(x)
        x = MAX_POOLING[rank](name=f"pool{stage}")(x)
        x = blocks.finish(x, blocks.norm_layer(width, f"norm{stage}", positive=True), f"activation{stage}")
        if stage < len(filters):
            x = drop(x, rates[stage - 1], f"dropout{stage}")
    x = drop(_head(pooling, rank)(x), rates[-1], "dropout")
    outputs = keras.layers.Dense(
        classes, activation=classifier_activation, kernel_regularizer=blocks.decay(), name="classifier"
    )(x)
    return keras.Model(inputs, outputs, name=name)


def _head(pooling, rank):
    if pooling is None:
        return keras.layers.Flatten(name="flatten")
    return (GLOBAL_AVERAGE if pooling == "avg" else GLOBAL_MAX)[rank](name="global_pool")


def _check_sizes(filters, input_shape) -> None:
    check_sizes("convnet", "filters", filters, "(32, 64)")
    check_input_shape("convnet", input_shape, {3: "(height, width, channels)", 2: "(length, channels)"})
    smallest = min(input_shape[:-1])
    for _ in filters:
        smallest = (smallest - 2) // 2
    if smallest < 1:
        cure = "Take fewer stages or larger images."
        raise argument_error("convnet", "input_shape", input_shape, f"large enough for {len(filters)} stages", cure)
