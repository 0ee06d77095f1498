"""The trials in Optuna's file: proposed once, kept through kills and damage."""

import contextlib
import sqlite3
import subprocess
import sys
from pathlib import Path

import full_rows
import optuna
import pytest

from keras_opt.core.errors import InputError
from keras_opt.tuning import trial_store
from keras_opt.tuning.storage_rescue import damage_of
from keras_opt.tuning.trial_store import TrialStore

UNIT = optuna.distributions.FloatDistribution(0.0, 1.0)


def square(draw):
    return {"x": draw("x", UNIT), "y": draw("y", UNIT)}


def searched(store, trials, sampler="tpe", seed=3):
    """Run so many trials in all, the first one that was cut off among them."""
    cut_off = [(trial.number, trial.params) for trial in store.trials("RUNNING")]
    while len(store.trials("COMPLETE")) < trials:
        number, point = cut_off.pop() if cut_off else store.propose(sampler, seed, square, {})
        store.complete(number, [(point["x"] - 0.3) ** 2 + point["y"]])
    return [trial.params for trial in store.trials()]


@pytest.mark.parametrize("sampler", ["tpe", pytest.param("cmaes", marks=pytest.mark.full)])
def test_the_same_seed_gives_the_same_trials_in_one_session_and_in_several(tmp_path, sampler):
    whole = searched(TrialStore(tmp_path / "whole.db", ["minimize"]), 13, sampler)
    for trials in (1, 12, 13):
        store = TrialStore(tmp_path / "parts.db", ["minimize"])
        parts = searched(store, trials, sampler)
        store.close()
    assert parts == whole
    assert searched(TrialStore(tmp_path / "other.db", ["minimize"]), 1, sampler, seed=4)[0] != whole[0]


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = {places!r}
from test_tuning_trial_store import searched
from keras_opt.tuning.trial_store import TrialStore
store, left = TrialStore(Path({path!r}), ["minimize"]), {writes}
def dying(function):
    def called(*arguments, **keywords):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **keywords)
    return called
for name in ("create_new_trial", "set_trial_param", "set_trial_user_attr", "set_trial_state_values"):
    setattr(store._storage, name, dying(getattr(store._storage, name)))
searched(store, 5)
"""


@pytest.mark.parametrize("writes", [8, *map(full_rows.full, range(2, 20, 2))])  # five writes a trial
def test_a_kill_loses_no_finished_trial_and_repeats_none(tmp_path, writes):
    whole = searched(TrialStore(tmp_path / "whole.db", ["minimize"]), 5)
    path = tmp_path / "killed.db"
    places = [str(Path(full_rows.__file__).parent), str(Path(__file__).parent)]
    code = KILLED.format(places=places, path=str(path), writes=writes)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == -9, done.stderr
    store = TrialStore(path, ["minimize"])
    finished = {trial.number: trial.params for trial in store.trials("COMPLETE")}
    assert searched(store, 5) == whole
    kept = {trial.number: trial.params for trial in store.trials("COMPLETE") if trial.number in finished}
    assert kept == finished


def test_no_point_is_proposed_twice_and_a_finished_space_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(trial_store, "MOST_DRAWS", 100)
    store = TrialStore(tmp_path / "study.db", ["minimize"])

    def few(draw):
        kind = draw("kind", optuna.distributions.CategoricalDistribution(["a", "b"]))
        return {"kind": kind, "n": draw("n", optuna.distributions.IntDistribution(1, 2)) if kind == "b" else None}

    points = []
    while (found := store.propose("tpe", 0, few, {})) and len(points) < 9:
        points.append(tuple(found[1].values()))
        store.complete(found[0], [1.0])
    assert sorted(points, key=str) == [("a", None), ("b", 1), ("b", 2)]
    assert store.propose("tpe", 0, few, {}) is None
    assert len(store.trials()) == 3


def test_asha_stops_what_is_not_among_the_best_third(tmp_path):
    store = TrialStore(tmp_path / "study.db", ["maximize"], "asha", 2)
    stopped = []
    for value in (0.9, 0.1, 0.2, 0.95):
        number, _ = store.propose("tpe", 0, square, {})
        stopped.append([store.report(number, epoch, value) for epoch in (1, 2)])
        store.stop(number) if stopped[-1][-1] else store.complete(number, [value])
    assert stopped == [[False, False], [False, True], [False, True], [False, False]]
    assert [trial.state.name for trial in store.study.trials] == ["COMPLETE", "PRUNED", "PRUNED", "COMPLETE"]


@pytest.fixture
def stored(tmp_path):
    """A file with five trials, as bytes."""
    store = TrialStore(tmp_path / "whole.db", ["minimize"])
    store.study.set_user_attr("seed", 3)
    searched(store, 5)
    store.close()
    return (tmp_path / "whole.db").read_bytes()


@pytest.mark.parametrize("damage", ["cut off", "overwritten"])
def test_of_a_damaged_file_the_intact_part_is_kept_and_said(tmp_path, stored, damage, monkeypatch):
    monkeypatch.setattr("keras_opt.tuning.storage_rescue._MOST_MISSING_ROWS", 50)
    path = tmp_path / "study.db"
    spoilt = stored[: len(stored) - 4096] if damage == "cut off" else stored[:-4096] + b"\x55" * 4096
    path.write_bytes(spoilt)
    with pytest.warns(UserWarning, match=r"was damaged .* finished trials were intact and are kept"):
        store = TrialStore(path, ["minimize"])
    kept = [trial.params for trial in store.trials("COMPLETE")]
    whole = [trial.params for trial in TrialStore(tmp_path / "whole.db", ["minimize"]).trials()]
    assert kept
    assert all(point in whole for point in kept)
    assert (tmp_path / "study.db.damaged").read_bytes() == spoilt
    assert store.propose("tpe", 3, square, {})[0] == len(kept)


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"no database")
    with pytest.raises(InputError, match="is no SQLite file"):
        TrialStore(path, ["minimize"])
    assert path.read_bytes() == b"no database"


def test_a_file_that_another_process_keeps_locked_is_not_taken_for_damaged(tmp_path, stored, monkeypatch):
    monkeypatch.setattr("keras_opt.tuning.storage_rescue.LOCK_SECONDS", 0.1)
    path = tmp_path / "study.db"
    path.write_bytes(stored)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(InputError, match=r"cannot be read now \(database is locked\)"):
            TrialStore(path, ["minimize"])
    assert path.read_bytes() == stored


def test_damage_in_the_names_is_damage(tmp_path, stored):
    path = tmp_path / "study.db"
    path.write_bytes(stored.replace(b"CREATE TABLE studies", b"CREATE TABLE \xff\xfe\xfd\xfc\xfb\xfa\xf9"))
    assert damage_of(path)
