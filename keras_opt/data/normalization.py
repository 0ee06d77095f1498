"""Statistics of the training data as a layer, so that a saved model takes raw values."""

import keras
import numpy as np

from keras_opt.core.errors import InputError

NORMALIZATIONS = (None, "standard", "min_max")
_CHUNK = 4096
# Keras divides by a standard deviation of at least 1e-7, and a model computes in float32.
_LEAST_RANGE = 1e-6
_FLOAT32_STEPS = 1e-6


def normalization(owner: str, name: str, values: np.ndarray, kind: str) -> keras.layers.Normalization:
    """Make the layer that normalises the last axis of `values`, or all of them if they have one axis.

    `"standard"` gives (x - mean) / standard deviation; `"min_max"` gives (x - min) / (max - min), which is in [0, 1]
    for these values.

    Args:
        owner: The public function that errors name.
        name: What `values` are, for errors.
        values: Numbers of shape (n, ...). A `numpy.memmap` is read in parts.
        kind: `"standard"` or `"min_max"`.

    Raises:
        InputError: `values` are no numbers, hold NaN or infinity, or are constant somewhere.

    Cost: two passes over the values, in float64.
    """
    if values.dtype.kind not in "iufb":
        raise InputError(f"{owner}: {name} holds {values.dtype.name} and cannot be normalized. Give numbers.")
    low, high, mean = _ranges(owner, name, values)
    if kind == "standard":
        offset = mean
        variance = sum(((chunk - mean) ** 2).sum(axis=0) for chunk in _chunks(values)) / (values.size / len(mean))
    else:
        offset, variance = low, (high - low) ** 2
    if values.ndim == 1:
        return keras.layers.Normalization(axis=None, mean=float(offset[0]), variance=float(variance[0]))
    return keras.layers.Normalization(axis=-1, mean=offset.tolist(), variance=variance.tolist())


def _chunks(values):
    """float64 parts of shape (., width), where width is the length of the last axis."""
    width = values.shape[-1] if values.ndim > 1 else 1
    for start in range(0, len(values), _CHUNK):
        yield np.asarray(values[start : start + _CHUNK], np.float64).reshape(-1, width)


def _ranges(owner, name, values):
    low, high, total = np.inf, -np.inf, 0.0
    for chunk in _chunks(values):
        odd = np.flatnonzero(~np.isfinite(chunk).all(axis=0))
        if len(odd):
            where = f", first in column {odd[0]}" if values.ndim > 1 else ""
            raise InputError(
                f"{owner}: {name} holds NaN or infinity{where}. Fill the gaps or leave out these examples."
            )
        low, high = np.minimum(low, chunk.min(axis=0)), np.maximum(high, chunk.max(axis=0))
        total = total + chunk.sum(axis=0)
    still = np.flatnonzero(high - low <= np.maximum(_LEAST_RANGE, _FLOAT32_STEPS * np.maximum(-low, high)))
    if len(still):
        where = f" in column {still[0]}" if values.ndim > 1 else ""
        column = still[0]
        varies = "is constant" if low[column] == high[column] else "varies too little for float32"
        raise InputError(
            f"{owner}: {name} {varies}{where}, between {low[column]:.9g} and {high[column]:.9g}: nothing to normalize. "
            "Leave it out, or subtract an offset and scale it yourself."
        )
    return low, high, total / (values.size / len(low))
