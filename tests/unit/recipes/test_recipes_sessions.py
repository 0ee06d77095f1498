"""A training that an error breaks off goes on inside an epoch, says where, and ends as one that was not broken off."""

import errno
import io
import time

import keras
import numpy as np
import pytest
from image_folders import write_noise

from keras_opt.callbacks import backup_and_restore
from keras_opt.core.clocks import Stopwatch
from keras_opt.core.progress import Progress
from keras_opt.recipes import Recipe, run, training
from keras_opt.recipes.sessions import EpochClock, ResumeNote


class Broken(Exception):
    """What breaks a training off."""


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """Six batches an epoch of images that nobody can tell apart, so that no training stops early."""
    folder = write_noise(tmp_path_factory.mktemp("data") / "noise")
    return {"data": folder, "image_size": 16, "epochs": 2, "pruning_epochs": 2, "batch_size": 8, "baseline": False}


@pytest.fixture
def recipe(settings, tmp_path):
    return lambda **changes: Recipe(**{**settings, "out": tmp_path / "run", **changes})


@pytest.fixture(scope="module")
def unbroken(settings, tmp_path_factory):
    return run(Recipe(**settings, out=tmp_path_factory.mktemp("unbroken") / "run"), verbose=0)


@pytest.fixture
def backed_up_often(monkeypatch):
    """Backups at every batch, at any cost."""
    monkeypatch.setattr(backup_and_restore, "_FIRST_AFTER_SECONDS", 0.0)
    monkeypatch.setattr(backup_and_restore, "_SHARE", 1e9)


@pytest.fixture
def count_batches(monkeypatch):
    """Counts the batches of each training, and breaks one off at the end of its `count`-th."""
    seen, wanted = [], []
    fit = training.Trainer._fit

    def named(self, model, stage, *arguments):
        seen.append([stage, 0])
        return fit(self, model, stage, *arguments)

    def ended(self, batch, logs=None):
        seen[-1][1] += 1
        if seen[-1] in wanted:
            raise Broken

    monkeypatch.setattr(training.Trainer, "_fit", named)
    monkeypatch.setattr(EpochClock, "on_train_batch_end", ended)

    def break_off(*points):
        seen.clear()
        wanted[:] = [list(point) for point in points]
        return seen

    return break_off


def without_times(histories):
    timed = ("seconds", "cpu_seconds")
    return {name: {k: v for k, v in each.items() if k not in timed} for name, each in histories.items()}


def check_equal(result, unbroken):
    models = [keras.models.load_model(each.folder / "model.keras", compile=False) for each in (result, unbroken)]
    for one, other in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_array_equal(one, other)
    for name in ("model.tflite", "recipe.yaml", "predict.py"):
        assert (result.folder / name).read_bytes() == (unbroken.folder / name).read_bytes()
    assert without_times(result.histories) == without_times(unbroken.histories)
    assert result.gradients == unbroken.gradients
    assert result.pruning == unbroken.pruning
    assert {path.name for path in result.folder.iterdir()} == {path.name for path in unbroken.folder.iterdir()}


def test_a_training_broken_off_inside_an_epoch(recipe, unbroken, backed_up_often, count_batches, tmp_path, capsys):
    """Once that of the network, which has augmentation, and once that of pruning."""
    seen = count_batches(("optimised", 8))
    with pytest.raises(Broken):
        run(recipe(), verbose=0)
    assert seen == [["optimised", 8]]
    assert (tmp_path / "run.partial/stages/optimised.backups").is_dir()
    seen = count_batches(("pruned", 9))
    with pytest.raises(Broken):
        run(recipe(resume=True))
    assert seen == [["optimised", 5], ["pruned", 9]]  # the eighth batch was not backed up any more
    assert not (tmp_path / "run.partial/stages/optimised.backups").exists()
    seen = count_batches()
    result = run(recipe(resume=True))
    assert seen == [["pruned", 4]]
    check_equal(result, unbroken)
    lines = capsys.readouterr().err.splitlines()
    assert "with keras_opt: goes on in epoch 2 of 2, after 1 of its batches" in lines
    assert "pruning: goes on in epoch 2 of 2, after 2 of its batches" in lines


def test_a_short_epoch_begins_again(recipe, unbroken, count_batches, monkeypatch, capsys):
    monkeypatch.setattr(backup_and_restore, "_SHARE", 0.0)  # no time for a backup within
    count_batches(("optimised", 9))
    with pytest.raises(Broken):
        run(recipe(), verbose=0)
    seen = count_batches()
    result = run(recipe(resume=True))
    assert seen == [["optimised", 6], ["pruned", 12]]
    assert "with keras_opt: goes on in epoch 2 of 2, after 0 of its batches" in capsys.readouterr().err
    check_equal(result, unbroken)
    assert unbroken.one_session
    assert not result.one_session


@pytest.mark.full
def test_on_two_replicas_the_epoch_begins_again(recipe, settings, mirrored, backed_up_often, count_batches, tmp_path):
    unbroken = run(Recipe(**settings, strategy="mirrored", out=tmp_path / "unbroken/run"), verbose=0)
    for point, seen in ((("optimised", 8), [["optimised", 8]]), (("pruned", 9), [["optimised", 6], ["pruned", 9]])):
        counted = count_batches(point)
        with pytest.raises(Broken):
            run(recipe(strategy="mirrored", resume=point[0] == "pruned"), verbose=0)
        assert counted == seen
    counted = count_batches()
    result = run(recipe(strategy="mirrored", resume=True), verbose=0)
    assert counted == [["pruned", 6]]
    check_equal(result, unbroken)


def test_a_training_whose_model_found_no_room_is_not_trained_again(
    recipe, unbroken, count_batches, tmp_path, monkeypatch, capsys
):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setitem(run.__globals__, "save_labelled", full)
    with pytest.raises(ValueError, match=r"finished: no training yet; begun: optimised\)\. Go on with .* --resume"):
        run(recipe(), verbose=0)
    monkeypatch.setitem(run.__globals__, "save_labelled", training.save_labelled)
    seen = count_batches()
    result = run(recipe(resume=True))
    assert seen == [["optimised", 0], ["pruned", 12]]
    assert "with keras_opt: had come to its end" in capsys.readouterr().err
    check_equal(result, unbroken)


def test_the_seconds_add_up_and_what_was_lost_is_not_counted():
    clock = EpochClock(Stopwatch())
    time.sleep(0.02)
    state = clock.state_dict()
    assert 0.02 <= state["seconds"] < 5
    resumed = EpochClock(Stopwatch())
    for _ in range(2):
        time.sleep(0.02)
        resumed.load_state_dict({"seconds": 100.0, "cpu_seconds": 50.0})
    logs = {}
    resumed.on_epoch_end(0, logs)
    assert 100.0 <= logs["seconds"] < 100.02
    assert 50.0 <= logs["cpu_seconds"] < 50.02


def test_a_training_that_was_not_resumed_says_nothing():
    said = io.StringIO()
    note = ResumeNote("plain Keras", Progress(said))
    note.set_params({"epochs": 3})
    note.on_epoch_begin(0)
    note.on_train_end()
    assert not said.getvalue()
    assert not note.is_resumed
