"""The command line called in this process."""

import sys
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from image_folders import write_images

from keras_opt.cli.main import main
from keras_opt.models.labelled_file import save_labelled


@pytest.fixture
def cli(monkeypatch, capsys, tmp_path):
    """Call `keras-opt` with arguments in an empty folder; gives status, out, err."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["keras-opt", *map(str, arguments)])
        status = 0
        try:
            main()
        except SystemExit as end:
            status = end.code or 0
        out, err = capsys.readouterr()
        return SimpleNamespace(status=status, out=out, err=err)

    return call


@pytest.fixture
def photos(tmp_path):
    return write_images(tmp_path / "photos", count=10)


@pytest.fixture(scope="session")
def model_file(tmp_path_factory):
    """A labelled image classifier that names a colour by its strongest channel, exactly."""
    layers = [keras.layers.Rescaling(1 / 255), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3)]
    model = keras.Sequential([keras.Input((16, 16, 3)), *layers, keras.layers.Softmax()])
    kernel = np.array([[-9, -9, 9], [-9, 9, -9], [9, -9, -9]], np.float32)
    model.layers[-2].set_weights([kernel, np.zeros(3, np.float32)])
    path = tmp_path_factory.mktemp("model") / "colours.keras"
    save_labelled(model, path, ["blue", "green", "red"])
    return path
