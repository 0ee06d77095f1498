"""The names of a model's inputs and outputs."""

import itertools
import re

import keras


def input_names(model: keras.Model) -> tuple[str, ...]:
    """The name of each input, in order: the keys of a model that takes a dict, else what its inputs are called."""
    return _keys(model, "input") or tuple(tensor.name for tensor in model.inputs)


def output_names(model: keras.Model) -> tuple[str, ...]:
    """The name of each output, in order: the keys of a model that gives a dict, else the layers they come from."""
    return _keys(model, "output") or _unique(getattr(model, "output_names", ("output",)))


def file_input_names(model: keras.Model) -> tuple[str, ...]:
    """`input_names`, but "input" for an only one that Keras named: its number would differ in another process."""
    names = input_names(model)
    return ("input",) if len(names) == 1 and _AUTOMATIC.fullmatch(names[0]) else names


_AUTOMATIC = re.compile(r"(keras_tensor|input_layer)(_\d+)*")


def _keys(model, side):
    """The keys of a dict of tensors, in the order in which Keras flattens it; none of a nested one."""
    structure = None if isinstance(model, keras.Sequential) else getattr(model, side)
    flat = isinstance(structure, dict) and not any(keras.tree.is_nested(each) for each in structure.values())
    return tuple(sorted(structure)) if flat else ()


def _unique(names):
    """`names` with a number behind one that came before."""
    taken = []
    for name in names:
        free = (f"{name}_{number}" for number in itertools.count(1))
        taken.append(name if name not in taken else next(each for each in free if each not in taken))
    return tuple(taken)
