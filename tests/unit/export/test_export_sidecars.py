"""The files beside a .tflite file."""

import json
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
from PIL import Image

from keras_opt.core.errors import InputError
from keras_opt.export import to_tflite, write_sidecars


def test_an_image_classifier_has_all_three(exports, images, tmp_path):
    path = tmp_path / "animals.tflite"
    shutil.copy(exports["int8"].path, path)
    written = write_sidecars(path)
    assert [file.name for file in written] == ["labels.txt", "preprocess.json", "predict.py"]
    assert (tmp_path / "labels.txt").read_text() == "cat\ndog\nZebra & Co.\n"
    facts = json.loads((tmp_path / "preprocess.json").read_text())
    assert facts["inputs"] == [
        {
            "name": "input",
            "layout": "NHWC",
            "shape": [1, 12, 12, 3],
            "dtype": "int8",
            "scale": 1.0,
            "zero_point": -128,
            "colors": "RGB",
            "range": [0.0, 255.0],
            "resize": {"height": 12, "width": 12, "method": "bilinear, antialiased, stretched to size"},
        }
    ]
    assert (facts["outputs"][0]["scale"], facts["outputs"][0]["zero_point"]) == (1 / 256, -128)
    Image.fromarray(images[0]).save(tmp_path / "a.png")
    done = subprocess.run(
        [sys.executable, tmp_path / "predict.py", tmp_path / "a.png"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_model_of_vectors_has_no_script(tmp_path):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    export = to_tflite(model, tmp_path / "m.tflite")
    assert [file.name for file in write_sidecars(export.path)] == ["preprocess.json"]
    facts = json.loads((tmp_path / "preprocess.json").read_text())
    assert facts["inputs"][0] | {"name": ""} == {
        "name": "",
        "layout": "NC",
        "shape": [1, 4],
        "dtype": "float32",
        "scale": 0.0,
        "zero_point": 0,
    }
    assert np.isfinite(facts["outputs"][0]["scale"])


def test_a_model_of_pixels_to_pixels_has_no_script(tmp_path):
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(3, 1, activation="softmax")])
    export = to_tflite(model, tmp_path / "m.tflite")
    assert [file.name for file in write_sidecars(export.path)] == ["preprocess.json"]


def test_a_path_that_is_none(tmp_path):
    with pytest.raises(InputError, match=r"write_sidecars: there is no file .*none\.tflite"):
        write_sidecars(tmp_path / "none.tflite")
    (tmp_path / "text.tflite").write_text("no model")
    with pytest.raises(InputError, match=r"This is no \.tflite file"):
        write_sidecars(tmp_path / "text.tflite")
    assert [path.name for path in tmp_path.iterdir()] == ["text.tflite"]
