"""Randomness as a function of a key: the same key gives the same numbers, eagerly, in tf.data and under XLA.

A key is an int32 tensor of shape (2,). Whoever draws twice from one key gets the same numbers twice: `fold_in` makes a
second key for a second, independent draw.
"""

import warnings
from collections.abc import Sequence

import keras
import tensorflow as tf

from keras_opt.core.call_stack import frames, users_stacklevel
from keras_opt.core.replicas import replica_count, replica_number

_ALGORITHM = "philox"  # the default algorithm is another one under XLA


def uniform(key: tf.Tensor, shape: Sequence, low: float = 0.0, high: float = 1.0) -> tf.Tensor:
    """float32 numbers, uniform in [low, high), on a grid of 2**24 steps.

    They are made of random integers: TensorFlow's own float32 numbers are others under XLA, for the same key and
    algorithm.
    """
    bits = tf.random.stateless_uniform(shape, key, None, None, dtype="uint32", alg=_ALGORITHM)
    fractions = tf.cast(tf.cast(tf.bitwise.right_shift(bits, tf.constant(8, "uint32")), "int32"), "float32") * 2**-24
    return low + (high - low) * fractions


def bernoulli(key: tf.Tensor, shape: Sequence, probability: float = 0.5) -> tf.Tensor:
    """Booleans, each True with `probability`: always at 1, never at 0."""
    return uniform(key, shape) < probability


def integers(key: tf.Tensor, shape: Sequence, low: int, high: int | tf.Tensor) -> tf.Tensor:
    """int32 numbers, uniform in [low, high)."""
    return tf.random.stateless_uniform(shape, key, low, high, dtype="int32", alg=_ALGORITHM)


def fold_in(key: tf.Tensor, number: int | tf.Tensor) -> tf.Tensor:
    """Another key, one for each number, for a draw that is independent of all others."""
    return tf.random.experimental.stateless_fold_in(key, number, alg=_ALGORITHM)


def next_key(seed_generator: keras.random.SeedGenerator) -> tf.Tensor:
    """The key of this call, from a layer's own generator, which counts one on.

    The generator's state is saved with the model. Each replica of a `tf.distribute` strategy gets a key of its own.

    Warns:
        UserWarning: It is called in the function of a `dataset.map`, whose parallel calls take their keys in no order.
    """
    _warn_in_a_dataset()
    key = tf.cast(tf.math.floormod(seed_generator.next(), tf.int32.max), "int32")
    if tf.distribute.in_cross_replica_context() or replica_count() == 1:
        return key
    return fold_in(key, replica_number())


@tf.autograph.experimental.do_not_convert  # it looks at the call stack, which AutoGraph would fill with its own
def _warn_in_a_dataset() -> None:
    if tf.executing_eagerly():
        return
    if any(frame.f_globals.get("__name__", "").startswith("tensorflow.python.data.ops.") for frame in frames()):
        warnings.warn(
            "A random layer called by `dataset.map` draws anew in each run, whatever its seed, and starts over after "
            "a resume. `keras_opt.data.augment(dataset, layers, seed)` gives the same images for the same seed.",
            stacklevel=users_stacklevel(),
        )
