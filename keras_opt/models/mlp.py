"""A plain network of dense layers, with BatchNorm where it belongs."""

from collections.abc import Sequence

import keras

from keras_opt.core.errors import check_at_least
from keras_opt.models.blocks import Blocks, check_classifier, check_sizes, drop, preprocess, stage_rates


def mlp(
    units: Sequence[int],
    input_shape: Sequence[int],
    classes: int,
    *,
    norm: str = "batch",
    norm_position: str = "before_activation",
    bn_momentum: float = 0.9,
    bn_epsilon: float = 1e-3,
    activation: str = "relu",
    dropout: float | Sequence[float] = 0.0,
    weight_decay: float = 0.0,
    classifier_activation: str | None = "softmax",
    preprocessing: keras.layers.Layer | Sequence[keras.layers.Layer] = (),
    name: str = "mlp",
) -> keras.Model:
    """Builds stages of dense layer, norm and activation, with a dense classifier on top.

    For tables of numbers, and as the baseline that any other network must beat. The result is a plain functional model:
    Keras opens its file without keras_opt, and it converts to full int8 without a float island.

    Args:
        units: One positive int a stage, for example `[128, 64]`.
        input_shape: Shape of one raw input; more than one axis is flattened first.
        classes: Int of at least 1, the width of the classifier; 1 for one number, with the `classifier_activation`
            `"sigmoid"` for two classes or `None` for a regression.
        norm: `"batch"`; `"sync"`, a BatchNorm with the statistics of all replicas; `"group"`, GroupNorm of 16
            channels a group (or the next larger number that divides them), for batches too small for statistics; or
            `"none"`.
        norm_position: `"before_activation"`, as published, or `"after_activation"`: Dense, activation, norm.
        bn_momentum: Float in [0, 1). Default 0.9, for runs of a few hundred updates; Keras's 0.99 suits long ones.
        bn_epsilon: Float above 0. Default 1e-3, as in Keras.
        activation: Name of a Keras activation.
        dropout: Float in [0, 1), the rate before the classifier; or a list with the rate at the end of each stage. One
            rate alone stands behind the last norm because a norm that follows a dropout learns statistics in training
            that do not hold at inference (Li et al., 2019).
        weight_decay: Float of at least 0. Adds `weight_decay / 2 * sum(kernel^2)` to the loss for each kernel, not for
            biases and norms: SGD then shrinks kernels as by its own `weight_decay`. With Adam prefer AdamW and
            `exclude_norm_and_bias_from_decay`.
        classifier_activation: Name of an activation, or `None` for logits.
        preprocessing: Layers applied to the raw input first, so that the saved model takes raw values.
            A saved model with layers of keras_opt in it opens with `keras_opt.load_model`.
        name: Name of the model.

    Returns:
        A `keras.Model` from `(batch, *input_shape)` to `(batch, classes)`. A layer that feeds a norm directly has no
        bias, because the norm's beta is one.

    Raises:
        ValueError: An argument is out of its range.

    Source: S. Ioffe and C. Szegedy, 2015, "Batch Normalization: Accelerating Deep Network Training by Reducing Internal
        Covariate Shift", section 3.2; Y. Wu and K. He, 2018, "Group Normalization"; X. Li et al., 2019, "Understanding
        the Disharmony between Dropout and Batch Normalization by Variance Shift".

    Example:
        >>> import keras_opt
        >>> model = keras_opt.models.mlp([128, 64], (20,), 3, norm_position="after_activation")
    """
    blocks = Blocks("mlp", norm, norm_position, bn_momentum, bn_epsilon, activation, weight_decay)
    check_sizes("mlp", "units", units, "[128, 64]")
    if norm == "group":
        check_at_least("mlp", "units", min(units), 2)  # one value is its own mean
    check_sizes("mlp", "input_shape", input_shape, "(20,)")
    check_classifier("mlp", classes, classifier_activation)
    rates = stage_rates("mlp", dropout, len(units))
    inputs = keras.Input(input_shape, name="features")
    x = preprocess("mlp", inputs, preprocessing)
    if len(x.shape) > 2:
        x = keras.layers.Flatten(name="flatten")(x)
    for stage, (width, rate) in enumerate(zip(units, rates, strict=True), start=1):
        x = keras.layers.Dense(
            width, use_bias=blocks.use_bias(), kernel_regularizer=blocks.decay(), name=f"dense{stage}"
        )(x)
        x = blocks.finish(x, blocks.norm_layer(width, f"norm{stage}"), f"activation{stage}")
        x = drop(x, rate, f"dropout{stage}")
    outputs = keras.layers.Dense(
        classes, activation=classifier_activation, kernel_regularizer=blocks.decay(), name="classifier"
    )(x)
    return keras.Model(inputs, outputs, name=name)
