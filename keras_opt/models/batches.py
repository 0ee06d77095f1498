"""The inputs of a model, batch by batch, from all that `fit` takes."""

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_opt.core.errors import InputError, argument_error

_ARRAY = np.ndarray | tf.Tensor


def batches_of(dataset: Any, model: keras.Model, steps: int | None, batch_size: int) -> Iterator[Any]:
    """The inputs in each batch of `dataset`, `steps` of them at most; arrays are cut into batches of `batch_size`.

    Raises:
        ValueError: `dataset` is no data, or endless without `steps`.
    """
    arrays = _arrays(dataset, model)
    if arrays is not None:
        dataset = tf.data.Dataset.from_tensor_slices(arrays).batch(batch_size)
    check_is_data("reestimate_batch_norm", "dataset", dataset)
    if steps is None and is_endless(dataset):
        raise argument_error("reestimate_batch_norm", "steps", steps, "an int for an endless dataset", "Give steps.")
    return _inputs(dataset, steps)


def check_is_data(owner: str, name: str, dataset: Any) -> None:
    """Raise unless `dataset` is batches or arrays."""
    if hasattr(dataset, "to_numpy"):  # of pandas or polars, which is gone through by its columns
        kind = type(dataset).__name__
        raise InputError(
            f"{owner}: argument `{name}` must be batches or arrays. Received: a {kind}. Give {name}.to_numpy()."
        )
    if isinstance(dataset, str | bytes) or not isinstance(dataset, Iterable | keras.utils.PyDataset | _ARRAY):
        cure = "Give a tf.data.Dataset of batches, or an array."
        raise argument_error(owner, name, dataset, "batches or arrays", cure)


def check_is_repeatable(owner: str, name: str, dataset: Any) -> None:
    """Raise if `dataset` is no data, or if one cannot go through it as often as one likes."""
    check_is_data(owner, name, dataset)
    if is_endless(dataset):
        raise argument_error(owner, name, dataset, "a dataset that ends", "Give dataset.take(steps), for example.")
    if isinstance(dataset, Iterator):
        cure = "An iterator is used up after the first time: give the dataset itself, or list(batches)."
        raise argument_error(owner, name, dataset, "a dataset that can be gone through repeatedly", cure)


def check_inputs(owner: str, name: str, dataset: Any, model: keras.Model) -> None:
    """Raise if it can be told, without drawing a batch, that `dataset` has not the inputs of `model`."""
    batch = dataset.element_spec if isinstance(dataset, tf.data.Dataset) else _arrays(dataset, model)
    x, _, _ = keras.utils.unpack_x_y_sample_weight(batch)
    wanted = _input_count(model)
    if batch is None or wanted is None or isinstance(x, dict) or len(keras.tree.flatten(x)) == wanted:
        return
    example = "x" if wanted == 1 else f"[{', '.join(f'x{number}' for number in range(1, wanted + 1))}]"
    raise InputError(
        f"{owner}: argument `{name}` must have the inputs of model {model.name!r}, which are {wanted}. Received: "
        f"{len(keras.tree.flatten(x))}. Give {example} or ({example}, y), or a dataset of such batches, in which the "
        "inputs are a tuple."
    )


def is_endless(dataset: Any) -> bool:
    """Whether `dataset` says of itself that it never ends."""
    if isinstance(dataset, keras.utils.PyDataset):
        return dataset.num_batches is None
    return isinstance(dataset, tf.data.Dataset) and bool(dataset.cardinality() == tf.data.INFINITE_CARDINALITY)


def _inputs(dataset: Any, steps: int | None) -> Iterator[Any]:
    batches = dataset
    if isinstance(dataset, keras.utils.PyDataset):
        count = dataset.num_batches
        batches = (dataset[place] for place in (itertools.count() if count is None else range(count)))
    for batch in itertools.islice(batches, steps):
        x, _, _ = keras.utils.unpack_x_y_sample_weight(batch)
        yield tf.nest.map_structure(tf.convert_to_tensor, x)


def _arrays(dataset: Any, model: keras.Model) -> Any:
    """`dataset` as a structure of whole arrays; `None` if it is batches.

    A list of arrays is the x of a model of several inputs, and batches for any other.
    """
    if isinstance(dataset, list) and (_input_count(model) or 1) > 1 and _is_list_of_arrays(dataset):
        return (tuple(dataset),)
    return _without_lists(dataset) if isinstance(dataset, _ARRAY | tuple | dict) else None


def _without_lists(arrays: Any) -> Any:
    """tf.data would stack lists of arrays."""
    if isinstance(arrays, tuple) or _is_list_of_arrays(arrays):
        return tuple(_without_lists(each) for each in arrays)
    if isinstance(arrays, dict):
        return {name: _without_lists(each) for name, each in arrays.items()}
    return arrays


def _is_list_of_arrays(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 0 and all(isinstance(each, _ARRAY) for each in value)


def _input_count(model: keras.Model) -> int | None:
    """How many inputs `model` has; `None` where only its `call` knows."""
    inputs = getattr(model, "inputs", None)
    return None if inputs is None else len(inputs)
