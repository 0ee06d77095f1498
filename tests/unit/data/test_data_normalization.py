"""Statistics as a layer of the model: exact values, memmaps, what cannot be normalized."""

import tempfile

import keras
import numpy as np
import pytest

from keras_opt.core.errors import InputError
from keras_opt.data.normalization import normalization

RNG = np.random.default_rng(0)
TABLE = RNG.normal(5.0, 3.0, (5000, 3)) * [1.0, 100.0, 0.01]


@pytest.mark.parametrize(
    "values", [TABLE, TABLE[:, 0], RNG.integers(0, 256, (50, 4, 4, 3), np.uint8)], ids=["table", "column", "images"]
)
@pytest.mark.parametrize("kind", ["standard", "min_max"])
def test_values_are_those_of_the_formula(values, kind):
    axes = tuple(range(max(1, values.ndim - 1)))
    exact = values.astype(np.float64)
    if kind == "standard":
        expected = (exact - exact.mean(axes)) / exact.std(axes)
    else:
        expected = (exact - exact.min(axes)) / (exact.max(axes) - exact.min(axes))
    layer = normalization("arrays", "`x`", values, kind)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(layer(values.astype(np.float32))), expected, atol=2e-5)
    copy = keras.layers.deserialize(keras.layers.serialize(layer))
    np.testing.assert_array_equal(copy(values.astype(np.float32)), layer(values.astype(np.float32)))


def test_a_memmap_is_read_in_parts():
    with tempfile.TemporaryFile() as file:
        stored = np.memmap(file, TABLE.dtype, "w+", shape=TABLE.shape)
    stored[:] = TABLE
    expected, found = (normalization("arrays", "`x`", values, "standard").get_config() for values in (TABLE, stored))
    assert found["mean"] == expected["mean"]
    np.testing.assert_allclose(found["variance"], TABLE.var(axis=0), rtol=1e-12)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ((slice(None), 1, 4.0), "arrays: `x` is constant in column 1, between 4 and 4: nothing to normalize. Leave it"),
        ((7, 2, np.nan), "arrays: `x` holds NaN or infinity, first in column 2. Fill the gaps or leave out these"),
        ((7, 0, -np.inf), "arrays: `x` holds NaN or infinity, first in column 0. Fill the gaps or leave out these"),
        ((slice(None), 0, 1e9 + TABLE[:, 0]), "arrays: `x` varies too little for float32 in column 0, between "),
        ((slice(None), 0, 1e-9 * TABLE[:, 0]), "arrays: `x` varies too little for float32 in column 0, between "),
    ],
)
def test_what_cannot_be_normalized(spoil, message):
    values = TABLE.copy()
    rows, column, value = spoil
    values[rows, column] = value
    with pytest.raises(InputError, match="^" + message):
        normalization("arrays", "`x`", values, "standard")


def test_texts_cannot_be_normalized():
    with pytest.raises(InputError, match=r"arrays: `x` holds str.* and cannot be normalized\. Give numbers\."):
        normalization("arrays", "`x`", np.array(["a", "b"]), "standard")
