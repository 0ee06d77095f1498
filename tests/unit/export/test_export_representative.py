"""What `representative_data` may be, what is read from it, and what it is refused for."""

import re
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from image_folders import write_images

from keras_opt.core.errors import InputError
from keras_opt.export import to_tflite
from keras_opt.export.representative import representative

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (250, 6, 6, 1))
Y = np.arange(250) % 3
SPREAD = np.linspace(0, 249, 200).round().astype(int)


@pytest.fixture(scope="module")
def model():
    return keras.Sequential(
        [keras.Input((6, 6, 1)), keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), keras.layers.Dense(3)]
    )


@pytest.fixture(scope="module")
def two_inputs():
    left, right = keras.Input((4,), name="left"), keras.Input((2, 3), name="right")
    return keras.Model([left, right], keras.layers.Concatenate()([left, keras.layers.Flatten()(right)]))


def read(model, data, **settings):
    return representative("to_tflite", model, data, **settings)


def rows_one_by_one():
    return iter(X)


SOURCES = {
    "array": (X, SPREAD),
    "list of rows": (list(X), SPREAD),
    "list of one array": ([X], SPREAD),
    "x and y": ((X, Y), SPREAD),
    "dataset of x": (tf.data.Dataset.from_tensor_slices(X).batch(50).repeat(), np.arange(200)),
    "dataset of rows": (tf.data.Dataset.from_tensor_slices(X).repeat(), np.arange(200)),
    "dataset of x, y, weight": (
        tf.data.Dataset.from_tensor_slices((X, Y, np.ones(250))).batch(50).repeat(),
        np.arange(200),
    ),
    "generator of batches": ((X[start : start + 40] for start in range(0, 240, 40)), np.arange(200)),
    "generator of rows with y": (zip(X, Y, strict=True), np.arange(200)),
    "function, as TFLite takes it": (lambda: ([row[np.newaxis]] for row in X), np.arange(200)),
    "function of rows": (rows_one_by_one, np.arange(200)),
}


@pytest.mark.parametrize("source", SOURCES)
def test_two_hundred_rows_of_any_source(source, model):
    data, expected = SOURCES[source]
    found = read(model, data)
    np.testing.assert_array_equal(found.rows[0], X[expected])
    if "y" in source.split():
        np.testing.assert_array_equal(found.y, Y[expected])


def test_several_inputs_by_order_and_by_name(two_inputs):
    left, right = RNG.normal(size=(120, 4)), RNG.normal(size=(120, 2, 3))
    batches = tf.data.Dataset.from_tensor_slices(({"right": right, "left": left}, np.zeros(120))).batch(30)
    for data in ([left, right], {"right": right, "left": left}, batches, (each for each in [[left, right]])):
        found = read(two_inputs, data)
        for rows, expected in zip(found.rows, (left, right), strict=True):
            np.testing.assert_array_equal(rows, expected)


def test_a_folder_is_spread_over_its_classes(tmp_path):
    model = keras.Sequential([keras.Input((16, 16, 3)), keras.layers.Flatten(), keras.layers.Dense(3)])
    found = read(model, write_images(tmp_path / "photos", count=80), class_names=("blue", "green", "red"))
    assert found.rows[0].shape == (200, 16, 16, 3)
    assert found.rows[0].dtype == np.uint8
    assert np.bincount(found.rows[0].mean(axis=(1, 2)).argmax(axis=1)).min() >= 66
    assert np.bincount(found.y).min() >= 66


def test_numpy_files(tmp_path, model, two_inputs):
    np.save(tmp_path / "x.npy", X)
    np.savez(tmp_path / "one.npz", images=X)
    np.savez(tmp_path / "named.npz", y=Y, x=X)
    for name in ("x.npy", "one.npz", "named.npz"):
        np.testing.assert_array_equal(read(model, tmp_path / name).rows[0], X[SPREAD])
    np.testing.assert_array_equal(read(model, str(tmp_path / "named.npz")).y, Y[SPREAD])
    np.savez(tmp_path / "two.npz", right=RNG.normal(size=(100, 2, 3)), left=RNG.normal(size=(100, 4)))
    assert [rows.shape for rows in read(two_inputs, tmp_path / "two.npz").rows] == [(100, 4), (100, 2, 3)]
    np.savez(tmp_path / "odd.npz", a=X, b=Y)
    with pytest.raises(InputError, match="a file that names its inputs x, not a, b"):
        read(model, tmp_path / "odd.npz")
    with pytest.raises(InputError, match="a file that names its inputs left, right, not a, b"):
        read(two_inputs, tmp_path / "odd.npz")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda place: None, "must be a folder of images or a NumPy file, or the data itself. Received: "),
        (lambda place: place.mkdir(), "must be a folder that holds images (JPEG, PNG, BMP or GIF)."),
        (lambda place: place.write_text("text"), "must be a folder of images or a NumPy file ("),
        (lambda place: place.write_bytes(b""), "must be a folder of images or a NumPy file ("),
        (lambda place: place.write_bytes(b"PK\x03\x04half"), "must be a folder of images or a NumPy file ("),
    ],
)
def test_a_path_that_cannot_be_used(tmp_path, make, message, model):
    make(tmp_path / "data")
    with pytest.raises(InputError) as caught:
        read(model, tmp_path / "data")
    assert f"to_tflite: argument `representative_data` {message}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_for_inputs_that_are_no_images(tmp_path, two_inputs):
    with pytest.raises(InputError, match=r"an \.npz file or arrays for inputs of shape \(4,\), which is no image"):
        read(two_inputs, write_images(tmp_path / "photos", 1))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "raw inputs of shape (rows, 6, 6, 1), rows >= 1. Received: representative_data=None. Give about 200"),
        (3, "rows >= 1. Received: representative_data='int'."),
        (X[..., 0], "shape (rows, 6, 6, 1), rows >= 1. Received: representative_data=(250, 6, 6)."),
        (X[:0], "rows >= 1. Received: representative_data="),
        (iter([]), "rows >= 1. Received: representative_data='no rows'."),
        ({"image": X}, "Received: representative_data=\"columns 'image'\"."),
        ([X[0], X[1][:3]], "rows >= 1. Received: representative_data="),
        (np.full((5, 6, 6, 1), "x"), "must be numbers. Received: representative_data='str32'."),
        (np.where(X[:5] == X[0, 0, 0, 0], np.nan, X[:5]), "must be finite numbers. Received: representative_data='NaN"),
        (np.full((5, 6, 6, 1), 1e60), "='NaN or more than float32 holds in 5 of 5 rows'."),
        (np.full((5, 6, 6, 1), 7), "must be rows that differ. Received: representative_data='7 in every place'."),
        (X / 255, "must be raw pixels, 0..255: the model scales them itself by its Rescaling layer. Received: "),
        (X / 127.5 - 1, "Received: representative_data='values from -1 to 1'."),
    ],
)
def test_data_that_does_not_fit(data, message, model):
    with pytest.raises(InputError, match=re.escape(message)):
        read(model, data)


def test_columns_that_do_not_fit(two_inputs):
    left, right = RNG.normal(size=(120, 4)), RNG.normal(size=(120, 2, 3))
    must_be = "a list or dict of arrays of raw inputs, rows >= 1: 'left' (rows, 4), 'right' (rows, 2, 3). Received: "
    for data, received in (
        (left, "'ndarray'"),
        ([left], "'list'"),
        ([left, right[:7]], "[(120, 4), (7, 2, 3)]"),
        ([right, left], "[(120, 2, 3), (120, 4)]"),
    ):
        with pytest.raises(InputError, match=re.escape(f"{must_be}representative_data={received}.")):
            read(two_inputs, data)


def test_few_rows_warn_at_the_callers_line(model):
    message = "to_tflite: representative_data has 99 rows; under 100 the int8 ranges may be too narrow. Give 200"
    with pytest.warns(UserWarning, match=re.escape(message)) as caught:
        read(model, X[:99])
    assert caught[0].filename == __file__
    with warnings.catch_warnings(action="error"):
        read(model, X[:100])


@pytest.mark.parametrize("form", ["numbers", "one-hot", "column"])
def test_classes_that_are_not_shown_are_named(form, model):
    y = Y % 2
    y = {"numbers": y, "one-hot": np.eye(3)[y], "column": y[:, np.newaxis]}[form]
    with pytest.warns(UserWarning, match=r"shows no row of 1 classes \(2\)\. Show it every class"):
        read(model, (X, y))
    with pytest.warns(UserWarning, match=r"no row of 1 classes \(owl\)"):
        read(model, (X, y), class_names=("cat", "dog", "owl"))


@pytest.mark.parametrize("y", [Y, np.eye(3)[Y], Y / 3, Y - 1, Y * 2, np.ones((250, 3)), RNG.normal(size=(250, 2))])
def test_targets_that_show_all_classes_or_are_none_do_not_warn(y, model):
    with warnings.catch_warnings(action="error"):
        read(model, (X, y))


def test_to_tflite_reads_it_and_other_kinds_do_not_need_it(model, tmp_path):
    with pytest.raises(InputError, match="`representative_data` must be raw pixels"):
        to_tflite(model, tmp_path / "m.tflite", "int8", X / 255)
    with pytest.raises(InputError, match="representative_data=None"):
        to_tflite(model, tmp_path / "m.tflite", "int16x8")
