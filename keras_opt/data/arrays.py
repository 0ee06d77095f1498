"""Arrays as a tf.data set in a new, seeded order every epoch."""

import weakref
from collections.abc import Mapping
from typing import Literal

import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

from keras_opt.core.errors import InputError, argument_error, check_at_least
from keras_opt.data.class_weights import sample_weights


def arrays(
    x: ArrayLike,
    y: ArrayLike,
    batch_size: int = 32,
    shuffle: bool = True,
    class_weight: Literal["balanced"] | Mapping[int, float] | None = None,
    seed: int | None = None,
) -> tf.data.Dataset:
    """Make a `tf.data.Dataset` for `fit` that goes through `x` and `y` in a new order every epoch.

    Use it in place of `fit(x, y)` when runs must be repeatable: after `keras.utils.set_random_seed`, stock
    `fit(x, y)` repeats one and the same order in every epoch. Here the order of an epoch follows from the seed and the
    epoch alone (and TensorFlow's global seed, where one is set), so that two runs get the same batches and no
    epoch repeats another. Only positions are shuffled, never the data: a full shuffle at 8 bytes an example.
    `fit` warns that its own `shuffle=True` is ignored for a dataset; `fit(train, shuffle=False)` says that you know.

    Args:
        x: Inputs of shape (n, ...). A `numpy.memmap` stays on disk and is read batch by batch.
        y: Targets of shape (n, ...).
        batch_size: Examples a batch; the last one may be smaller.
        shuffle: `False` keeps the order of the arrays.
        class_weight: Adds a sample weight to every example: `"balanced"` for n / (classes * count of the class), or a
            weight for each class number. Needs class numbers or one-hot rows in `y`. Give it here or to `fit`.
        seed: Of the order. `None` follows `keras.utils.set_random_seed`, and is random without it.

    Returns:
        A dataset of `(x, y)` or `(x, y, sample_weight)` batches, of known cardinality. Its `fresh_copy()` is the same
        data from a first epoch on: going through that leaves this one at its epoch.

    Raises:
        InputError: The arrays are empty or differ in length, or an argument is out of its range.

    Cost: one copy of an array that is not a `numpy.memmap`; a gather a batch.

    Example:
        >>> train = arrays(np.zeros((5, 2)), np.arange(5), batch_size=2, seed=0)
        >>> len(train)
        3
    """
    check_at_least("arrays", "batch_size", batch_size, 1)
    if seed is not None:
        check_at_least("arrays", "seed", seed, 0)
    columns = [_as_array(x), _as_array(y)]
    _check_lengths(*columns)
    if class_weight is not None:
        columns.append(sample_weights("arrays", columns[1], class_weight))
    gathers, count = [_gather(column) for column in columns], len(columns[0])

    def ordered(seed: int | None) -> tf.data.Dataset:
        positions = tf.data.Dataset.range(count)
        if shuffle:
            positions = positions.shuffle(count, seed=seed, reshuffle_each_iteration=True)
        batches = positions.batch(batch_size).map(lambda batch: tuple(gather(batch) for gather in gathers))
        return batches.prefetch(tf.data.AUTOTUNE).with_options(_gathering_is_stateless())

    batches = ordered(seed)
    batches.memmaps = [column for column in columns if isinstance(column, np.memmap)]  # what _gather only refers to
    # With a seed always: without, TensorFlow would draw one from its global generator.
    batches.fresh_copy = lambda: ordered(0 if seed is None else seed)
    return batches


def _as_array(values):
    return values if isinstance(values, np.ndarray) else np.asarray(values)


def _check_lengths(x, y):
    if x.ndim == 0 or y.ndim == 0:
        raise InputError(
            "arrays: `x` and `y` must have a first axis that counts the examples. Give arrays, not scalars."
        )
    if len(x) != len(y):
        raise InputError(f"arrays: `x` has {len(x)} examples and `y` has {len(y)}. Give one target for each input.")
    if len(x) == 0:
        raise argument_error("arrays", "x", x, "an array with at least one example", "Give some data.")


def _gathering_is_stateless() -> tf.data.Options:
    """Lets TensorFlow save a place in the data: a `numpy_function` may have a state, those of `_gather` have none."""
    options = tf.data.Options()
    options.experimental_external_state_policy = tf.data.experimental.ExternalStatePolicy.IGNORE
    return options


def _gather(column):
    """A function from positions to the rows of `column` there."""
    if isinstance(column, np.memmap):
        # TensorFlow never lets go of a function given to numpy_function: it must not own the array
        alive, dtype, shape = weakref.ref(column), column.dtype, (None, *column.shape[1:])

        def gather(positions):
            rows = tf.numpy_function(lambda where: alive()[where], [positions], dtype)
            return tf.ensure_shape(rows, shape)

        return gather
    with tf.device("CPU"):
        values = tf.constant(column)
    return lambda positions: tf.gather(values, positions)
