"""`keras-opt launch` with real workers: one dies by `kill -9`, and the training ends as one in which nobody did."""

import itertools
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

JOB = Path(__file__).parents[1] / "launched_job.py"
COMMAND = [sys.executable, "-c", "from keras_opt.cli.main import main; main()", "launch"]
STEPS = 6  # an epoch, and so between two backups
# Of worker 1, as soon as step 9 has ended. With `--full` 20 at random, some in a validation or while a backup is made.
DEATHS = ["1@9+1", "0@14+0", "1@20+150"]


def deaths(full):
    if not full:
        return DEATHS
    draw = random.Random(0)
    steps = draw.sample(range(1, 27), 20)
    return [f"{draw.randrange(2)}@{step}+{draw.randrange(400)}" for step in steps]


@pytest.fixture(scope="module")
def launched(request, tmp_path_factory):
    """What a launch has left behind, and when it noticed each death."""
    folder = tmp_path_factory.mktemp("launched")
    planned = deaths(request.config.getoption("full"))
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "OMP_NUM_THREADS": "1"}
    command = [*COMMAND, "--max-restarts", str(len(planned)), str(JOB), str(folder), *planned]
    noticed, lines = [], []
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as launcher:
        for line in launcher.stderr:
            lines.append(line)
            if line.startswith("launch: worker"):
                noticed.append(time.time())
    assert launcher.returncode == 0, "".join(lines[-40:])
    died = sorted(float(path.read_text()) for path in folder.glob("died-*"))
    return SimpleNamespace(folder=folder, died=died, noticed=noticed, log="".join(lines))


def end_of(folder, index):
    with np.load(folder / f"end-{index}.npz") as end:
        return json.loads(str(end["report"])), {name: end[name] for name in end.files if name != "report"}


def assert_same_bits(one, other):
    assert one.keys() == other.keys()
    assert [name for name in one if not np.array_equal(one[name], other[name])] == []


@pytest.mark.parametrize("index", [0, 1])
def test_a_training_whose_workers_died_ends_bit_for_bit_as_the_unbroken_one(launched, index):
    report, variables = end_of(launched.folder / "broken", index)
    expected_report, expected = end_of(launched.folder / "unbroken", index)
    assert len(expected) > 20
    assert_same_bits(variables, expected)
    assert report == expected_report


def test_deaths_are_noticed_within_five_seconds(launched):
    died = [first for first, before in zip(launched.died, [0.0, *launched.died], strict=False) if first - before > 2]
    assert 1 <= len(died) == len(launched.noticed)  # where both workers die within a moment, the first is noticed
    assert max(seen - first for first, seen in zip(died, launched.noticed, strict=True)) < 5
    assert launched.log.count("was ended by SIGKILL") == len(died)


def test_no_more_than_one_backup_interval_is_done_again(launched):
    for index in range(2):
        steps = [int(line) for line in (launched.folder / f"steps-{index}").read_text().split()]
        assert sorted(set(steps)) == list(range(1, max(steps) + 1))
        again = [before - now + 1 for before, now in itertools.pairwise(steps) if now <= before]
        assert len(again) <= len(launched.died)
        assert max(again) <= STEPS


def test_all_workers_decide_alike(launched):
    """The rate is cut and the training stopped by the values of all; only BatchNorm's statistics are each one's own."""
    (report, variables), (other_report, others) = (end_of(launched.folder / "unbroken", index) for index in range(2))
    assert report == other_report
    assert report["stopped"] == len(report["epochs"]) - 1 < 7
    assert min(report["history"]["learning_rate"]) < max(report["history"]["learning_rate"])
    differing = {name for name in variables if not np.array_equal(variables[name], others[name])}
    assert {name.partition(" ")[2] for name in differing} == {"moving_mean", "moving_variance"}


@pytest.mark.parametrize("training", ["broken", "unbroken"])
def test_there_is_one_set_of_files(launched, training):
    folder = launched.folder / training
    report, _ = end_of(folder, 0)
    epochs = len(report["epochs"])
    rows = (folder / "log.csv").read_text().splitlines()
    assert [row.partition(",")[0] for row in rows] == ["epoch", *map(str, range(epochs))]
    assert steps_of(folder / "events" / "validation", "epoch_loss") == list(range(epochs))
    assert steps_of(folder / "norms", "grad_norm") == list(range(STEPS * epochs))
    files = json.loads((folder / "index.json").read_text())
    saved = {each["file"] for entry in files.values() for each in entry["files"]}
    assert {path.name for path in folder.glob("*.keras")} == saved
    assert sorted(path.name for path in folder.iterdir() if path.suffix not in (".keras", ".npz")) == [
        "events",
        "index.json",
        "log.csv",
        "norms",
    ]


def steps_of(folder, tag):
    """The steps at which TensorBoard shows a value, each as often as it is there."""
    steps = []
    for path in sorted(folder.glob("*tfevents*")):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            steps += [event.step for value in event.summary.value if value.tag == tag]
    return sorted(steps)


def test_the_backups_of_all_workers_go_when_all_have_ended(launched):
    assert not (launched.folder / "backup").exists()
