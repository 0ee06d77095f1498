"""The networks of a run: one layer stack, plain or with BatchNorm, for training or for shipping."""

import math

import keras

from keras_opt.core.all_layers import all_layers
from keras_opt.core.set_weights import set_weights
from keras_opt.core.trainable_flags import let_train
from keras_opt.models.convnet import convnet
from keras_opt.models.finetune import finetune
from keras_opt.recipes.recipe import Recipe, most_stages
from keras_opt.recipes.regularization import SMALL, chosen


def build(recipe: Recipe, image_shape: tuple[int, int, int], classes: int, *, norm: str) -> keras.Model:
    """Build the layer stack of a run, with the pixel scaling inside.

    Both sides of a comparison have the same stack; only `norm` differs. A backbone has the norms it has.
    """
    if recipe.backbone is not None:
        return finetune(recipe.backbone, image_shape, classes, recipe.weights, dropout=recipe.dropout)
    filters, pooling = _stages(min(image_shape[:2]), recipe.width, recipe.depth)
    return convnet(
        filters,
        image_shape,
        classes,
        norm=norm,
        pooling=pooling,
        dropout=recipe.dropout,
        preprocessing=keras.layers.Rescaling(1 / 255, name="rescale"),
    )


def shipped(trained: keras.Model, recipe: Recipe, norm: str) -> keras.Model:
    """The same network in float32, with the weights of `trained`, built with `norm`."""
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")
    try:
        model = build(recipe, trained.input_shape[1:], trained.output_shape[-1], norm=norm)
    finally:
        keras.config.set_dtype_policy(policy)
    set_weights(model, trained.get_weights())
    let_train(model, all_layers(model))  # a backbone is built frozen
    return model


def check_network(recipe: Recipe) -> None:
    """Raise unless a backbone takes the images of `recipe` and has its weights, before any image is read."""
    if recipe.backbone is not None:
        channels = 1 if recipe.color_mode == "grayscale" else 3
        build(chosen(recipe, images=0), (recipe.image_size, recipe.image_size, channels), 2, norm="batch")


def unfreezing(model: keras.Model, epochs: int) -> dict[int, str | list[str]]:
    """When the layers of a pretrained network begin to train: its head, then its upper third, then all of it.

    The rate of the one-cycle is at its peak after three tenths of the epochs.
    """
    names = [layer.name for layer in model.layers if layer.weights and layer.name != "head"]
    first = max(1, epochs // 5)
    return {0: "head", first: names[2 * len(names) // 3 :], 2 * first: "all"}


def usual_depth(pixels: int) -> int:
    """The stages that halve a map until about 7 pixels are left."""
    return max(1, min(round(math.log2(max(pixels, 14) / 7)), most_stages(pixels)))


def _stages(pixels: int, width: float, depth: int | None) -> tuple[tuple[int, ...], str | None]:
    """Filters by stage, halving the map until about 7 pixels are left, and the pooling before the classifier.

    28 pixels give Keras's MNIST example; above 64 pixels a flattened map would hold most of the parameters.
    """
    stages = depth or usual_depth(pixels)
    if pixels <= SMALL:
        filters, pooling = [32 * 2**stage for stage in range(stages)], None
    else:
        filters, pooling = [min(16 * 2**stage, 256) for stage in range(stages)], "avg"
    return tuple(max(1, round(width * each)) for each in filters), pooling
