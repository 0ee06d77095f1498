"""The variables of a plugin, such that a training that was broken off can go on with them."""

from typing import Any

import numpy as np
import tensorflow as tf

from keras_opt.core.errors import InputError
from keras_opt.core.replicas import replica_variable


class PluginState:
    """The variables of one plugin by name. They are there once the step is traced, but can be loaded before.

    What is loaded under a name without a variable waits until `variable` makes it. Every replica's copy is kept, for
    the sums of micro-batches differ between them.
    """

    def __init__(self):
        self._copies: dict[str, tuple[tf.Variable, ...]] = {}
        self._waiting: dict[str, list[np.ndarray]] = {}

    def variable(self, name: str, value: Any, dtype: Any = None) -> tf.Variable:
        """Make a `replica_variable`, in place of an earlier one; it holds what was loaded for it, else `value`."""
        made = replica_variable(value, dtype, name)
        self._copies[name] = tf.distribute.get_strategy().experimental_local_results(made)
        if name in self._waiting:
            _assign(self._copies[name], self._waiting.pop(name))
        return made

    def value(self, name: str, default: Any) -> Any:
        """What the first replica has under a name, `default` as long as nothing was made or loaded."""
        if name in self._copies:
            return self._copies[name][0].numpy()
        return self._waiting[name][0] if name in self._waiting else default

    def state_dict(self) -> dict[str, list[np.ndarray]]:
        """The values by name, each a list of the replicas' copies."""
        values = {name: [np.asarray(copy.numpy()) for copy in copies] for name, copies in self._copies.items()}
        return {**values, **self._waiting}

    def load_state_dict(self, state: dict[str, list[np.ndarray]]) -> None:
        """Go on with `state`, before the first step; variables that are not in it stay as they are."""
        self._waiting = {name: values for name, values in state.items() if name not in self._copies}
        for name in state.keys() & self._copies.keys():
            _assign(self._copies[name], state[name])


def _assign(copies: tuple[tf.Variable, ...], values: list[np.ndarray]) -> None:
    if len(copies) != len(values):
        raise InputError(
            f"StepPlugin: the state is of a training on {len(values)} replicas, and this one has {len(copies)}. Resume "
            "it on as many devices as it was begun on."
        )
    for copy, value in zip(copies, values, strict=True):
        copy.assign(value)
