"""An order of examples in which every class comes equally often, another one each epoch."""

import numpy as np
import tensorflow as tf


def balanced_positions(positions: np.ndarray, labels: np.ndarray, seed: int) -> tf.data.Dataset:
    """Draw from `positions` in a shuffled order, from every class `ceil(n / classes)` times an epoch.

    Examples of a small class are repeated, those of a large one left out: each example of a class comes as often as
    any other of it, give or take one, and chance decides which in each epoch.

    Args:
        positions: Those of n examples.
        labels: Their class numbers.
        seed: The order of an epoch is a function of it and of the epoch.

    Returns:
        A dataset of scalars, of known cardinality.
    """
    classes, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    each = -(-len(labels) // len(classes))
    # Slot `turn` of a class takes its example number `turn` modulo count, in the order of the epoch.
    starts = np.cumsum(counts) - counts
    slots = (starts[:, None] + np.arange(each) % counts[:, None]).reshape(-1)

    @tf.autograph.experimental.do_not_convert
    def epoch(bits):
        keys = tf.bitcast(tf.cast(bits, tf.uint32), tf.int32)
        within_classes = tf.argsort(_shuffled_ranks(len(labels), keys[:2]) + inverse * 2**32)
        chosen = tf.gather(tf.gather(positions, within_classes), slots)
        order = tf.argsort(_shuffled_ranks(len(slots), keys[2:]))
        return tf.data.Dataset.from_tensor_slices(tf.gather(chosen, order))

    bits = tf.data.Dataset.random(seed, rerandomize_each_iteration=True).batch(4, drop_remainder=True).take(1)
    return bits.flat_map(epoch).apply(tf.data.experimental.assert_cardinality(len(slots)))


def _shuffled_ranks(count, key):
    bits = tf.random.stateless_uniform((count,), key, None, None, dtype=tf.uint32, alg="philox")
    return tf.cast(bits, tf.int64)
