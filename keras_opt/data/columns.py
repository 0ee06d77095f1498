"""Arrays, dicts of columns and data frames as NumPy arrays."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_opt.core.errors import InputError


def as_columns(name: str, values: Any) -> np.ndarray | dict[str, np.ndarray]:
    """`values` as an array, or as a dict of arrays if it is one of columns.

    A data frame (pandas, or any with `columns` and `to_numpy`) becomes the array of its rows, with the type that holds
    all its columns.

    Args:
        name: The argument of `arrays`, for errors.
        values: What the user gave.

    Raises:
        InputError: A data frame holds something else than numbers.
    """
    if isinstance(values, Mapping):
        return {key: _as_array(column) for key, column in values.items()}
    if hasattr(values, "columns") and hasattr(values, "to_numpy"):
        return _rows(name, {column: _as_array(values[column]) for column in values.columns})
    return _as_array(values)


def _rows(name, columns):
    for column, values in columns.items():
        if values.dtype.kind not in "iufb":
            raise InputError(
                f"arrays: column {column!r} of the data frame `{name}` holds {values.dtype.name}, but must hold "
                "numbers without gaps. Encode it, or give dict(frame) and a model with one input a column."
            )
    return np.column_stack(list(columns.values()))


def _as_array(values):
    return values if isinstance(values, np.ndarray) else np.asarray(values)
