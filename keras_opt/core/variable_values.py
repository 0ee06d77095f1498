"""The values of variables, taken and put back bit for bit."""

from collections.abc import Iterable

import keras
import numpy as np
import tensorflow as tf


def values_of(variables: Iterable[keras.Variable], strategy: tf.distribute.Strategy) -> list[np.ndarray]:
    """What `variables` hold now, on every replica: those of BatchNorm's statistics differ.

    Args:
        variables: Keras variables, with values.
        strategy: What they are distributed by, the `distribute_strategy` of their model.

    Cost: one copy of them in the memory of the host.
    """
    return [np.array(copy.numpy()) for copy in _copies(variables, strategy)]


def put_values_back(
    variables: Iterable[keras.Variable], strategy: tf.distribute.Strategy, values: Iterable[np.ndarray]
) -> None:
    """Assign what `values_of` gave."""
    for variable, value in zip(_copies(variables, strategy), values, strict=True):
        variable.assign(value)


def _copies(variables: Iterable[keras.Variable], strategy: tf.distribute.Strategy) -> list[tf.Variable]:
    return [copy for each in variables for copy in strategy.experimental_local_results(each.value)]
