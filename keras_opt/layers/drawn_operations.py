"""What RandAugment draws for each image, and the drawn operations on images and on the view of them."""

import functools
import math
from typing import NamedTuple

import tensorflow as tf

from keras_opt.layers import colour_operations as colour
from keras_opt.layers.affine_matrices import about_centres, compose
from keras_opt.layers.random_keys import fold_in, integers, uniform

# On an image, at a strength in [-1, 1]; the sign counts where there are two directions. At 0 nothing happens, but for
# the first two, which have no strength.
_ON_COLOURS = {
    "auto_contrast": lambda image, strength: colour.auto_contrast(image),
    "equalize": lambda image, strength: colour.equalize(image),
    "solarize": lambda image, strength: colour.solarize(image, 256 * (1 - tf.abs(strength))),
    "color": lambda image, strength: colour.color(image, 1 + 0.9 * strength),
    "posterize": lambda image, strength: colour.posterize(image, 8 - tf.cast(tf.round(4 * tf.abs(strength)), "int32")),
    "contrast": lambda image, strength: colour.contrast(image, 1 + 0.9 * strength),
    "brightness": lambda image, strength: colour.brightness(image, 1 + 0.9 * strength),
    "sharpness": lambda image, strength: colour.sharpness(image, 1 + 0.9 * strength),
}
# On the view, the greatest amount: radians, shares of the other axis, shares of the image's size.
_ON_THE_VIEW = {
    "rotate": math.pi / 6,
    "shear_x": 0.3,
    "shear_y": 0.3,
    "translate_x": 150 / 331,
    "translate_y": 150 / 331,
}
OPERATIONS = ("identity", *_ON_COLOURS, *_ON_THE_VIEW)


class Drawn(NamedTuple):
    """The operations of each image in their order: places in OPERATIONS, int32, and strengths in [-1, 1], float32.

    Both are (B, num_ops).
    """

    operations: tf.Tensor
    strengths: tf.Tensor


def draw(key: tf.Tensor, count: int | tf.Tensor, num_ops: int, factor: tuple[float, float]) -> Drawn:
    """`num_ops` operations for each of `count` images, all equally likely, with strengths uniform in +-`factor`."""
    shape = [count, num_ops]
    operations = integers(fold_in(key, 0), shape, 0, len(OPERATIONS))
    signs = tf.cast(2 * integers(fold_in(key, 1), shape, 0, 2) - 1, "float32")
    return Drawn(operations, signs * uniform(fold_in(key, 2), shape, *factor))


def recolour(image: tf.Tensor, drawn: Drawn) -> tf.Tensor:
    """One image after the colour operations drawn for it, in their order.

    Args:
        image: uint8 (H, W, C), grey or RGB.
        drawn: For this image, so that both are (num_ops,).
    """
    functions = [lambda image, strength: image, *_ON_COLOURS.values()]
    branches = tf.where(on_colours(drawn), drawn.operations, 0)
    # A number of rounds that is known only when it runs: XLA would unroll the loop otherwise, and compile for minutes.
    last = tf.reduce_max(tf.where(branches > 0, tf.range(tf.size(branches)), -1))

    def after_one(place, image):
        changes = [functools.partial(function, image, drawn.strengths[place]) for function in functions]
        return place + 1, tf.switch_case(branches[place], changes)

    return tf.while_loop(lambda place, _: place <= last, after_one, (0, image))[1]


def on_colours(drawn: Drawn) -> tf.Tensor:
    """Which of the operations change colours."""
    return (drawn.operations >= 1) & (drawn.operations <= len(_ON_COLOURS))


def on_the_view(drawn: Drawn) -> tf.Tensor:
    """Which of the operations move the image."""
    return drawn.operations > len(_ON_COLOURS)


def views(drawn: Drawn, size: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
    """One matrix (B, 3, 3) for each image, of all the geometric operations it has drawn; see `affine_matrices`.

    Args:
        drawn: For these images.
        size: Height and width of the images.
    """
    height, width = (tf.cast(length, "float32") for length in size)
    angle, shear_x, shear_y, right, down = (
        tf.where(drawn.operations == OPERATIONS.index(name), limit * drawn.strengths, 0)
        for name, limit in _ON_THE_VIEW.items()
    )
    zero, one = tf.zeros_like(angle), tf.ones_like(angle)
    cos, sin = tf.cos(angle), tf.sin(angle)
    rows = [[cos, shear_x - sin, -width * right], [sin + shear_y, cos, -height * down], [zero, zero, one]]
    # Of the five numbers of an operation at most one is not 0, so that these sums are what products would be.
    matrices = tf.stack([tf.stack(row, axis=-1) for row in rows], axis=-2)
    return about_centres(compose(*tf.unstack(matrices, axis=1)), size, size)
