"""kill -9 of a search and of one of its workers: no finished trial is lost or repeated, and the search ends."""

import os
import signal
import threading
import time

import forked
import pytest
from full_rows import full
from image_folders import write_images

from keras_opt.recipes import Recipe, tune
from keras_opt.recipes.search_folder import Plan
from keras_opt.recipes.search_workers import Worker

TRIALS = 3
DYING = """
import os, signal, sys
from keras_opt.recipes import Recipe, tune
from keras_opt.tuning.trial_store import TrialStore
left = {count}
def dying(real):
    def called(*arguments, **keywords):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **keywords)
    return called
for name in {moments}:
    setattr(TrialStore, name, dying(getattr(TrialStore, name)))
tune(Recipe.load({recipe!r}, out={out!r}), {trials}, ["dropout", "width"], verbose=0)
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_images(folder / "photos", count=12, size=8)
    recipe = Recipe(data=folder / "photos", image_size=8, epochs=2, batch_size=16)
    recipe.save(folder / "recipe.yaml")
    return folder / "recipe.yaml"


def finished(folder):
    """Of each finished trial its settings and its value."""
    store = Plan.load(folder).open_store(folder)
    trials = store.trials("COMPLETE", "PRUNED")
    store.close()
    return {trial.number: (trial.params, trial.value, trial.datetime_complete) for trial in trials}


@pytest.mark.parametrize(
    ("moment", "count"),
    [
        *(("report", 4), ("propose", 2), ("end", 2)),
        *(full(*row) for row in (("propose", 1), ("propose", 3), ("end", 1), ("end", 3))),
        *(full("report", count) for count in (1, 2, 3)),
    ],
)
def test_a_killed_search_goes_on(recipe, tmp_path, moment, count):
    out = tmp_path / "search"
    moments = ("complete", "stop") if moment == "end" else (moment,)
    code = DYING.format(moments=moments, count=count, recipe=str(recipe), out=str(out), trials=TRIALS)
    done = forked.run(code)
    assert done.returncode == -signal.SIGKILL, done.stderr
    before = finished(out)
    found = tune(Recipe.load(recipe, out=out, resume=True), TRIALS, ["dropout", "width"], verbose=0)
    after = finished(out)
    assert {number: after[number] for number in before} == before
    assert sorted(after) == list(range(TRIALS))
    assert [trial.number for trial in found.trials] == list(range(TRIALS))
    assert len({tuple(trial.settings.values()) for trial in found.trials}) == TRIALS


@pytest.mark.parametrize("delay", [0.0, 1.0, 3.0, *map(full, (0.5, 1.5, 2.0, 4.0, 5.0, 6.0, 8.0))])
def test_the_trial_of_a_killed_worker_is_given_to_another(recipe, tmp_path, monkeypatch, delay):
    victims = []
    real = Worker.give

    def give(worker, trial):
        real(worker, trial)
        if not victims:
            victims.append(worker._process.pid)
            threading.Thread(target=kill, args=(worker._process.pid,)).start()

    def kill(pid):
        time.sleep(delay)
        os.kill(pid, signal.SIGKILL)

    monkeypatch.setattr(Worker, "give", give)
    found = tune(Recipe.load(recipe, out=tmp_path / "search"), TRIALS, ["dropout", "width"], workers=2, verbose=0)
    assert victims
    assert [trial.number for trial in found.trials] == list(range(TRIALS))
    assert {trial.state for trial in found.trials} <= {"completed", "stopped early"}
    assert len({tuple(trial.settings.values()) for trial in found.trials}) == TRIALS
