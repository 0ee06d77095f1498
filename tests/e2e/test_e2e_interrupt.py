"""Ctrl-C, a real SIGINT, in either training: what is kept, what is said, and that going on gives the same bits."""

import os
import re
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_opt.models.labelled_file import read_class_names
from keras_opt.recipes import Recipe, run

# Runs the command and says on standard output when an epoch of a training has ended.
PROCESS = """
from keras_opt.cli.main import main
from keras_opt.recipes import training

fit, logged = training.Trainer._fit, training.EpochClock.on_epoch_end

def named(self, model, stage, *arguments):
    print("training", stage, flush=True)
    return fit(self, model, stage, *arguments)

def said(self, epoch, logs=None):
    print("epoch", epoch, flush=True)
    logged(self, epoch, logs)

training.Trainer._fit, training.EpochClock.on_epoch_end = named, said
main()
"""


def interrupted(marks, *arguments, cwd):
    """Start the command, send SIGINT once the lines `marks` were seen in turn, and wait for its end."""
    command = [sys.executable, "-c", PROCESS, "train", *arguments]
    process = subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for mark in marks:
        for line in process.stdout:
            if line.strip() == mark:
                break
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    return process.returncode, err


def weights(folder):
    return keras.models.load_model(folder / "model.keras", compile=False).get_weights()


@pytest.fixture(scope="module")
def recipe(photos):
    return Recipe(data=photos, image_size=16, epochs=8, pruning_epochs=1, batch_size=16, augment="affine+cut_mix")


@pytest.fixture(scope="module")
def unbroken(recipe, tmp_path_factory):
    out = tmp_path_factory.mktemp("unbroken") / "run"
    return run(Recipe(**recipe.settings, out=out), verbose=0).folder


@pytest.fixture(scope="module")
def place(recipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("interrupted")
    recipe.save(folder / "mine.yaml")
    return folder


def check_interrupted(status, err, stages, place):
    assert status == 130
    assert "Traceback" not in err
    line = err.strip().splitlines()[-1]
    assert line.startswith(f"Interrupted. Kept in run.partial ({stages}; model.keras is the newest model).")
    assert line.endswith("Go on with --out run --resume.")
    assert len(weights(place / "run.partial")) > 2
    assert read_class_names(place / "run.partial/model.keras") == ("blue", "green", "red")
    assert not (place / "run").exists()


def test_1_in_the_plain_training(place):
    arguments = ("--recipe", "mine.yaml", "--out", "run")
    status, err = interrupted(["training plain", "epoch 1"], *arguments, cwd=place)
    check_interrupted(status, err, "finished: no training yet; begun: plain", place)


def test_2_in_the_optimised_training_after_a_resume(place):
    arguments = ("--out", "run", "--resume")
    status, err = interrupted(["training optimised", "epoch 1"], *arguments, cwd=place)
    assert re.search(r"plain Keras: goes on in epoch \d+ of 24, after 0 of its batches", err)
    check_interrupted(status, err, "finished: plain; begun: optimised", place)


def test_3_going_on_gives_the_bits_of_an_unbroken_run(place, recipe, unbroken):
    with pytest.raises(ValueError, match="has epochs=8, this one epochs=9"):
        run(Recipe(**{**recipe.settings, "epochs": 9}, out=place / "run", resume=True), verbose=0)
    resumed = run(Recipe(**recipe.settings, out=place / "run", resume=True), verbose=0).folder
    for one, other in zip(weights(resumed), weights(unbroken), strict=True):
        np.testing.assert_array_equal(one, other)
    assert (resumed / "model.tflite").read_bytes() == (unbroken / "model.tflite").read_bytes()
    assert {path.name for path in place.iterdir()} == {"mine.yaml", "run"}
    assert set(os.listdir(resumed)) == set(os.listdir(unbroken))


def test_4_before_any_training_leaves_nothing(place, recipe, tmp_path):
    recipe.save(tmp_path / "mine.yaml")
    code = "import os, signal\nfrom keras_opt.recipes import images\n"
    code += "images.decode_files = lambda *a, **k: (os.kill(os.getpid(), signal.SIGINT), __import__('time').sleep(9))\n"
    code += "from keras_opt.cli.main import main; main()"
    command = [sys.executable, "-c", code, "train", "--recipe", "mine.yaml", "--out", "run"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 130
    assert done.stderr.strip().splitlines()[-1].startswith("Interrupted. Nothing of this run is kept")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]
