"""A network of keras.applications with a head for one's own classes."""

import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras

from keras_opt.core.errors import InputError, argument_error, check_fraction, check_path, did_you_mean
from keras_opt.models.blocks import check_classifier, check_input_shape, drop, preprocess
from keras_opt.models.pretrained_weights import named_downloads

_MEAN, _DEVIATION = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # of ImageNet's red, green and blue
_BLUE_GREEN_RED = (103.939, 116.779, 123.68)  # its mean, as Caffe has it

_CAFFE = {"scale": 1.0, "offset": tuple(-value for value in reversed(_BLUE_GREEN_RED))}
_MINUS_1_TO_1 = {"scale": 1 / 127.5, "offset": -1.0}
_STANDARDISED = {
    "scale": tuple(1 / deviation for deviation in _DEVIATION),
    "offset": tuple(-mean / deviation for mean, deviation in zip(_MEAN, _DEVIATION, strict=True)),
}
# By how the names begin, longer ones first. `None`: the network scales its inputs itself.
_SCALINGS = {
    "ConvNeXt": None,
    "DenseNet": _STANDARDISED,
    "EfficientNet": None,
    "Inception": _MINUS_1_TO_1,
    "MobileNetV3": None,
    "MobileNet": _MINUS_1_TO_1,
    "NASNet": _MINUS_1_TO_1,
    r"ResNet\d+V2": _MINUS_1_TO_1,
    "ResNet": _CAFFE,
    "VGG": _CAFFE,
    "Xception": _MINUS_1_TO_1,
}

BACKBONES = tuple(
    name for name in dir(keras.applications) if name[0].isupper() and any(re.match(key, name) for key in _SCALINGS)
)


def finetune(
    backbone: str | Callable[..., keras.Model],
    input_shape: Sequence[int],
    classes: int,
    weights: str | Path | None = "imagenet",
    *,
    dropout: float = 0.0,
    classifier_activation: str | None = "softmax",
    preprocessing: keras.layers.Layer | Sequence[keras.layers.Layer] = (),
    name: str | None = None,
    **arguments: Any,
) -> keras.Model:
    """Builds a network of keras.applications with a new classifier, which takes raw pixels from 0 to 255.

    For the few hundred or thousand images that a network cannot be trained on from scratch. The scaling that the
    weights were trained with stands in the model as a plain `Rescaling` layer, so that the saved file and the device
    file take raw pixels. Weights from Caffe (ResNet, VGG) want blue first; their first kernel is turned round instead.

    The network is flat, not nested: every layer is reached by its name in keras.applications, by `get_layer`,
    `GradualUnfreezing`, `set_dropout`, `fold_batch_norm` and pruning. Behind it stand a global average-pooling and the
    classifier, a Dense layer that is called `"head"`.

    With weights the backbone is frozen: compile and fit, and only the head trains, while BatchNorms use and keep their
    statistics. Unfreeze the rest from the top down; the BatchNorms are best left frozen:

        model = finetune("MobileNetV2", (160, 160, 3), 5)
        model.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy")
        unfreeze = GradualUnfreezing({0: "head", 3: "block_16*", 5: "all"}, lr_decay=10, freeze_batch_norm=True)
        model.fit(train, epochs=10, callbacks=[unfreeze])

    (Keras's guide builds them in with `training=False`, which `fit` overrides: unfrozen, they take the statistics of
    the new batches all the same.) By hand set `layer.trainable` of each layer; that of the model is true already. Each
    network has names of its own, `[layer.name for layer in model.layers]`: its last block is `"block5"` in VGG16.

    Args:
        backbone: A name of keras.applications such as `"MobileNetV2"`, or the function.
        input_shape: `(height, width, channels)` of the raw image, with 3 channels; or with 1, which is repeated.
        classes: Int of at least 1, the width of the classifier; 1 for one number, with the `classifier_activation`
            `"sigmoid"` for two classes or `None` for a regression.
        weights: `"imagenet"`, which Keras fetches once and keeps; a file of weights of this backbone without its top;
            or `None` for random ones, with which everything trains, BatchNorm too. Give Keras's own ImageNet files by
            `"imagenet"`: EfficientNet scales otherwise for a file.
        dropout: Float in [0, 1), the rate before the classifier.
        classifier_activation: Name of an activation, or `None` for logits.
        preprocessing: Layers applied to the raw input first, for example augmentation; beside `weights` such as have
            none themselves. A saved model with layers of keras_opt in it opens with `keras_opt.load_model`.
        name: Name of the model; that of the backbone by default.
        **arguments: Further arguments of the backbone's function, for example `alpha=0.35`.

    Returns:
        A `keras.Model` from `(batch, *input_shape)` to `(batch, classes)`.

    Raises:
        ValueError: An argument is out of its range, or the backbone cannot be built with it; or the weights are neither
            here nor to be fetched: the message names the file, its origin and the folder to put it into.

    Source: J. Yosinski et al., 2014, "How transferable are features in deep neural networks?"; J. Howard and S. Ruder,
        2018, "Universal Language Model Fine-tuning for Text Classification", section 3.3 (the head first).

    Example:
        >>> import keras_opt
        >>> model = keras_opt.models.finetune("MobileNetV2", (96, 96, 3), 5, weights=None, alpha=0.35)
    """
    network = check_backbone("finetune", "backbone", backbone)
    check_input_shape("finetune", input_shape, {3: "(height, width, channels)"})
    if input_shape[2] not in (1, 3):
        cure = "Convert the images to RGB, or to grey."
        raise argument_error("finetune", "input_shape", input_shape, "of 3 channels, or of 1", cure)
    check_classifier("finetune", classes, classifier_activation)
    check_fraction("finetune", "dropout", dropout)
    _check_weights(weights)
    inputs = keras.Input(input_shape, name="image")
    x = preprocess("finetune", inputs, preprocessing)
    if weights is not None and x is not inputs:  # of the inputs alone Keras 3.12 makes no model
        _check_without_weights(keras.Model(inputs, x))
    if input_shape[2] == 1:
        x = keras.layers.Concatenate(name="grey_to_rgb")([x, x, x])
    scaling = next(settings for start, settings in _SCALINGS.items() if re.match(start, network))
    if scaling is not None:
        x = keras.layers.Rescaling(**scaling, name="scale_pixels")(x)
    base = _build(network, x, weights, arguments)
    if scaling is _CAFFE and weights is not None:
        _turn_round(base)
    base.trainable = weights is None
    x = keras.layers.GlobalAveragePooling2D(name="head_pool")(base.outputs[0])
    x = drop(x, dropout, "head_dropout")
    outputs = keras.layers.Dense(classes, activation=classifier_activation, name="head")(x)
    return keras.Model(base.inputs[0], outputs, name=name or base.name)


def check_backbone(owner: str, name: str, value: object) -> str:
    """The name of the network of keras.applications that `value` is or names; raise unless it is one."""
    network = value if isinstance(value, str) else getattr(value, "__name__", "")
    if network not in BACKBONES or not (isinstance(value, str) or value is getattr(keras.applications, network)):
        must_be = "a network of keras.applications"
        raise argument_error(owner, name, value, must_be, did_you_mean(network, BACKBONES))
    return network


def _check_weights(weights):
    if weights is None or weights == "imagenet":
        return
    check_path("finetune", "weights", weights)
    if not Path(weights).is_file():
        cure = (
            'Give "imagenet", the path of a file that is there, or None for random weights (with keras-opt train: '
            "--weights none)."
        )
        raise argument_error("finetune", "weights", str(weights), '"imagenet", a file or None', cure)


def _check_without_weights(preprocessing: keras.Model) -> None:
    """Raise where Keras, which reads a file in the order of the layers, would give the backbone's weights to others."""
    normalization = keras.layers.Normalization  # without weights it still takes the place of the backbone's own
    held = [layer.name for layer in preprocessing.layers if layer.weights or isinstance(layer, normalization)]
    if held:
        must_be = "layers without weights, where those of the backbone are read from a file"
        cure = "In place of a Normalization take Rescaling, with a scale and an offset for each channel."
        raise argument_error("finetune", "preprocessing", held, must_be, cure)


def _build(network, x, weights, arguments):
    """The backbone behind `x`, from the raw inputs on."""
    weights = weights if weights is None else str(weights)
    build = getattr(keras.applications, network)
    try:
        with named_downloads("finetune", network), warnings.catch_warnings():
            # Of the MobileNets there are weights by size; for other sizes those of 224 pixels serve.
            warnings.filterwarnings("ignore", message="`input_shape` is undefined or non-square")
            return build(
                include_top=False, pooling=None, weights=weights, input_tensor=x, input_shape=x.shape[1:], **arguments
            )
    except InputError:
        raise
    except (TypeError, ValueError, OSError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"finetune: {network} cannot be built with these arguments: {reason}") from error


def _turn_round(base: keras.Model) -> None:
    """Let the first convolution read red, green, blue as it read blue, green, red."""
    first = next(layer for layer in base.layers if isinstance(layer, keras.layers.Conv2D))
    first.kernel.assign(keras.ops.flip(first.kernel, axis=2))
