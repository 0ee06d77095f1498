"""The weights of a model as they were at their best."""

import os
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_opt.core.errors import argument_error
from keras_opt.core.files import atomic_path
from keras_opt.core.replicas import this_worker


class BestWeights:
    """A copy of a model's weights, in host memory or in a file.

    In memory it is made once, and written over in place when there is a better one. All weights are kept, those of
    BatchNorm too; the optimizer and seeds go on as they are.

    Args:
        filepath: A file that ends in `.weights.h5`, whole at any moment; `None` for memory. Of several workers the
            chief alone has a file.
    """

    def __init__(self, filepath: str | os.PathLike | None = None):
        if filepath is not None:
            _check_filepath(filepath)
        self._filepath = filepath
        self.arrays: list[np.ndarray] | None = None
        self.is_kept = False
        self._parts: list[tuple[keras.Variable, tuple[tf.Variable, ...]]] = []

    def keep(self, model: keras.Model) -> None:
        """Copy the weights of `model`."""
        self.is_kept = False  # if an interrupt breaks it off, the model has the best weights itself
        # The copies on the replicas, looked up now: an interrupt may strike where Keras gives out something else.
        results = model.distribute_strategy.experimental_local_results
        self._parts = [(weight, results(weight.value)) for weight in model.weights]
        if self._has_file(model):
            with atomic_path(self._filepath) as temporary:
                model.save_weights(temporary)
        elif self.arrays is None:
            self.arrays = [np.array(keras.ops.convert_to_numpy(weight)) for weight in model.weights]
        else:
            for array, weight in zip(self.arrays, model.weights, strict=True):
                np.copyto(array, keras.ops.convert_to_numpy(weight))
        self.is_kept = True

    def put_back(self, model: keras.Model) -> list[str]:
        """Give `model` the copy, cut to the constraints as they are now, which act in the training step only.

        Returns:
            The paths of the weights in which a constraint set numbers to zero.
        """
        with tf.init_scope():  # after an interrupt this runs wherever it struck, in the middle of a trace
            if self._has_file(model):
                _load_weights_only(model, self._filepath)
            results = model.distribute_strategy.experimental_local_results
            parts = self._parts or [(weight, results(weight.value)) for weight in model.weights]
            arrays = self.arrays or [copies[0].numpy() for _, copies in parts]
            return [
                weight.path
                for (weight, copies), array in zip(parts, arrays, strict=True)
                if _assign(weight, copies, array)
            ]

    def _has_file(self, model: keras.Model) -> bool:
        return self._filepath is not None and this_worker(model.distribute_strategy).is_chief

    def state_dict(self) -> dict[str, Any]:
        return {"is_kept": self.is_kept, "arrays": None if self.arrays is None else [np.copy(a) for a in self.arrays]}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        self.is_kept = saved["is_kept"]
        self.arrays = None if saved["arrays"] is None else [np.array(array) for array in saved["arrays"]]


def _assign(weight: keras.Variable, copies: tuple[tf.Variable, ...], array: np.ndarray) -> bool:
    """Assign `array` to all copies of a weight; say whether its constraint sets numbers in it to zero."""
    value = tf.convert_to_tensor(array)
    is_constrained = weight.constraint is not None and weight.trainable  # a training step leaves the others alone
    if is_constrained:
        value = tf.convert_to_tensor(weight.constraint(value))
    for copy in copies:
        copy.assign(value)
    return is_constrained and bool(((array != 0) & (value.numpy() == 0)).any())


def _load_weights_only(model: keras.Model, filepath: Any) -> None:
    """Load a file of weights, in which Keras has put the state of the optimizer too, without the latter."""
    optimizer = getattr(model, "optimizer", None)
    kept = [(variable, variable.numpy()) for variable in getattr(optimizer, "variables", ())]
    model.load_weights(filepath)
    for variable, value in kept:
        variable.assign(value)


def _check_filepath(filepath: Any) -> None:
    if not str(filepath).endswith(".weights.h5"):
        cure = 'Give for example "best.weights.h5".'
        raise argument_error("EarlyStopping", "filepath", filepath, "a path that ends in .weights.h5", cure)
    if not os.access(Path(filepath).parent, os.W_OK):
        cure = "Make the folder first, or choose another."
        raise argument_error("EarlyStopping", "filepath", filepath, "in a folder that can be written", cure)
