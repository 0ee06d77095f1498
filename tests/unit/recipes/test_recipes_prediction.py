"""One image through a Keras model or a device file, and the inputs that int8 export learns from."""

import keras
import numpy as np
import pytest
from image_folders import noisy, write_images
from PIL import Image

from keras_opt.export import to_tflite
from keras_opt.recipes.prediction import Predictor
from keras_opt.recipes.representative import representative_rows


def by_hand(model, path, size=16):
    pixels = Image.open(path).convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    return model.predict(np.asarray(pixels, np.float32)[None], verbose=0)[0]


def test_both_files_give_the_class_that_keras_gives_by_hand(finished, photos):
    model = keras.models.load_model(finished.folder / "model.keras", compile=False)
    keras_file, device_file = (Predictor(finished.folder / name) for name in ("model.keras", "model.tflite"))
    assert keras_file.class_names == device_file.class_names == ("blue", "green", "red")
    for path in sorted(photos.rglob("00*.png")):
        expected = by_hand(model, path)
        np.testing.assert_allclose(keras_file(path), expected, atol=1e-6)
        assert device_file(path).argmax() == expected.argmax()


def test_an_image_that_cannot_be_read_is_named(finished, tmp_path):
    predict = Predictor(finished.folder / "model.tflite")
    (tmp_path / "note.png").write_text("no image")
    for name in ("note.png", "none.png"):
        with pytest.raises(ValueError, match=rf"Image '.*{name}' cannot be read .*Give a JPEG, PNG, BMP or GIF"):
            predict(tmp_path / name)


def save(tmp_path, *layers):
    model = keras.Sequential(layers)
    model.save(tmp_path / "model.keras")
    return tmp_path / "model.keras"


def test_a_model_without_names_numbers_its_classes(tmp_path):
    path = save(tmp_path, keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(3))
    noisy((1, 2, 3)).save(tmp_path / "image.png")
    predict = Predictor(path)
    assert predict.class_names == ("0", "1", "2")
    assert predict(tmp_path / "image.png").shape == (3,)


def test_a_model_with_one_output_is_refused(tmp_path):
    path = save(tmp_path, keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(1, "sigmoid"))
    to_tflite(keras.models.load_model(path), tmp_path / "model.tflite", "float32")
    for file in (path, tmp_path / "model.tflite"):
        with pytest.raises(ValueError, match=r"has one output, not one for each class\. Give a model that ends in"):
            Predictor(file)


@pytest.mark.parametrize("shape", [(10,), (8, 8, 4), (None, None, 3)])
def test_a_model_of_other_inputs_is_refused(tmp_path, shape):
    path = save(tmp_path, keras.Input(shape), keras.layers.Activation("relu"))
    with pytest.raises(ValueError, match="not images of one size"):
        Predictor(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("model.keras", b"no zip", "is no .keras file"),
        ("model.keras", None, "is not there"),
        ("model.tflite", b"no flatbuffer, but long enough to look at", r"\.tflite"),
        ("model.tflite", None, "there is no file"),
        ("model.h5", b"", "must end in .keras or .tflite"),
    ],
)
def test_a_file_that_is_no_model_is_named(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        Predictor(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_representative_rows_of_a_folder_are_spread_over_the_classes(tmp_path):
    folder = write_images(tmp_path / "photos", count=80)
    rows = representative_rows(folder, (None, 16, 16, 3))
    assert rows.shape == (200, 16, 16, 3)
    assert rows.dtype == np.uint8
    shares = np.bincount(rows.mean(axis=(1, 2)).argmax(axis=1))
    assert shares.min() >= 66


def test_representative_rows_of_numpy_files(tmp_path):
    x, y = np.arange(24, dtype=np.float32).reshape(3, 8), np.arange(3)
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "one.npz", images=x)
    np.savez(tmp_path / "named.npz", y=y, x=x)
    np.savez(tmp_path / "odd.npz", a=x, b=y)
    for name in ("x.npy", "one.npz", "named.npz"):
        np.testing.assert_array_equal(representative_rows(tmp_path / name, (None, 8)), x)
    with pytest.raises(ValueError, match=r"holds the arrays a, b\. Name the inputs `x`"):
        representative_rows(tmp_path / "odd.npz", (None, 8))


@pytest.mark.parametrize(
    ("make", "shape", "message"),
    [
        (lambda place: None, (None, 8, 8, 3), "does not exist. Give a folder of images or an .npz file"),
        (lambda place: place.mkdir(), (None, 8, 8, 3), "holds no images. Give one with JPEG"),
        (lambda place: write_images(place, 1), (None, 8), "no images. Give --representative an .npz file"),
        (lambda place: place.write_text("text"), (None, 8), "is neither a folder nor a NumPy file"),
        (lambda place: place.write_bytes(b""), (None, 8), "is neither a folder nor a NumPy file"),
        (lambda place: place.write_bytes(b"PK\x03\x04half"), (None, 8), "is neither a folder nor a NumPy file"),
    ],
)
def test_representative_data_that_cannot_be_used_is_named(tmp_path, make, shape, message):
    make(tmp_path / "data")
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        representative_rows(tmp_path / "data", shape)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
