"""Images seen through affine matrices, in one pass compiled by XLA."""

import functools
from collections.abc import Callable

import tensorflow as tf

FILL_MODES = ("nearest", "reflect", "constant", "wrap")
INTERPOLATIONS = ("bilinear", "nearest")


def warp(
    images: tf.Tensor,
    matrices: tf.Tensor,
    output_size: tuple[int, int] | None = None,
    interpolation: str = "bilinear",
    fill_mode: str = "nearest",
    fill_value: float = 0.0,
    rescale: float | None = None,
) -> tf.Tensor:
    """The images as the matrices show them.

    XLA compiles it for each shape, inside of a graph or a jitted function too.

    Args:
        images: (B, H, W, C), integers or floats.
        matrices: (B, 3, 3), from output pixels to input pixels; see `affine_matrices`.
        output_size: Height and width of the result; None: those of the images.
        interpolation: "bilinear" or "nearest".
        fill_mode: What is seen outside of the image: the "nearest" pixel, the image mirrored at its edge ("reflect"),
            `fill_value` ("constant") or the image repeated ("wrap").
        fill_value: In the images' own range.
        rescale: A factor for the result.

    Returns:
        (B, height, width, C) in the images' dtype, integers correctly rounded; float32 with `rescale`.
    """
    return _compiled(output_size, interpolation, fill_mode, fill_value, rescale)(images, matrices)


def resize(
    images: tf.Tensor, output_size: tuple[int, int] | None, interpolation: str, rescale: float | None
) -> tf.Tensor:
    """What `warp` gives where nothing moves, in operations that TFLite has too."""
    values = images
    if output_size is not None:
        values = tf.cast(images, "uint8") if images.dtype == tf.bool else images  # masks; it takes numbers only
        values = tf.image.resize(values, output_size, interpolation)
    if rescale is not None:
        return tf.cast(values, "float32") * rescale
    return tf.cast(tf.round(values) if images.dtype.is_integer else values, images.dtype)


def fold(numbers: tf.Tensor, size: int | tf.Tensor, fill_mode: str) -> tf.Tensor:
    """The int32 row or column, of `size`, that stands for each whole float32 number in a fill mode.

    "constant" has the nearest one.
    """
    size = tf.cast(size, "float32")
    if fill_mode == "wrap":
        numbers = numbers - size * tf.floor(numbers / size)
    if fill_mode == "reflect":
        numbers = numbers - 2 * size * tf.floor(numbers / (2 * size))
        numbers = tf.minimum(numbers, 2 * size - 1 - numbers)
    return tf.cast(tf.clip_by_value(numbers, 0, size - 1), "int32")


@functools.cache
def _compiled(output_size, interpolation, fill_mode, fill_value, rescale) -> Callable[..., tf.Tensor]:
    @tf.function(jit_compile=True, autograph=False)
    def run(images, matrices):
        batch, height, width, channels = tf.unstack(tf.shape(images))
        pixels = tf.reshape(images, (batch, height * width, images.shape[-1] or channels))
        x, y = _input_points(matrices, *(output_size or (height, width)))

        def place(x, y):
            return fold(y, height, fill_mode) * width + fold(x, width, fill_mode)

        def filled(values, x, y):
            if fill_mode != "constant":
                return values
            is_inside = (x >= 0) & (x < tf.cast(width, "float32")) & (y >= 0) & (y < tf.cast(height, "float32"))
            is_inside = is_inside[..., tf.newaxis]
            if not values.dtype.is_floating:
                return tf.where(is_inside, values, tf.cast(fill_value, values.dtype))
            share = tf.cast(is_inside, values.dtype)  # `tf.where` becomes a branch at each read: 4 times slower
            return values * share + fill_value * (1 - share)

        if interpolation == "nearest":
            x, y = tf.floor(x + 0.5), tf.floor(y + 0.5)
            values = filled(tf.gather(pixels, place(x, y), batch_dims=1), x, y)
            return values if rescale is None else tf.cast(values, "float32") * rescale
        if fill_mode == "nearest":
            x, y = (tf.clip_by_value(n, 0, tf.cast(size, "float32") - 1) for n, size in ((x, width), (y, height)))
        is_packed = images.dtype == tf.uint8 and images.shape[-1] in (2, 3, 4)
        gather = _packed_gather(pixels) if is_packed else _float_gather(pixels)
        left, top = tf.floor(x), tf.floor(y)
        first = place(left, top)

        def read(right, down):
            if fill_mode == "nearest":  # beyond the last row or column, what is read has no share
                return gather(first + (down * width + right))
            return filled(gather(place(left + right, top + down)), left + right, top + down)

        to_right, to_below = tf.expand_dims(x - left, -1), tf.expand_dims(y - top, -1)
        above, below = (_between(read(0, down), read(1, down), to_right) for down in (0, 1))
        values = _between(above, below, to_below)
        if rescale is not None:
            return values * rescale
        return tf.cast(values if images.dtype.is_floating else tf.round(values), images.dtype)

    return run


def _input_points(matrices, rows, columns):
    """Where each output pixel is read: x and y, (B, rows, columns)."""
    x = tf.cast(tf.range(columns), "float32")
    y = tf.expand_dims(tf.cast(tf.range(rows), "float32"), 1)
    a, b, right, c, d, down, *_ = tf.unstack(tf.reshape(matrices, (-1, 9, 1, 1)), axis=1)
    return a * x + (b * y + right), c * x + (d * y + down)


def _between(one, other, share):
    return one + (other - one) * share


def _float_gather(pixels):
    return lambda places: tf.cast(tf.gather(pixels, places, batch_dims=1), "float32")


def _packed_gather(pixels):
    """The same for bytes, with one read a pixel instead of one a channel: 0.7 of the time.

    All channels of a pixel go into one integer. XLA computes a sum before the gather, not once more at each read; and
    it fuses the gather with the rest because its result has the shape of the output, channels included.
    """
    shifts = [8 * channel for channel in range(pixels.shape[-1])]
    weights = tf.constant([1 << shift for shift in shifts], "uint32")
    packed = tf.reduce_sum(tf.cast(pixels, "uint32") * weights, -1)

    def gather(places):
        places = tf.repeat(tf.expand_dims(places, -1), len(shifts), axis=-1)
        bytes_ = tf.bitwise.right_shift(tf.gather(packed, places, batch_dims=1), tf.constant(shifts, "uint32"))
        return tf.cast(tf.cast(tf.bitwise.bitwise_and(bytes_, tf.constant(255, "uint32")), "int32"), "float32")

    return gather
