"""`kill -9` inside the trainings of `keras-opt train`: resumed, the run ends bit for bit as if it had never died."""

import csv
import json
import os

import forked
import keras
import numpy as np
import pytest
from image_folders import write_noise

from keras_opt.recipes import Recipe, run

# Runs the command; with a stage, a moment and a count, it dies at the count-th such moment of this process in the
# training of that stage, and what is saved after it. A moment is the end of a batch ("step"), of a validation batch, or
# a file about to get its name ("write"). Backups are made at every batch.
PROCESS = """
import os, signal, sys
from pathlib import Path
stage, moment, count = sys.argv.pop(1), sys.argv.pop(1), int(sys.argv.pop(1))
from keras_opt.callbacks import backup_and_restore
from keras_opt.cli.main import main
from keras_opt.core import files
from keras_opt.recipes import training

running, seen = [""], []
fit, fsync = training.Trainer._fit, os.fsync

def at(this):
    if (running[0], this) == (stage, moment):
        seen.append(this)
        if len(seen) == count:
            Path("died").write_text(f"{stage} {moment} {count}")
            os.kill(os.getpid(), signal.SIGKILL)

def named(self, model, name, *arguments):
    running[0] = name
    return fit(self, model, name, *arguments)

def written(handle):
    at("write")
    fsync(handle)

training.Trainer._fit, files.os.fsync = named, written
training.EpochClock.on_train_batch_end = lambda self, batch, logs=None: at("step")
training.EpochClock.on_test_batch_end = lambda self, batch, logs=None: at("validation")
backup_and_restore._FIRST_AFTER_SECONDS, backup_and_restore._SHARE = 0.0, 1e9
main()
"""
TIMED = {
    "command",  # holds the folder
    "cpu_seconds_to_plain_best",
    "equal_cpu_seconds",
    "latency_ms",
    "one_session",
    "seconds_to_plain_best",
    "validation_accuracy_at_equal_cpu",
}
# Plain training: six epochs of six batches, 36 backups in them and one at the end; then plain.keras, its facts and
# model.keras are written. The others: two epochs, 13 backups.
POINTS = [("plain", "write", 40)]
MORE_POINTS = [
    *[("plain", "step", 1), ("plain", "step", 6), ("plain", "step", 36), ("plain", "validation", 12)],
    *[("plain", "write", count) for count in (1, 20, 37, 38, 39)],
    *[("optimised", "step", 12), ("optimised", "validation", 1)],
    *[("optimised", "write", count) for count in (1, 13, 14, 15, 16)],
    *[("pruned", "step", 1), ("pruned", "validation", 3)],
    *[("pruned", "write", count) for count in (5, 13, 14, 15, 16)],
]


def pytest_generate_tests(metafunc):
    if "point" in metafunc.fixturenames:
        metafunc.parametrize("point", POINTS + (MORE_POINTS if metafunc.config.getoption("full") else []))


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    folder = write_noise(tmp_path_factory.mktemp("data") / "noise")
    return Recipe(data=folder, image_size=16, epochs=2, pruning_epochs=2, batch_size=8)


@pytest.fixture(scope="module")
def unbroken(recipe, tmp_path_factory):
    return run(Recipe(**recipe.settings, out=tmp_path_factory.mktemp("unbroken") / "run"), verbose=0).folder


@pytest.fixture(scope="module")
def place(recipe, tmp_path_factory):
    return begin(recipe, tmp_path_factory.mktemp("killed"))


def begin(recipe, folder):
    recipe.save(folder / "mine.yaml")
    return folder


def call(place, *arguments, point=("", "", 0)):
    return forked.run(PROCESS, *point, "train", *arguments, "--out", "run", cwd=place)


def die(place, point, *arguments):
    """Run the command until it dies at `point`, and return what it said."""
    done = call(place, *arguments, point=point)
    assert done.returncode == -9, done.stderr
    assert (place / "died").read_text() == " ".join(map(str, point))
    (place / "died").unlink()
    assert not (place / "run").exists()
    return done.stderr


def end(place, unbroken):
    """Resume the run, and compare what it leaves with `unbroken`."""
    done = call(place, "--resume")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in place.iterdir()} == {"mine.yaml", "run"}
    assert set(os.listdir(place / "run")) == set(os.listdir(unbroken))
    for one, other in zip(weights(place / "run"), weights(unbroken), strict=True):
        np.testing.assert_array_equal(one, other)
    for name in ("model.tflite", "plain.tflite", "recipe.yaml", "labels.txt", "predict.py"):
        assert (place / "run" / name).read_bytes() == (unbroken / name).read_bytes(), name
    assert figures(place / "run") == figures(unbroken)
    assert history(place / "run") == history(unbroken)
    return done.stderr


def weights(folder):
    return keras.models.load_model(folder / "model.keras", compile=False).get_weights()


def figures(folder):
    return untimed(json.loads((folder / "result.json").read_text()))


def untimed(value):
    if isinstance(value, dict):
        return {name: untimed(each) for name, each in value.items() if name not in TIMED}
    return value


def history(folder):
    with (folder / "history.csv").open() as file:
        return [{name: text for name, text in row.items() if "seconds" not in name} for row in csv.DictReader(file)]


def test_1_in_the_plain_training(place):
    die(place, ("plain", "step", 9), "--recipe", "mine.yaml")


def test_2_in_the_plain_training_that_was_resumed(place):
    said = die(place, ("plain", "validation", 4), "--resume")
    assert "plain Keras: goes on in epoch 2 of 6, after 2 of its batches" in said


def test_3_in_the_optimised_training(place):
    said = die(place, ("optimised", "step", 8), "--resume")
    assert "plain Keras: goes on in epoch 3 of 6, after 5 of its batches" in said


def test_4_in_a_backup_of_the_pruning(place):
    said = die(place, ("pruned", "write", 9), "--resume")
    assert "with keras_opt: goes on in epoch 2 of 2, after 1 of its batches" in said
    assert [path.name for path in (place / "run.partial/stages").glob("*.backups")] == ["pruned.backups"]


def test_5_the_run_ends_as_one_that_was_never_killed(place, unbroken):
    said = end(place, unbroken)
    assert "pruning: goes on in epoch 2 of 2, after 1 of its batches" in said
    assert json.loads((place / "run/result.json").read_text())["one_session"] is False


def test_at_a_point(point, recipe, unbroken, tmp_path):
    begin(recipe, tmp_path)
    die(tmp_path, point, "--recipe", "mine.yaml")
    end(tmp_path, unbroken)
