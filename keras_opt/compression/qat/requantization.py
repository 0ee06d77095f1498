"""How LiteRT brings sums of whole numbers to the steps of the tensor it stores them in."""

import math
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_opt.compression.qat.fake_quant import nearest

_MULTIPLIER_BITS = 20


def requantized(addends: Sequence[Sequence[Any]], low: Any, high: Any, step: Any) -> Any:
    """The sum of `addends` at the whole steps of a range, rounded to the bit as by LiteRT's XNNPACK kernels.

    A device knows each addend as a whole number n of units, real = n * unit. One addend, as of a convolution with its
    int32 sums, is multiplied in float32, where halves go to the even number:

        stored = round(n * (unit / step))

    Two, as of an Add, are multiplied by whole numbers of 20 bits, so that their sum is one too, and halves go up:

        stored = floor((n1 * m1 + n2 * m2) / 2^shift + 1/2)        m = round(unit / step * 2^shift)

    Args:
        addends: For each a tensor and the factors of its unit; what is subtracted has a negative one.
        low, high: The ends of the range.
        step: The step between two of its values.

    Source: google/XNNPACK, its "fp32" requantization and `xnn_init_qs8_add_minmax_scalar_params`.
    """
    ops = keras.ops
    counts, ratios = [], []
    for tensor, unit, *factors in addends:
        for factor in factors:
            unit = unit * factor
        counts.append(nearest(tensor / ops.abs(unit)))
        ratios.append(unit / step)
    whole = ops.round(counts[0] * ratios[0]) if len(addends) == 1 else _sum(counts, ratios)
    return ops.clip(whole, nearest(low / step), nearest(high / step)) * step


def _sum(counts, ratios):
    counts, ratios = ([tf.cast(each, tf.float64) for each in numbers] for numbers in (counts, ratios))
    largest = tf.maximum(*map(tf.abs, ratios))
    scale = 2.0 ** (_MULTIPLIER_BITS - tf.floor(tf.math.log(largest) / math.log(2)))
    whole = sum(count * tf.round(ratio * scale) for count, ratio in zip(counts, ratios, strict=True))
    return tf.cast(tf.floor(whole / scale + 0.5), tf.float32)
