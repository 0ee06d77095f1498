"""One image through a Keras model or a device file."""

import keras
import numpy as np
import pytest
from image_folders import noisy
from PIL import Image

from keras_opt.core.errors import InputError
from keras_opt.export import to_tflite
from keras_opt.recipes.prediction import Predictor


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
        with pytest.raises(ValueError, match=r"has outputs of shape \(.*, 1\), not one for each class\. Give a"):
            Predictor(file)


def test_logits_become_probabilities(tmp_path):
    path = save(tmp_path, keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(3))
    model = keras.models.load_model(path)
    to_tflite(model, tmp_path / "model.tflite", "float32")
    noisy((1, 2, 3)).save(tmp_path / "image.png")
    expected = keras.ops.softmax(by_hand(model, tmp_path / "image.png", 8))
    for file in (path, tmp_path / "model.tflite"):
        np.testing.assert_allclose(Predictor(file)(tmp_path / "image.png"), expected, atol=1e-5)


def test_a_dict_of_one_output_is_that_output(tmp_path):
    image = keras.Input((8, 8, 3))
    keras.Model(image, {"class": keras.layers.Softmax()(keras.layers.Flatten()(image))}).save(tmp_path / "model.keras")
    noisy((1, 2, 3)).save(tmp_path / "image.png")
    assert Predictor(tmp_path / "model.keras")(tmp_path / "image.png").shape == (192,)


def test_a_model_whose_outputs_are_no_classes_is_refused(tmp_path):
    image = keras.Input((8, 8, 3))
    for outputs in (image * 2, [keras.layers.Flatten()(image), image], {"pixels": image * 2}):
        keras.Model(image, outputs).save(tmp_path / "model.keras")
        with pytest.raises(InputError, match=r"has outputs of shape .*, not one for each class"):
            Predictor(tmp_path / "model.keras")


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
