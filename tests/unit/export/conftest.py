"""One small convolutional network, its images, and its file of each kind, made once."""

import keras
import numpy as np
import pytest
from export_models import CLASS_NAMES, small_model

from keras_opt.export import to_tflite


@pytest.fixture(scope="session")
def images():
    return np.random.default_rng(0).integers(0, 256, (250, 12, 12, 3), dtype=np.uint8)


@pytest.fixture(scope="session")
def model(images):
    """With BatchNormalization whose statistics are no longer those it was born with."""
    keras.utils.set_random_seed(0)
    model = small_model(keras.layers.BatchNormalization(), keras.layers.Activation("relu"))
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(images, np.arange(250) % 3, batch_size=50, epochs=4, verbose=0)
    return model


@pytest.fixture(scope="session")
def exports(model, images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exports")
    kinds = ("float32", "float16", "dynamic", "int8", "int16x8")
    return {kind: to_tflite(model, folder / f"{kind}.tflite", kind, images, CLASS_NAMES) for kind in kinds}
