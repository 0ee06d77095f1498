"""The 3x3 matrices that say from where in the input each output pixel is read.

Points are columns (x, y, 1) in pixels, x to the right, y down. A matrix takes an output point to the input point whose
value is shown there, so it is the inverse of what a viewer sees happen. Each function takes one float32 number an image
and gives (B, 3, 3), about the origin; `about_centres` puts the origin in the middle of the image, at (size - 1) / 2.

`compose(a, b, c)` = a b c: seen on the image, a happens first and c last.
"""

import functools
import math
from typing import Any

import tensorflow as tf


def matrices_of(rows: list[list[Any]], like: tf.Tensor) -> tf.Tensor:
    """(B, 3, 3) from its first two rows, whose entries are numbers, scalars or (B,), as `like` is."""
    zeros = tf.zeros_like(like)
    constant = functools.cache(lambda number: zeros + number)  # few operations: tf.data optimises them in each epoch
    entries = [entry for row in (*rows, (0, 0, 1)) for entry in row]
    entries = [entry + zeros if tf.is_tensor(entry) else constant(entry) for entry in entries]
    return tf.reshape(tf.stack(entries, axis=-1), (-1, 3, 3))


def rotations(degrees: tf.Tensor) -> tf.Tensor:
    """The image turns counter-clockwise by `degrees`, (B,)."""
    angles = degrees * (math.pi / 180)
    cos, sin = tf.cos(angles), tf.sin(angles)
    return matrices_of([[cos, -sin, 0], [sin, cos, 0]], degrees)


def shifts(right: tf.Tensor, down: tf.Tensor) -> tf.Tensor:
    """The image moves by so many pixels, (B,) each."""
    return matrices_of([[1, 0, -right], [0, 1, -down]], right)


def shears(degrees: tf.Tensor) -> tf.Tensor:
    """The y axis turns counter-clockwise: it shows the line `degrees`, (B,), before it. Horizontals stay horizontal."""
    angles = degrees * (math.pi / 180)
    return matrices_of([[1, -tf.sin(angles), 0], [0, tf.cos(angles), 0]], degrees)


def scales(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """The view covers `x` times the width and `y` times the height, (B,) each: below 1 the image grows, -1 flips it."""
    return matrices_of([[x, 0, 0], [0, y, 0]], x)


def compose(*matrices: tf.Tensor) -> tf.Tensor:
    """The product, from left to right."""
    return functools.reduce(_product, matrices)


def about_centres(matrices: tf.Tensor, input_size: tuple[Any, Any], output_size: tuple[Any, Any]) -> tf.Tensor:
    """The matrices with the centre of the output on that of the input, and its whole view scaled to the input's.

    Args:
        matrices: (B, 3, 3), about the origin.
        input_size: Height and width of the images, numbers or scalar tensors.
        output_size: Height and width of the result.
    """
    (height, width), (rows, columns) = (
        tuple(tf.cast(n, "float32") for n in size) for size in (input_size, output_size)
    )
    like = matrices[:, 0, 0]
    centred = matrices_of(
        [[width / columns, 0, -(width - width / columns) / 2], [0, height / rows, -(height - height / rows) / 2]], like
    )
    return compose(matrices_of([[1, 0, (width - 1) / 2], [0, 1, (height - 1) / 2]], like), matrices, centred)


def moved(points: tf.Tensor, matrices: tf.Tensor) -> tf.Tensor:
    """The points that `matrices` take (x, y) pairs to.

    Args:
        points: (B, N, 2).
        matrices: (B, 3, 3).
    """
    x, y = points[..., 0], points[..., 1]
    rows = [matrices[:, row, :, tf.newaxis] for row in range(2)]
    return tf.stack([row[:, 0] * x + row[:, 1] * y + row[:, 2] for row in rows], axis=-1)


def inverses(matrices: tf.Tensor) -> tf.Tensor:
    """The matrices that take input points to output points: what moves boxes and keypoints with the image."""
    (a, b, right), (c, d, down) = (tf.unstack(matrices[:, row], axis=-1) for row in range(2))
    area = a * d - b * c
    a, b, c, d = d / area, -b / area, -c / area, a / area
    return matrices_of([[a, b, -(a * right + b * down)], [c, d, -(c * right + d * down)]], a)


def _product(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    """The matrix product in full float32: `tf.matmul` rounds to 10 bits on some accelerators."""
    return tf.reduce_sum(tf.expand_dims(first, 3) * tf.expand_dims(second, 1), axis=2)
