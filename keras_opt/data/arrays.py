"""Arrays as a tf.data set in a new, seeded order every epoch."""

import weakref
from collections.abc import Mapping
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

from keras_opt.core.errors import InputError, argument_error, check_at_least, check_choice
from keras_opt.data.class_weights import sample_weights
from keras_opt.data.columns import as_columns
from keras_opt.data.normalization import NORMALIZATIONS, normalization


def arrays(
    x: ArrayLike | Mapping[str, ArrayLike],
    y: ArrayLike,
    batch_size: int = 32,
    shuffle: bool = True,
    class_weight: Literal["balanced"] | Mapping[int, float] | None = None,
    seed: int | None = None,
    normalize: Literal["standard", "min_max"] | None = None,
) -> tf.data.Dataset:
    """Make a `tf.data.Dataset` for `fit` that goes through `x` and `y` in a new order every epoch.

    Use it in place of `fit(x, y)` when runs must be repeatable: after `keras.utils.set_random_seed`, stock
    `fit(x, y)` repeats one and the same order in every epoch. Here the order of an epoch follows from the seed and the
    epoch alone (and TensorFlow's global seed, where one is set), so that two runs get the same batches and no
    epoch repeats another. Only positions are shuffled, never the data: a full shuffle at 8 bytes an example.
    `fit` warns that its own `shuffle=True` is ignored for a dataset; `fit(train, shuffle=False)` says that you know.

    The batches hold raw values whatever `normalize` is: the statistics of this set, which should be the training set
    alone, stand in the layer `normalization` of the dataset. Put it into the model, as in the example: then the saved
    model and the device file take raw values too, and validation data need nothing.

    Args:
        x: Inputs of shape (n, ...). A `numpy.memmap` stays on disk and is read batch by batch. A dict of columns gives
            dicts of batches, for a model with named inputs. A pandas `DataFrame` of numbers is the array of its rows,
            as in `fit`; for one input a column give `dict(frame)`.
        y: Targets of shape (n, ...), a pandas `Series` too.
        batch_size: Examples a batch; the last one may be smaller.
        shuffle: `False` keeps the order of the arrays.
        class_weight: Adds a sample weight to every example: `"balanced"` for n / (classes * count of the class), or a
            weight for each class number. Needs class numbers or one-hot rows in `y`. Give it here or to `fit`.
        seed: Of the order. `None` follows `keras.utils.set_random_seed`, and is random without it.
        normalize: `"standard"` for (x - mean) / standard deviation, `"min_max"` for (x - min) / (max - min), by the
            last axis of `x`. In a dict each column of numbers gets a layer of its own.

    Returns:
        A dataset of `(x, y)` or `(x, y, sample_weight)` batches, of known cardinality. Its `fresh_copy()` is the same
        data from a first epoch on: going through that leaves this one at its epoch. Its `normalization` is a
        `keras.layers.Normalization`, a dict of them by column, or `None`.

    Raises:
        InputError: The arrays are empty or differ in length, a `DataFrame` holds anything but numbers, an argument is
            out of its range, or what is to be normalized is constant or holds NaN.

    Cost: one copy of an array that is not a `numpy.memmap`; a gather a batch; two passes in float64 to normalize.

    Example:
        >>> train = arrays(np.array([[1.0, 50.0], [3.0, 70.0]]), [0, 1], batch_size=2, seed=0, normalize="standard")
        >>> model = keras_opt.models.mlp([8], (2,), 1, preprocessing=train.normalization)
        >>> len(train), train.normalization.get_config()["mean"]
        (1, [2.0, 60.0])
    """
    check_at_least("arrays", "batch_size", batch_size, 1)
    check_choice("arrays", "normalize", normalize, NORMALIZATIONS)
    if seed is not None:
        check_at_least("arrays", "seed", seed, 0)
    columns = [as_columns("x", x), as_columns("y", y)]
    count = _check_lengths(*columns)
    if class_weight is not None:
        if isinstance(columns[1], dict):
            raise argument_error("arrays", "class_weight", class_weight, "None where `y` is a dict", "Weigh in `fit`.")
        columns.append(sample_weights("arrays", columns[1], class_weight))
    layers = _normalization(columns[0], normalize)
    gathers = keras.tree.map_structure(_gather, tuple(columns))
    # What _gather only refers to.
    memmaps = [column for column in keras.tree.flatten(columns) if isinstance(column, np.memmap)]

    def ordered(seed: int | None) -> tf.data.Dataset:
        positions = tf.data.Dataset.range(count)
        if shuffle:
            positions = positions.shuffle(count, seed=seed, reshuffle_each_iteration=True)
        batches = positions.batch(batch_size).map(
            lambda batch: keras.tree.map_structure(lambda gather: gather(batch), gathers)
        )
        dataset = batches.prefetch(tf.data.AUTOTUNE).with_options(gathering_is_stateless())
        dataset.memmaps = memmaps
        return dataset

    batches = ordered(seed)
    # With a seed always: without, TensorFlow would draw one from its global generator.
    batches.fresh_copy = lambda: ordered(0 if seed is None else seed)
    batches.normalization = layers
    return batches


def _check_lengths(x, y) -> int:
    for name, values in (("x", x), ("y", y)):
        _check_one_length(name, values)
    first, second = (len(keras.tree.flatten(values)[0]) for values in (x, y))
    if first != second:
        raise InputError(f"arrays: `x` has {first} examples and `y` has {second}. Give one target for each input.")
    if first == 0:
        raise argument_error("arrays", "x", x, "an array with at least one example", "Give some data.")
    return first


def _check_one_length(name, values):
    columns = values if isinstance(values, dict) else {name: values}
    if not columns or any(column.ndim == 0 for column in columns.values()):
        raise InputError(
            "arrays: `x` and `y` must have a first axis that counts the examples. Give arrays, not scalars."
        )
    lengths = {key: len(column) for key, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise InputError(f"arrays: the columns of `{name}` must have one length. Received: {lengths}.")


def _normalization(x: Any, kind: str | None) -> Any:
    if kind is None:
        return None
    if not isinstance(x, dict):
        return normalization("arrays", "`x`", x, kind)
    return {
        name: normalization("arrays", f"column {name!r} of `x`", column, kind)
        for name, column in x.items()
        if column.dtype.kind in "iufb"
    }


def gathering_is_stateless() -> tf.data.Options:
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
