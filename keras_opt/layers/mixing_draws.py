"""What MixUp and CutMix draw: how much of itself each image keeps, and which image it is mixed with."""

import math

import keras
import tensorflow as tf

from keras_opt.layers.random_keys import uniform

_ROUNDS = 8  # of rejection; one accepts with a probability of at least 0.95, so that 4e-11 of the draws find none
_LEAST = 2.0**-25  # half a step of the uniform numbers: keeps their logarithm finite


def beta(key: tf.Tensor, alpha: tf.Tensor) -> tf.Tensor:
    """Numbers in [0, 1], each from Beta(`alpha`, `alpha`) with the `alpha` at its place; alphas of shape (n,), above 0.

    Beta is G1 / (G1 + G2) of two Gamma(alpha) numbers. With small alphas both are often 0 in float32, whence
    `keras.random.beta` is 0.5 where it should be 0 or 1. Their logarithms are not: Beta = sigmoid(log G1 - log G2).
    """
    own, other = tf.unstack(_log_gamma(key, tf.stack([alpha, alpha])))
    return tf.sigmoid(own - other)


def partners(key: tf.Tensor, count: int | tf.Tensor) -> tf.Tensor:
    """A random order of `count` images: int32 positions. One image in `count`, on average, stays where it is."""
    return tf.argsort(uniform(key, [count]))


def _log_gamma(key: tf.Tensor, alpha: tf.Tensor) -> tf.Tensor:
    """Logarithms of Gamma(`alpha`) numbers: those of Gamma(`alpha` + 1), by rejection, plus log(u) / `alpha`.

    G. Marsaglia and W. Tsang, 2000, "A Simple Method for Generating Gamma Variables". TensorFlow's own generator of
    them does not compile with XLA.
    """
    draws = uniform(key, [4, _ROUNDS, *keras.ops.shape(alpha)]) + _LEAST
    normal = tf.sqrt(-2 * tf.math.log(draws[0])) * tf.cos(2 * math.pi * draws[1])
    d = alpha + 2 / 3
    v = tf.maximum(1 + normal / tf.sqrt(9 * d), 0) ** 3
    log_v = tf.math.log(v)  # -inf, and never accepted, at 0
    accepted = tf.math.log(draws[2]) < 0.5 * normal**2 + d - d * v + d * log_v
    first = tf.one_hot(tf.argmax(accepted, axis=0), _ROUNDS, on_value=True, off_value=False, axis=0)
    chosen = tf.reduce_sum(tf.where(first, log_v, 0), axis=0)
    return tf.math.log(d) + chosen + tf.math.log(draws[3, 0]) / alpha
