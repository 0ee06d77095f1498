"""`verify` against its definition, and a file that is not the model's."""

import keras
import numpy as np
import pytest
from export_models import small_model

from keras_opt.export import LiteRTModel, Verification, to_tflite, verify


def test_figures_are_those_of_the_definition(exports, model, images):
    device, reference = LiteRTModel(exports["int8"].path).predict(images), model.predict(images, verbose=0)
    error = np.abs(device - reference).max()
    expected = Verification(np.mean(device.argmax(-1) == reference.argmax(-1)), error, error * 256, 250)
    assert verify(model, exports["int8"].path, images) == expected


def test_the_text_of_a_verification():
    assert str(Verification(0.996, 0.0123456, 3.1605, 2500)) == (
        "99.60% of 2,500 rows name the same class; largest difference of an output 0.0123 (3.16 steps of the file's "
        "output)"
    )
    assert str(Verification(1.0, 1.5e-7, None, 10)).endswith("the same class; largest difference of an output 1.5e-07")


def test_float_file_agrees_and_has_no_lsb(exports, model, images):
    verification = verify(model, exports["float32"].path, images)
    assert (verification.argmax_agreement, verification.max_error_lsb) == (1.0, None)
    assert verification.max_error < 1e-5


def test_another_models_file_is_seen(exports, images):
    other = small_model(keras.layers.Activation("tanh"))
    assert verify(other, exports["float32"].path, images).max_error > 0.01


def test_single_output_names_its_class_at_one_half(images, tmp_path):
    flat = [keras.Input((12, 12, 3)), keras.layers.Rescaling(1 / 255), keras.layers.Flatten()]
    model = keras.Sequential([*flat, keras.layers.Dense(1, activation="sigmoid")])
    export = to_tflite(model, tmp_path / "m.tflite")
    assert verify(model, export.path, images).argmax_agreement == pytest.approx(1.0)
    opposite = keras.models.clone_model(model)
    opposite.set_weights([-weight for weight in model.get_weights()])
    assert verify(opposite, export.path, images).argmax_agreement < 0.5
