"""What RandomAffine draws for each image, composed into one matrix."""

import functools
import numbers
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from keras_opt.layers.affine_matrices import about_centres, compose, rotations, scales, shears, shifts
from keras_opt.layers.random_keys import uniform

Range = float | tuple[float, float]


class AffineRanges(NamedTuple):
    """The ranges that parts are drawn from: a pair (low, high), or a number r for (-r, r)."""

    rotation_degrees: Range
    width_shift: Range
    height_shift: Range
    zoom: Range
    shear_degrees: Range
    horizontal_flip: bool
    vertical_flip: bool


def ends(part: Range) -> tuple[float, float]:
    """The lowest and the highest value of a range."""
    return part if isinstance(part, tuple) else (-part, part)


def is_whole(part: Range) -> bool:
    """Whether a range is one of whole numbers: pixels, where fractions are floats."""
    given = part if isinstance(part, tuple) else (part,)
    return all(isinstance(number, numbers.Integral) and not isinstance(number, bool) for number in given)


def draw_matrices(
    ranges: AffineRanges, key: tf.Tensor, images: tf.Tensor, output_size: tuple[int, int] | None
) -> tf.Tensor:
    """A matrix for each image, (B, 3, 3), for `warp`; see `RandomAffine` for the order of the parts.

    Compiled by XLA: at 32 x 32 pixels, the many small operations would cost a fifth of the warp more.
    """
    return _compiled(ranges, output_size)(key, images)


@functools.cache
def _compiled(ranges: AffineRanges, output_size: tuple[int, int] | None) -> Callable[..., tf.Tensor]:
    @tf.function(jit_compile=True, autograph=False)
    def matrices(key, images):
        count, height, width = tf.unstack(tf.shape(images)[:3])
        draws = iter(tf.unstack(uniform(key, [8, count])))

        def between(part):
            low, high = ends(part)
            return low + (high - low) * next(draws)

        def pixels(part, size):
            amounts = between(part)
            if is_whole(part):
                return tf.cast(tf.cast(amounts, "int32"), "float32")
            return amounts * tf.cast(size, "float32")

        def signs(flips):
            return tf.where((next(draws) < 0.5) & flips, -1.0, 1.0)

        drawn = compose(
            rotations(between(ranges.rotation_degrees)),
            shifts(pixels(ranges.width_shift, width), pixels(ranges.height_shift, height)),
            shears(between(ranges.shear_degrees)),
            scales(1 + between(ranges.zoom), 1 + between(ranges.zoom)),
            scales(signs(ranges.horizontal_flip), signs(ranges.vertical_flip)),
        )
        return about_centres(drawn, (height, width), output_size or (height, width))

    return matrices
