"""`verify` against its definition, and a file that is not the model's."""

import keras
import numpy as np
import pytest
from export_models import small_model

from keras_opt.export import LiteRTModel, Verification, to_tflite, verify
from keras_opt.export.agreement import Agreement


def test_figures_are_those_of_the_definition(exports, model, images):
    device, reference = LiteRTModel(exports["int8"].path).predict(images), model.predict(images, verbose=0)
    error = np.abs(device - reference).max()
    found = verify(model, exports["int8"].path, images, np.arange(250) % 3)
    assert (found.rows, found.argmax_agreement) == (250, np.mean(device.argmax(-1) == reference.argmax(-1)))
    assert found.max_error == pytest.approx(error, abs=1e-6)
    assert found.max_error_lsb == found.max_error * 256
    within = np.mean(np.abs(device - reference) <= 1 / 256)
    assert 0 < within < 1
    assert found.within_lsb == (found.share_within_lsb,) == (pytest.approx(within, abs=0.01),)
    assert found.relative_error == pytest.approx(np.linalg.norm(device - reference) / np.linalg.norm(reference), 1e-3)
    (output,) = found.outputs
    assert output.other_metric == np.mean(device.argmax(-1) == np.arange(250) % 3)
    assert output.metric_change == output.other_metric - output.reference_metric


def test_the_text_of_a_verification():
    agreement = Agreement("y", 0.996, 0.02, 0.0123456, 0.9, 0.89, "accuracy")
    assert str(Verification((agreement,), (1 / 256,), 2500, (0.9876,))) == (
        "y, 2,500 rows: 99.60% of the answers are the same; relative error 0.02, largest difference 0.0123; "
        "accuracy 0.89 instead of 0.9; at most 3.16 steps of the file's output, 98.76% of the values within one"
    )
    plain = Agreement("y", None, 1e-7, 1.5e-07)
    found = Verification((plain,), (None,), 10, (None,))
    assert str(found) == "y, 10 rows: relative error 1e-07, largest difference 1.5e-07"
    assert found.share_within_lsb is None


def test_a_regression_is_judged_without_classes(exports, model, images):
    found = verify(model, exports["int8"].path, images[:9], task="regression")
    assert found.argmax_agreement is None
    assert found.relative_error < 0.05


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
