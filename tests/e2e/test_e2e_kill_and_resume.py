"""`kill -9` in the middle of a training: the script, started again, ends bit for bit as if it had never died."""

import json
from pathlib import Path

import forked
import numpy as np
import pytest
import tensorflow as tf

JOB = Path(__file__).parents[1] / "killed_job.py"
# The moments of each phase, counted from the process's begin: by default two, and one more in the last test; 21 with
# `--full`, early, in the middle and near the end of training.
MOMENTS = {"step": (4, 21), "validation": (7, 14), "backup": (1, 9), "flush": (2, 9)}
MORE_MOMENTS = {
    "step": (1, 2, 18, 40, 50),
    "validation": (1, 4, 11),
    "backup": (2, 15, 20),
    "flush": (6, 15),
}


def run(folder, *kill):
    folder.mkdir(exist_ok=True)
    return forked.run(JOB.read_text(), folder, *kill)


def points_of(folder):
    """What TensorBoard shows: run, tag, step and value of every point, each as often as it is there."""
    points = []
    for path in folder.glob("*/*tfevents*"):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            values = [value for value in event.summary.value if value.tag != "keras"]  # that is the model's summary
            points += [(path.parent.name, v.tag, event.step, v.tensor.tensor_content) for v in values]
    return sorted(points)


def end_of(folder):
    with np.load(folder / "end.npz") as end:
        variables = [end[str(number)] for number in range(len(end.files) - 1)]
        logs = (folder / "log.csv").read_bytes(), points_of(folder / "events")
        return json.loads(str(end["report"])), variables, logs


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    done = run(folder)
    assert done.returncode == 0, done.stderr
    return end_of(folder)


def pytest_generate_tests(metafunc):
    if "moment" in metafunc.fixturenames:
        table = {phase: set(moments) for phase, moments in MOMENTS.items()}
        if metafunc.config.getoption("full"):
            table = {phase: moments | set(MORE_MOMENTS[phase]) for phase, moments in table.items()}
        points = [(phase, moment) for phase, moments in table.items() for moment in sorted(moments)]
        metafunc.parametrize(("phase", "moment"), points)


def test_a_killed_training_ends_as_one_that_was_not(phase, moment, uninterrupted, tmp_path):
    killed = run(tmp_path, phase, moment)
    assert killed.returncode == -9, killed.stderr
    assert (tmp_path / "died").read_text() == phase
    assert not (tmp_path / "end.npz").exists()

    again = run(tmp_path)
    assert again.returncode == 0, again.stderr

    report, variables, (csv, points) = end_of(tmp_path)
    expected_report, expected_variables, (expected_csv, expected_points) = uninterrupted
    assert report == expected_report
    assert report["why"], "the training must stop early, or the test of the stop epoch is none"
    assert len(variables) == len(expected_variables)
    assert all(np.array_equal(a, b) for a, b in zip(variables, expected_variables, strict=True))
    assert csv == expected_csv
    assert points == expected_points
    assert len(points) > 50
    assert not (tmp_path / "backup").exists()


def test_a_training_that_is_killed_again_and_again(uninterrupted, tmp_path):
    for phase, moment in (("step", 6), ("backup", 2), ("validation", 2), ("flush", 1)):
        assert run(tmp_path, phase, moment).returncode == -9
    assert run(tmp_path).returncode == 0
    assert end_of(tmp_path)[0] == uninterrupted[0]
