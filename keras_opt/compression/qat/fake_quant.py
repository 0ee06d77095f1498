"""Rounding to 8 bits as LiteRT does it, for values that stay floats."""

from typing import Any

import keras
import tensorflow as tf

STEPS = 255
_SMALLEST_SHARE = 1e-5  # of the widest channel; below it the int32 bias of a narrow one could overflow


def grid(low: Any, high: Any) -> tuple[Any, Any]:
    """The ends of the range from `low` to `high`, widened until 0 is one of its 256 even values.

        step(zero) = max(high / (255 - zero), -low / zero)        low' = -zero * step        high' = (255 - zero) * step

    of the two whole numbers `zero` beside -255 * low / (high - low) with the one whose step is smaller. Neither end
    moves by more than one step.
    """
    ops = keras.ops
    low, high = ops.minimum(low, 0.0), ops.maximum(high, 0.0)
    high = ops.where(low == high, 1.0, high)

    def step(zero):
        return ops.maximum(high / ops.maximum(STEPS - zero, 1.0), -low / ops.maximum(zero, 1.0))

    zero = ops.floor(-STEPS * low / (high - low))
    above = ops.minimum(zero + 1, STEPS)
    zero = ops.where(step(above) < step(zero), above, zero)
    return -zero * step(zero), (STEPS - zero) * step(zero)


def step_of(low: Any, high: Any) -> Any:
    """The step between two values of a `grid`."""
    return _over(tf.cast(high, tf.float64) - tf.cast(low, tf.float64), STEPS)


def fake_quant(values: Any, low: Any, high: Any) -> Any:
    """`values` rounded to the 256 steps of a `grid`; the gradient is 1 inside of it and 0 outside."""
    return tf.quantization.fake_quant_with_min_max_vars(values, low, high)


def fake_quant_means(values: Any, low: Any, high: Any) -> Any:
    """As `fake_quant`, for means of what it rounded, where halves are frequent: they go away from the int8 number 0.

    LiteRT's average-pooling sums the int8 numbers and rounds as C++ divides, whatever the zero point.
    """
    ops, step = keras.ops, (high - low) / STEPS
    stored = nearest(1024 * ((values - low) / step - 128)) / 1024  # float32 has lost the exact halves
    whole = ops.sign(stored) * ops.floor(ops.abs(stored) + 0.5)
    return fake_quant(straight_through((whole + 128) * step + low, values), low, high)


def fake_quant_kernel(kernel: Any, per_channel: bool) -> tuple[Any, Any]:
    """`kernel` rounded to -127..127 steps, and the step, of each channel (the last axis) or of all.

        step = max|kernel| / 127

    A kernel or channel of zeros alone takes the largest step of the others, or 1 / 127.
    """
    ops = keras.ops
    largest = ops.max(ops.abs(kernel), axis=list(range(len(kernel.shape) - 1)) if per_channel else None)
    widest = ops.max(largest)
    largest = ops.where(largest == 0, ops.where(widest == 0, 1.0, widest), largest)
    largest = ops.maximum(largest, _SMALLEST_SHARE * widest)
    kind = "fake_quant_with_min_max_vars_per_channel" if per_channel else "fake_quant_with_min_max_vars"
    return getattr(tf.quantization, kind)(kernel, -largest, largest, narrow_range=True), _over(largest, 127)


def straight_through(rounded: Any, values: Any) -> Any:
    """`rounded`, to the bit, with the gradient that `values` would have."""
    return keras.ops.stop_gradient(rounded) + (values - keras.ops.stop_gradient(values))


def nearest(values: Any) -> Any:
    """The nearest integers; halves go up. `keras.ops.round` is an operation that the converter leaves in the file."""
    return keras.ops.floor(values + 0.5)


def _over(values, steps):
    """The quotient as the converter has it, to the bit: it divides in float64."""
    return tf.cast(tf.cast(values, tf.float64) / steps, tf.float32)
