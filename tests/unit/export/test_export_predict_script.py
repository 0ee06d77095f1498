"""predict.py as a user runs it: on its own, in the folder of a model."""

import ast
import csv
import inspect
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
from export_models import CLASS_NAMES
from PIL import Image

from keras_opt.data import decode
from keras_opt.export import LiteRTModel, to_tflite, write_predict_script


@pytest.fixture(scope="module")
def folder(exports, images, tmp_path_factory):
    """What an export leaves, and two images of other sizes, one of them a truncated one."""
    folder = tmp_path_factory.mktemp("run")
    write_predict_script(folder / "predict.py")
    shutil.copy(exports["int8"].path, folder / "model.tflite")
    shutil.copy(exports["float32"].path, folder / "float32.tflite")
    (folder / "labels.txt").write_text("\n".join(CLASS_NAMES) + "\n")
    Image.fromarray(images[0]).save(folder / "a.png")
    Image.fromarray(np.repeat(np.repeat(images[1], 5, 0), 7, 1)).convert("L").save(folder / "b.jpg")
    (folder / "cut.jpg").write_bytes((folder / "b.jpg").read_bytes()[:400])
    return folder


def run(folder, *arguments):
    return subprocess.run(
        [sys.executable, folder / "predict.py", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )


def answer(folder, model, image):
    """The class and probability that the package gives for a file."""
    pixels = decode.decode_image(folder / image, (12, 12), 3)
    probabilities = LiteRTModel(folder / model).predict(pixels[np.newaxis])[0]
    return CLASS_NAMES[probabilities.argmax()], probabilities.max()


def test_it_says_class_and_probability(folder):
    done = run(folder, "a.png", "b.jpg")
    expected = [answer(folder, "model.tflite", image) for image in ("a.png", "b.jpg")]
    lines = [f"{image}: {name} ({p:.1%})" for image, (name, p) in zip(("a.png", "b.jpg"), expected, strict=True)]
    assert (done.stdout.splitlines(), done.returncode) == (lines, 0)


def test_csv_of_another_model(folder):
    done = run(folder, "--csv", "--model", "float32.tflite", "b.jpg", "a.png")
    rows = list(csv.DictReader(done.stdout.splitlines()))
    assert [row["image"] for row in rows] == ["b.jpg", "a.png"]
    for row in rows:
        name, probability = answer(folder, "float32.tflite", row["image"])
        assert row["class"] == name
        assert float(row["probability"]) == pytest.approx(probability, abs=1e-6)


def test_bad_images_are_named_and_the_others_answered(folder):
    done = run(folder, "no.png", "cut.jpg", "labels.txt", "a.png")
    complaints = [line for line in done.stderr.splitlines() if line.startswith("predict.py:")]
    assert complaints[0] == "predict.py: no.png: No such file or directory"
    assert complaints[1].startswith("predict.py: cut.jpg: ")
    assert complaints[2].startswith("predict.py: labels.txt: cannot identify image file")
    assert "Traceback" not in done.stderr
    assert len(done.stdout.splitlines()) == 1
    assert done.returncode == 1


@pytest.mark.parametrize(
    ("file", "complaint"), [("no.tflite", "No such file or directory"), ("labels.txt", "The model is not a valid")]
)
def test_bad_model(file, complaint, folder):
    done = run(folder, "--model", file, "a.png")
    assert f"predict.py: {file}: {complaint}" in done.stderr
    assert "Traceback" not in done.stderr
    assert (done.stdout, done.returncode) == ("", 1)


def test_labels_of_another_model(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    (tmp_path / "copy" / "labels.txt").write_text("cat\ndog\n")
    done = run(tmp_path / "copy", "a.png")
    assert "the model has 3 classes, but " in done.stderr
    (tmp_path / "copy" / "labels.txt").unlink()
    assert run(tmp_path / "copy", "a.png").stdout.startswith("a.png: class ")


def test_a_model_with_one_output(folder, tmp_path):
    layers = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(1, "sigmoid")]
    to_tflite(keras.Sequential([keras.Input((12, 12, 3)), *layers]), tmp_path / "model.tflite", "float32")
    done = run(folder, "--model", tmp_path / "model.tflite", "a.png")
    assert "the model has one output, not one for each class" in done.stderr
    assert (done.stdout, done.returncode, "Traceback" in done.stderr) == ("", 1, False)


def test_a_model_of_pixels_to_pixels(folder, tmp_path):
    model = keras.Sequential([keras.Input((12, 12, 3)), keras.layers.Conv2D(3, 1, activation="softmax")])
    to_tflite(model, tmp_path / "model.tflite", "float32")
    done = run(folder, "--model", tmp_path / "model.tflite", "a.png")
    assert "the model has several outputs for each class" in done.stderr
    assert (done.stdout, done.returncode, "Traceback" in done.stderr) == ("", 1, False)


def test_logits_become_probabilities(folder, tmp_path):
    model = keras.Sequential([keras.Input((12, 12, 3)), keras.layers.Flatten(), keras.layers.Dense(3)])
    to_tflite(model, tmp_path / "model.tflite", "float32")
    done = run(folder, "--csv", "--model", tmp_path / "model.tflite", "a.png")
    pixels = decode.decode_image(folder / "a.png", (12, 12), 3)
    expected = keras.ops.softmax(model.predict(pixels[np.newaxis], verbose=0)[0]).numpy()
    (row,) = csv.DictReader(done.stdout.splitlines())
    assert row["class"] == f"class {expected.argmax()}"
    assert float(row["probability"]) == pytest.approx(expected.max(), abs=1e-5)


def test_any_name_of_a_file_can_stand_in_it(folder, tmp_path):
    name = 'the "best"\\one.tflite'
    shutil.copy(folder / "model.tflite", tmp_path / name)
    shutil.copy(folder / "a.png", tmp_path)
    write_predict_script(tmp_path / "predict.py", name)
    done = run(tmp_path, "a.png")
    assert (done.stdout[:13], done.returncode) == ("a.png: class ", 0), done.stderr


def test_it_stands_alone_and_decodes_as_training_does(folder):
    script = (folder / "predict.py").read_text()
    assert inspect.getsource(decode.decode_image) in script
    imported = imports_of(script)
    assert {name.split(".")[0] for name in imported} - sys.stdlib_module_names == {"ai_edge_litert", "numpy", "PIL"}
    assert imports_of(inspect.getsource(decode)) <= imported


def imports_of(source):
    names = set()
    for statement in ast.parse(source).body:
        if isinstance(statement, ast.Import):
            names |= {alias.name for alias in statement.names}
        elif isinstance(statement, ast.ImportFrom):
            names |= {f"{statement.module}.{alias.name}" for alias in statement.names}
    return names
