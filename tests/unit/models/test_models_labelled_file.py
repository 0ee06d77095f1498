"""Class names inside a .keras file, and `keras_opt.load_model`."""

import zipfile

import keras
import numpy as np
import pytest

import keras_opt
from keras_opt.models.labelled_file import read_class_names, save_labelled
from keras_opt.schedules import OneCycle

NAMES = ("T-shirt/top", "Straße", "靴")
X = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")


@pytest.fixture
def model():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3, name="head")])
    model.compile(keras.optimizers.Adam(OneCycle(0.1, 10)), "mse")
    model.fit(X, X, verbose=0)
    return model


def test_names_and_model_come_back(model, tmp_path):
    path = tmp_path / "model.keras"
    save_labelled(model, path, NAMES)
    assert read_class_names(path) == NAMES
    loaded = keras_opt.load_model(path)
    assert loaded.class_names == NAMES
    assert loaded.optimizer.iterations == 1
    np.testing.assert_array_equal(loaded.predict(X, verbose=0), model.predict(X, verbose=0))
    assert list(tmp_path.iterdir()) == [path]


def test_plain_keras_opens_the_labelled_file(model, tmp_path):
    save_labelled(model, tmp_path / "model.keras", NAMES)
    plain = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(plain.predict(X, verbose=0), model.predict(X, verbose=0))


def test_a_plain_file_has_no_names(model, tmp_path):
    model.save(tmp_path / "plain.keras")
    assert keras_opt.load_model(tmp_path / "plain.keras", compile=False).class_names == ()


def test_an_old_file_is_kept_when_saving_fails(tmp_path):
    path = tmp_path / "model.keras"
    path.write_text("old")
    with pytest.raises(AttributeError):
        save_labelled(object(), path, NAMES)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_missing_foreign_and_damaged_files_are_named(model, tmp_path):
    with pytest.raises(ValueError, match=r"Model file .*none\.keras.* is not there"):
        keras_opt.load_model(tmp_path / "none.keras")
    (tmp_path / "text.keras").write_text("hello")
    with pytest.raises(ValueError, match=r"text\.keras' is no \.keras file"):
        keras_opt.load_model(tmp_path / "text.keras")
    with zipfile.ZipFile(tmp_path / "other.keras", "w") as archive:
        archive.writestr("hello.txt", "hello")
    with pytest.raises(ValueError, match=r"other\.keras' is no \.keras file"):
        keras_opt.load_model(tmp_path / "other.keras")


def test_a_file_damaged_anywhere_gives_one_error_with_the_cure(model, tmp_path):
    save_labelled(model, tmp_path / "whole.keras", NAMES)
    whole = (tmp_path / "whole.keras").read_bytes()
    damaged = tmp_path / "damaged.keras"
    refused = 0
    for start in range(0, len(whole), len(whole) // 40):
        inverted = bytes(byte ^ 0xFF for byte in whole[start : start + 64])
        damaged.write_bytes(whole[:start] + inverted + whole[start + 64 :])
        try:
            keras_opt.load_model(damaged)
        except ValueError as error:
            assert "damaged.keras" in str(error)  # noqa: PT017
            refused += 1
    assert refused > 20


def test_an_unknown_class_asks_for_its_module(tmp_path):
    class Foreign(keras.layers.Layer):
        def call(self, x):
            return x

    keras.Sequential([keras.Input((3,)), Foreign()]).save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match="If it holds classes of your own, import their module first"):
        keras_opt.load_model(tmp_path / "model.keras")
