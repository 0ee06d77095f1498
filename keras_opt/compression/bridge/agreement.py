"""Whether a Keras 3 model and a tf_keras one give the same outputs."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_opt.core.all_layers import all_layers
from keras_opt.core.errors import InputError
from keras_opt.models.graph import calls, functional

TOLERANCE = 1e-5
HALF_PRECISION_TOLERANCE = 1e-2
_UNKNOWN_LENGTH = 32
_KINDS_OF_ROWS = 4
_ROUNDING = 1e-7
_LOOK_UP = (keras.layers.Embedding, keras.layers.CategoryEncoding)


def check_same_outputs(owner: str, model: keras.Model, twin: Any) -> None:
    """Raise unless both give the same outputs at inference on random rows.

    The rows: standard normal numbers, in images one row of bytes, and in one row zeros for the second half, which a
    Masking skips; in several calls where the size of the batch is fixed. Each output of a row may differ by the
    tolerance times the largest number in it.
    """
    tolerance = HALF_PRECISION_TOLERANCE if _computes_in_halves(model) else TOLERANCE
    for inputs in random_inputs(model):
        ours, theirs = _outputs(model, inputs), _outputs(twin, inputs)
        for name, expected, received in zip(twin.output_names, ours, theirs, strict=True):
            error = np.inf if expected.shape != received.shape else _error(expected, received)
            if not error <= tolerance:
                raise InputError(
                    f"{owner}: the output {name!r} of model {model.name!r} differs by {error:.2g} of its largest "
                    f"number, allowed is {tolerance:.0e}: {_cause(model, inputs, ours, error)}. Use what works on "
                    "Keras 3 itself (PruneLowMagnitude, quantize_aware), or change the model."
                )


def _cause(model: keras.Model, inputs: Any, outputs: list[np.ndarray], error: float) -> str:
    if np.isinf(error):
        return "they are of another shape, or no number in them is finite"

    def change(other: Any) -> float:
        return max(_error(a, b) for a, b in zip(outputs, _outputs(model, other), strict=True))

    if change(inputs) > 0.1 * error:
        return "the Keras 3 model itself gives others at each call"
    moved = change(keras.tree.map_structure(lambda x: x * (1 + _ROUNDING) if x.dtype.kind == "f" else x, inputs))
    if moved > 0.1 * error:
        return f"rounding, for the outputs move by {moved:.2g} when the inputs move by {_ROUNDING:.0e}"
    return "a layer differs"


def random_inputs(model: keras.Model) -> Iterator[Any]:
    """Batches of the kinds of rows that `check_same_outputs` names, each in the structure of the model's inputs."""
    rng = np.random.default_rng(0)
    limit, are_indices = _limit_of_indices(model), _are_indices(model)
    rows = next((tensor.shape[0] for tensor in model.inputs if tensor.shape[0]), _KINDS_OF_ROWS)
    for first in range(0, _KINDS_OF_ROWS, rows):
        kinds = np.arange(first, first + rows) % _KINDS_OF_ROWS
        arrays = [
            _drawn(rng, tensor, kinds, limit if is_index else None)
            for tensor, is_index in zip(model.inputs, are_indices, strict=True)
        ]
        yield keras.tree.pack_sequence_as(functional(model).input, arrays)


def _drawn(rng: np.random.Generator, tensor: keras.KerasTensor, kinds: np.ndarray, limit: int | None) -> np.ndarray:
    shape = (len(kinds), *(size or _UNKNOWN_LENGTH for size in tensor.shape[1:]))
    if limit is not None or "float" not in tensor.dtype:
        values = rng.integers(0, limit or 2, shape)
    else:
        values = rng.normal(size=shape)
        if len(shape) == 4:
            values[kinds == 1] = rng.integers(0, 256, shape)[kinds == 1]
    if len(shape) > 1:
        values[kinds == 3, shape[1] // 2 :] = 0
    return values.astype(tensor.dtype)


def _limit_of_indices(model: keras.Model) -> int:
    limits = [
        getattr(layer, "input_dim", None) or getattr(layer, "num_tokens", None)
        for layer in all_layers(model)
        if isinstance(layer, _LOOK_UP)
    ]
    return min((limit for limit in limits if limit), default=2)


def _are_indices(model: keras.Model) -> list[bool]:
    """For each input whether it goes to a layer that looks something up, or to a nested model with such a layer."""
    graph = functional(model)
    users = {layer.name for layer in graph.layers if any(isinstance(each, _LOOK_UP) for each in all_layers(layer))}
    fed = {source for user, nodes in calls(model).items() if user in users for node in nodes for source in node}
    inputs = {id(layer.output): layer.name for layer in graph.layers if isinstance(layer, keras.layers.InputLayer)}
    return [inputs.get(id(tensor)) in fed for tensor in graph.inputs]


def _computes_in_halves(model: keras.Model) -> bool:
    return any(layer.compute_dtype in ("float16", "bfloat16") for layer in all_layers(model))


def _outputs(model: Any, inputs: Any) -> list[np.ndarray]:
    return [keras.ops.convert_to_numpy(each) for each in keras.tree.flatten(model(inputs, training=False))]


def _error(expected: np.ndarray, received: np.ndarray) -> float:
    """The largest difference in a row, relative to the largest number in it."""
    expected, received = (np.asarray(each, "float64").reshape(len(each), -1) for each in (expected, received))
    if expected.size and not np.isfinite(expected).any():
        return np.inf
    with np.errstate(invalid="ignore"):
        difference = np.where(expected == received, 0, np.abs(expected - received))
    difference = np.where(np.isnan(expected) & np.isnan(received), 0, difference)
    largest = np.max(np.abs(expected), axis=1, initial=0, where=np.isfinite(expected))
    share = np.max(difference, axis=1, initial=0) / np.where(largest > 0, largest, 1)
    return float(np.max(share, initial=0)) if not np.isnan(share).any() else np.inf
