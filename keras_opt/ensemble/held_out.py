"""What several models say of data that none was trained on, and what is true of it."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_opt.core.errors import argument_error
from keras_opt.models.batches import check_is_repeatable


def outputs_and_targets(
    owner: str, models: Sequence[keras.Model], names: Sequence[str], x: Any, y: Any, batch_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """The outputs of all models, (models, rows, ..., outputs), and the targets, (rows, ..., outputs).

    Args:
        owner: The public function, for messages.
        models: The models.
        names: What messages call them.
        x: Inputs, as `predict` takes them; or a `tf.data.Dataset` of batches `(x, y)`, which is gone through once, so
            that it may be shuffled.
        y: Targets in the shape of the outputs, or class numbers; `None` for a dataset.
        batch_size: For arrays.

    Raises:
        ValueError: The targets are no finite numbers, do not fit the outputs, or there are none; outputs are not
            finite; or a dataset has sample weights.
    """
    if isinstance(x, tf.data.Dataset):
        if y is not None:
            raise argument_error(owner, "y", y, "left out for a dataset", "Let it give batches (x, y).")
        outputs, y = _of_batches(owner, models, x)
    else:
        y = _numbers(owner, y)
        outputs = [model.predict(x, batch_size=batch_size, verbose=0) for model in models]
    for name, each in zip(names, outputs, strict=True):
        if not np.all(np.isfinite(each)):
            must_be = "a model whose outputs are finite"
            raise argument_error(owner, name, "NaN or infinity", must_be, "Leave out what diverged.")
    return np.stack(outputs), _targets_like(owner, y, outputs[0])


def _of_batches(owner: str, models: Sequence[keras.Model], dataset: tf.data.Dataset) -> tuple[list[Any], np.ndarray]:
    check_is_repeatable(owner, "x", dataset)
    outputs, targets = [[] for _ in models], []
    for batch in dataset:
        x, y, weights = keras.utils.unpack_x_y_sample_weight(batch)
        if weights is not None:
            cure = "All rows count alike here: leave the weights out, dataset.map(lambda x, y, w: (x, y))."
            raise argument_error(owner, "x", dataset, "a dataset of batches (x, y), without sample weights", cure)
        targets.append(_numbers(owner, y))
        for model, rows in zip(models, outputs, strict=True):
            rows.append(model.predict_on_batch(x))
    if not targets:
        raise argument_error(owner, "x", dataset, "a dataset with a batch", "It is empty.")
    return [np.concatenate(rows) for rows in outputs], np.concatenate(targets)


def _numbers(owner: str, y: Any) -> np.ndarray:
    y = np.asarray(y)
    if y.dtype.kind not in "biuf" or not y.size or not np.all(np.isfinite(y)):
        raise argument_error(owner, "y", y, "finite numbers, at least one", "Give one target for each row of `x`.")
    return y


def _targets_like(owner: str, y: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """`y` in the shape of `outputs`, class numbers as one-hot rows."""
    if y.shape == outputs.shape:
        return y
    classes = outputs.shape[-1]
    if y.shape == (*outputs.shape[:-1], 1):
        y = y[..., 0]
    if y.shape == outputs.shape[:-1]:
        if classes == 1:
            return y[..., np.newaxis]
        if np.all(y == y.astype(int)) and y.min() >= 0 and y.max() < classes:
            return np.eye(classes)[y.astype(int)]
    must_be = f"of shape {outputs.shape}, or class numbers from 0 to {classes - 1}"
    raise argument_error(owner, "y", y.shape, must_be, "Give one target for each row of `x`.")
