"""The colour operations of RandAugment on one 8-bit image, as Pillow defines them.

Each takes a uint8 image (H, W, C) with one grey or three RGB channels and gives one of its shape back. They equal
`PIL.ImageOps` and `PIL.ImageEnhance`, but that results are rounded, where Pillow cuts off and so darkens: by one level
at most. XLA makes one vectorised loop over the pixels of each, which is faster than a table of the 256 levels to look
them up in; only `equalize` needs one.
"""

import tensorflow as tf


def brightness(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """`factor` times each value: 0 gives black, 1 the image."""
    return _blend(tf.zeros((), "float32"), image, factor)


def contrast(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """The distance of each value to the mean of the grey image, times `factor`: 0 gives grey, 1 the image."""
    mean = tf.reduce_mean(tf.reduce_mean(_grey(image), axis=0))  # by rows: one long float32 sum would lose digits
    return _blend(tf.floor(mean + 0.5), image, factor)


def color(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """The distance of each value to the grey image, times `factor`: 0 gives the grey image, 1 the image."""
    return _blend(_grey(image)[..., tf.newaxis], image, factor)


def sharpness(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """The distance of each value to the smoothed image, times `factor`: 0 gives the smoothed, 1 the image.

    The smoothed value is the mean of 3x3 pixels, the one in the middle counted five times; the border stays as it is.
    """
    height, width, channels = tf.unstack(tf.shape(image))
    rows = tf.cast(tf.reshape(image, (height, width * channels)), "int16")  # in rows long enough for SIMD
    padded = tf.pad(rows, [[1, 1], [channels, channels]])
    sums = padded[:-2] + padded[1:-1] + padded[2:]
    sums = sums[:, : -2 * channels] + sums[:, channels:-channels] + sums[:, 2 * channels :] + 4 * rows
    smoothed = tf.floor(tf.cast(sums, "float32") * (1 / 13) + 0.5)
    row, column = tf.range(height)[:, tf.newaxis], tf.range(width * channels) // channels
    inside = (row > 0) & (row < height - 1) & (column > 0) & (column < width - 1)
    sharp = tf.where(inside, _blend(smoothed, rows, factor), tf.cast(rows, "uint8"))
    return tf.reshape(sharp, (height, width, channels))


def posterize(image: tf.Tensor, bits: tf.Tensor) -> tf.Tensor:
    """Only the first `bits` bits of each value, 1 to 8."""
    dropped = tf.cast(8 - bits, "uint8")
    return tf.bitwise.left_shift(tf.bitwise.right_shift(image, dropped), dropped)


def solarize(image: tf.Tensor, threshold: tf.Tensor) -> tf.Tensor:
    """Each value from `threshold` on is inverted."""
    return tf.where(tf.cast(image, "float32") < threshold, image, 255 - image)


def auto_contrast(image: tf.Tensor) -> tf.Tensor:
    """Each channel spread so that its smallest value becomes 0 and its greatest 255; one of a single value stays."""
    values = tf.cast(image, "float32")
    low, high = (tf.cast(f(image, axis=(0, 1)), "float32") for f in (tf.reduce_min, tf.reduce_max))
    spread = tf.where(high > low, 255 / tf.maximum(high - low, 1), 1)
    return tf.cast(tf.round((values - tf.where(high > low, low, 0)) * spread), "uint8")


def equalize(image: tf.Tensor) -> tf.Tensor:
    """Each channel mapped so that its values are as evenly distributed as they can be."""
    channels = tf.shape(image)[-1]
    places = tf.cast(image, "int32") + 256 * tf.range(channels)
    counts = tf.math.unsorted_segment_sum(tf.ones_like(places), places, 256 * channels)
    return tf.gather(tf.reshape(equalizing_tables(tf.reshape(counts, (channels, 256))), (-1,)), places)


def equalizing_tables(counts: tf.Tensor) -> tf.Tensor:
    """The new value of each of the 256 values, by channel, as uint8.

        table[v] = (step // 2 + counts[0] + ... + counts[v - 1]) // step
        step = (number of pixels - count of the greatest value that occurs) // 255;   0 leaves the channel as it is

    Args:
        counts: How often each value occurs, int32 (channels, 256).
    """
    values = tf.range(256)
    greatest = tf.reduce_max(tf.where(counts > 0, values, 0), axis=-1)
    step = (tf.reduce_sum(counts, axis=-1) - tf.gather(counts, greatest, batch_dims=1)) // 255
    step = step[:, tf.newaxis]
    table = (step // 2 + tf.cumsum(counts, axis=-1, exclusive=True)) // tf.maximum(step, 1)
    return tf.cast(tf.where(step > 0, tf.minimum(table, 255), values), "uint8")


def _blend(degenerate: tf.Tensor, image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """From `degenerate` (float32) at factor 0 over `image` at 1 to beyond, in whole levels from 0 to 255."""
    blended = degenerate + factor * (tf.cast(image, "float32") - degenerate)
    return tf.cast(tf.clip_by_value(tf.round(blended), 0, 255), "uint8")


def _grey(image: tf.Tensor) -> tf.Tensor:
    """The luma of ITU-R 601-2 in whole levels, float32 (H, W), in Pillow's fixed-point arithmetic."""
    channels = tf.cast(image, "int32")
    if image.shape[-1] == 1:
        return tf.cast(channels[..., 0], "float32")
    weighted = 19595 * channels[..., 0] + 38470 * channels[..., 1] + 7471 * channels[..., 2]
    return tf.cast((weighted + 2**15) // 2**16, "float32")
