"""A plain convolutional network for images, with BatchNorm where it belongs."""

from collections.abc import Sequence

import keras

from keras_opt.core.errors import argument_error, check_at_least, check_choice, check_fraction, check_positive


def convnet(
    filters: Sequence[int],
    input_shape: tuple[int, int, int],
    classes: int,
    *,
    norm: str = "batch",
    norm_position: str = "before_activation",
    bn_momentum: float = 0.9,
    bn_epsilon: float = 1e-3,
    activation: str = "relu",
    pooling: str | None = None,
    dropout: float = 0.0,
    classifier_activation: str | None = "softmax",
    preprocessing: keras.layers.Layer | Sequence[keras.layers.Layer] = (),
    name: str = "convnet",
) -> keras.Model:
    """Builds stages of 3x3 convolution, 2x2 max-pooling, norm and activation, with a dense classifier on top.

    With `norm="none"` this is the network of Keras's MNIST example; with `norm="batch"` the same layer stack with a
    BatchNormalization in each stage, whose convolution then has no bias (the norm's beta is the bias). The result is a
    plain functional model: Keras opens its file without keras_opt, and it converts to full int8 without a float island.

    Pooling stands before norm and activation, which then work on a quarter of the values: a training step with
    BatchNorm costs what the usual order costs without. Without norm the function is that of the usual order, because a
    maximum commutes with a rising activation such as ReLU; with it, the batch statistics are those of the pooled
    values. Each gamma is kept from going negative (a stock Keras constraint), so that the norm commutes with the
    pooling and `to_tflite` can fold it into the convolution.

    Args:
        filters: One positive int a stage, for example `(32, 64)`.
        input_shape: `(height, width, channels)` of the raw input.
        classes: Int of at least 2, the width of the classifier.
        norm: `"batch"` or `"none"`.
        norm_position: `"before_activation"` (the convolution absorbs the norm at export) or `"after_activation"`.
        bn_momentum: Float in [0, 1). Default 0.9, for runs of a few hundred updates; Keras's 0.99 suits long ones.
        bn_epsilon: Float above 0. Default 1e-3, as in Keras.
        activation: Name of a Keras activation.
        pooling: What precedes the classifier: `None` flattens, `"avg"` and `"max"` pool globally, as in
            keras.applications. For inputs above 64 pixels a flattened map costs more parameters than all the rest.
        dropout: Float in [0, 1), the rate before the classifier.
        classifier_activation: Name of an activation, or `None` for logits.
        preprocessing: Layers applied to the raw input first, for example `keras.layers.Rescaling(1 / 255)`, so that the
            saved model and the device file take raw pixels.
        name: Name of the model.

    Returns:
        A `keras.Model` from `(batch, *input_shape)` to `(batch, classes)`.

    Raises:
        ValueError: An argument is out of its range, or the input is too small for the stages.

    Source: S. Ioffe and C. Szegedy, 2015, "Batch Normalization: Accelerating Deep Network Training by Reducing Internal
        Covariate Shift", section 3.2 (norm before the activation, no bias before a norm).

    Example:
        >>> import keras, keras_opt
        >>> model = keras_opt.models.convnet(
        ...     (32, 64), (28, 28, 1), 10, dropout=0.5, preprocessing=keras.layers.Rescaling(1 / 255)
        ... )
    """
    _check_arguments(filters, input_shape, classes, norm, norm_position, bn_momentum, bn_epsilon, pooling, dropout)
    inputs = x = keras.Input(input_shape, name="image")
    for layer in [preprocessing] if isinstance(preprocessing, keras.layers.Layer) else preprocessing:
        x = layer(x)
    for stage, width in enumerate(filters, start=1):
        x = keras.layers.Conv2D(width, 3, use_bias=norm == "none", name=f"conv{stage}")(x)
        x = keras.layers.MaxPooling2D(name=f"pool{stage}")(x)
        layers = [keras.layers.Activation(activation, name=f"activation{stage}")]
        if norm == "batch":
            layers.insert(0 if norm_position == "before_activation" else 1, _norm(bn_momentum, bn_epsilon, stage))
        for layer in layers:
            x = layer(x)
    x = _head(pooling)(x)
    if dropout:
        x = keras.layers.Dropout(dropout, name="dropout")(x)
    outputs = keras.layers.Dense(classes, activation=classifier_activation, name="classifier")(x)
    return keras.Model(inputs, outputs, name=name)


def _norm(momentum, epsilon, stage):
    return keras.layers.BatchNormalization(
        momentum=momentum, epsilon=epsilon, gamma_constraint=keras.constraints.NonNeg(), name=f"norm{stage}"
    )


def _head(pooling):
    if pooling is None:
        return keras.layers.Flatten(name="flatten")
    if pooling == "avg":
        return keras.layers.GlobalAveragePooling2D(name="global_pool")
    return keras.layers.GlobalMaxPooling2D(name="global_pool")


def _check_arguments(
    filters, input_shape, classes, norm, norm_position, bn_momentum, bn_epsilon, pooling, dropout
) -> None:
    if not filters:
        raise argument_error("convnet", "filters", filters, "a sequence of at least one int", "Give (32, 64).")
    for width in filters:
        check_at_least("convnet", "filters", width, 1)
    if len(input_shape) != 3:
        cure = "Give (height, width, channels)."
        raise argument_error("convnet", "input_shape", input_shape, "a shape of three dimensions", cure)
    for size in input_shape:
        check_at_least("convnet", "input_shape", size, 1)
    smallest = min(input_shape[:2])
    for _ in filters:
        smallest = (smallest - 2) // 2
    if smallest < 1:
        cure = "Take fewer stages or larger images."
        raise argument_error("convnet", "input_shape", input_shape, f"large enough for {len(filters)} stages", cure)
    check_at_least("convnet", "classes", classes, 2)
    check_choice("convnet", "norm", norm, ("batch", "none"))
    check_choice("convnet", "norm_position", norm_position, ("before_activation", "after_activation"))
    check_fraction("convnet", "bn_momentum", bn_momentum)
    check_positive("convnet", "bn_epsilon", bn_epsilon)
    check_choice("convnet", "pooling", pooling, (None, "avg", "max"))
    check_fraction("convnet", "dropout", dropout)
