"""The names of a model's inputs and outputs."""

import itertools

import keras


def input_names(model: keras.Model) -> tuple[str, ...]:
    """The name of each input, in order: the keys of a model that takes a dict, else what its inputs are called."""
    if len(model.inputs) == 1:
        return (model.inputs[0].name,)
    return _keys(model.input) or tuple(tensor.name for tensor in model.inputs)


def output_names(model: keras.Model) -> tuple[str, ...]:
    """The name of each output, in order: the keys of a model that gives a dict, else the layers they come from."""
    if len(model.outputs) == 1:
        return tuple(getattr(model, "output_names", ("output",)))
    return _keys(model.output) or _unique(model.output_names)


def _keys(structure):
    """The keys of a dict of tensors, in the order in which Keras flattens it."""
    return tuple(sorted(structure)) if isinstance(structure, dict) else ()


def _unique(names):
    """`names` with a number behind one that came before."""
    taken = []
    for name in names:
        free = (f"{name}_{number}" for number in itertools.count(1))
        taken.append(name if name not in taken else next(each for each in free if each not in taken))
    return tuple(taken)
