"""All that a training has come to, apart from its place in the data."""

from collections.abc import Iterable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_opt.callbacks.backup.keras_states import load_state_of, state_of
from keras_opt.core.errors import InputError
from keras_opt.core.random_generators import put_generators_back, state_of_generators
from keras_opt.core.replicas import local_replica_count
from keras_opt.core.variable_values import put_values_back, values_of
from keras_opt.training.layer_states import layer_states

State = dict[str, Any]


def state_of_training(model: keras.Model, callbacks: Iterable[keras.callbacks.Callback]) -> State:
    """The variables of `model`, its optimizers and metrics, the random generators, and the states of `callbacks`."""
    strategy = model.distribute_strategy
    return {
        "variables": {group: values_of(variables, strategy) for group, variables in _groups(model).items()},
        "generators": state_of_generators(),
        "callbacks": [{"class": type(callback).__name__, "state": state_of(callback)} for callback in callbacks],
    }


def put_back(model: keras.Model, callbacks: Iterable[keras.callbacks.Callback], state: State) -> list[str]:
    """Make everything as it was when `state` was taken.

    The training must have begun and the model and its metrics must be built, see `build_with_metrics`.

    Returns:
        The classes of those callbacks that were not there, and so begin anew.

    Raises:
        InputError: Some variables are others than in `state`.
    """
    for name, optimizer in _optimizers(model).items():
        is_of_fit = optimizer is model.optimizer
        if is_of_fit and not optimizer.built and len(state["variables"].get(name, ())) > len(optimizer.variables):
            optimizer.build(model.trainable_variables)
    groups = _groups(model)
    for group, values in state["variables"].items():
        _assign(group, groups.get(group, []), values, model.distribute_strategy)
    unmet = _load_callbacks(callbacks, state["callbacks"])
    put_generators_back(state["generators"])
    return unmet


def is_built_for(model: keras.Model, state: State) -> bool:
    """Whether `model`, its metrics and optimizers of its own have all variables that `state` has values for."""
    built_by_put_back = [name for name, each in _optimizers(model).items() if each is model.optimizer]
    return all(before <= now for name, before, now in _counts(model, state) if name not in built_by_put_back)


def has_outgrown(model: keras.Model, state: State) -> bool:
    """Whether `model`, its metrics or optimizers have variables that were not yet made when `state` was taken."""
    return any(before < now for _, before, now in _counts(model, state))


def _counts(model: keras.Model, state: State) -> list[tuple[str, int, int]]:
    """Of each group of variables how many there were in `state`, and how many there are."""
    replicas = local_replica_count(model.distribute_strategy)
    groups = _groups(model)
    saved = state["variables"].items()
    return [(name, len(values), replicas * len(groups.get(name, ()))) for name, values in saved]


def unbuilt_optimizers(model: keras.Model) -> list[str]:
    """The names of the attributes of `model` that hold optimizers of its own whose variables are not known."""
    return [name for name, each in _optimizers(model).items() if each is not model.optimizer and not each.built]


def _groups(model: keras.Model) -> dict[str, list[keras.Variable]]:
    optimizers = {name: list(optimizer.variables) for name, optimizer in _optimizers(model).items()}
    groups = {"model": model.variables, "metrics": model.metrics_variables, "states": layer_states(model)}
    return {name: list(variables) for name, variables in groups.items()} | optimizers


def _optimizers(model: keras.Model) -> dict[str, keras.optimizers.Optimizer]:
    """The optimizers of `model`, by attribute; those of a GAN's `train_step` too."""
    found = {}
    for name, value in vars(model).items():
        if isinstance(value, keras.optimizers.Optimizer):
            found[name] = value
        elif isinstance(value, Mapping | list | tuple) and not name.startswith("_"):
            places = value.items() if isinstance(value, Mapping) else enumerate(value)
            held = [(place, each) for place, each in places if isinstance(each, keras.optimizers.Optimizer)]
            found |= {f"{name}[{place!r}]": each for place, each in held}
    return found


def _assign(
    group: str, variables: list[keras.Variable], values: list[np.ndarray], strategy: tf.distribute.Strategy
) -> None:
    replicas = local_replica_count(strategy)
    here = [tuple(variable.shape) for variable in variables for _ in range(replicas)]
    there = [value.shape for value in values]
    if here != there:
        raise InputError(
            f"BackupAndRestore: the backup is that of another training: the variables of {group} had the shapes "
            f"{there}, and have {here}. Build and compile as before, or delete the backup to train anew."
        )
    put_values_back(variables, strategy, values)


def _load_callbacks(callbacks: Iterable[keras.callbacks.Callback], saved: list[State]) -> list[str]:
    saved, unmet = list(saved), []
    for callback in callbacks:
        kind = type(callback).__name__
        entry = next((entry for entry in saved if entry["class"] == kind), None)
        if entry is None:
            unmet.append(kind)
        else:
            saved.remove(entry)
            load_state_of(callback, entry["state"])
    return unmet
