"""A folder with damaged files is trained on, all of them are named, and every way to predict gives Keras's class."""

import csv
import io
import json
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
from image_folders import damage, write_images
from PIL import Image

DAMAGED = {
    "red/003.png": "truncated",
    "red/017.png": "empty",
    "green/000.png": "text",
    "green/031.png": "truncated",
    "blue/008.png": "truncated",
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory, keras_opt_process):
    place = tmp_path_factory.mktemp("damaged")
    folder = write_images(place / "photos", count=40, size=24)
    for name, kind in DAMAGED.items():
        damage(folder / name, kind)
    options = ["--image-size", "16", "--epochs", "2", "--batch-size", "16", "--no-baseline", "--out", "run"]
    return place, keras_opt_process("train", "photos", *options, cwd=place)


def test_it_finishes_and_names_every_damaged_file(trained):
    place, done = trained
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "5 files were left out:" in done.stdout
    figures = json.loads((place / "run/result.json").read_text())
    for name in DAMAGED:
        assert f"photos/{name} (" in done.stdout
        assert name in (place / "run/report.html").read_text()
    assert {file["path"].removeprefix("photos/") for file in figures["skipped"]} == set(DAMAGED)
    assert sum(sum(part.values()) for part in figures["counts"].values()) == 115


def test_progress_without_a_terminal_is_plain_lines_and_nothing_else(trained):
    _, done = trained
    lines = done.stderr.splitlines()
    assert not any("\x1b" in line or "\r" in line for line in lines)
    assert not [line for line in lines if "warning" in line.lower()], done.stderr
    assert any(re.match(r"with keras_opt: [12]/2 in \d+\.\d s", line) for line in lines)


def test_predict_and_the_script_give_the_class_that_keras_gives_by_hand(trained, keras_opt_process):
    place, _ = trained
    paths = [f"photos/{name}/02{number}.png" for name in ("blue", "green", "red") for number in range(3)]
    model = keras.models.load_model(place / "run/model.keras")
    names = (place / "run/labels.txt").read_text().split()
    expected = []
    for path in paths:
        pixels = Image.open(place / path).convert("RGB").resize((16, 16), Image.Resampling.BILINEAR)
        expected.append(names[model.predict(np.asarray(pixels, np.float32)[None], verbose=0).argmax()])
    for file in ("run/model.keras", "run/model.tflite"):
        done = keras_opt_process("predict", "--csv", file, *paths, cwd=place)
        assert [row["class"] for row in csv.DictReader(io.StringIO(done.stdout))] == expected, done.stderr
        assert done.stderr == ""
    script = subprocess.run(
        [sys.executable, "run/predict.py", *paths], cwd=place, capture_output=True, text=True, timeout=60
    )
    assert script.returncode == 0, script.stderr
    for path, name in zip(paths, expected, strict=True):
        assert any(path in line and name in line for line in script.stdout.splitlines()), script.stdout
