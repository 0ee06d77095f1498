"""The search of a recipe: what it searches, what it leaves, how it goes on."""

import dataclasses
import json
import subprocess
import sys
from types import SimpleNamespace

import keras
import pytest
import yaml
from fast_sqlite import no_waiting_for_the_disk as no_waiting_for_the_disk

from keras_opt.core.errors import InputError
from keras_opt.core.progress import Progress
from keras_opt.recipes import Recipe, search_trial, tune
from keras_opt.recipes.networks import build
from keras_opt.recipes.search_folder import Plan
from keras_opt.recipes.search_space import SEARCHED, check_searched, parameters
from keras_opt.recipes.training import Trainer


class Trained:
    """Stands for a training: its accuracy follows from its settings."""

    def __init__(self, recipe, prepared, progress):
        self.recipe = recipe

    def trial(self, callbacks):
        value = 1 - abs(self.recipe.dropout - 0.3)
        if self.recipe.dropout > 0.5:
            raise MemoryError("too large")
        callbacks[-1].set_model(keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)]))
        history = {"loss": [], "val_accuracy": []}
        for epoch in range(4):
            history["loss"].append(0.5)
            history["val_accuracy"].append(value)
            callbacks[-1].on_epoch_end(epoch, {"loss": 0.5, "val_accuracy": value})
            if callbacks[-1].is_stopped:
                break
        return history


@pytest.fixture
def quick(photos, tmp_path, monkeypatch):
    """A search over the dropout alone, without trainings."""
    monkeypatch.setattr(search_trial, "Trainer", Trained)

    def search(max_trials=6, **changes):
        settings = {name: changes.pop(name) for name in ("max_seconds", "search", "pruner") if name in changes}
        changes = {"data": photos, "image_size": 8, "out": tmp_path / "search", **changes}
        return tune(Recipe(**changes), max_trials, **{"search": ["dropout"], **settings}, verbose=0)

    return search


def test_a_search_trains_and_leaves_the_best_recipe_and_a_report(photos, tmp_path):
    recipe = Recipe(data=photos, image_size=8, epochs=2, batch_size=16, out=tmp_path / "search")
    found = tune(recipe, 2, ["width", "depth", "dropout", "augment_strength", "weight_decay"], verbose=0)
    best = max((trial for trial in found.trials if trial.state == "completed"), key=lambda trial: trial.value)
    loaded = Recipe.load(found.folder / "recipe.yaml")
    assert loaded.settings == found.recipe.settings
    assert {name: getattr(loaded, name) for name in best.settings} == best.settings
    assert (len(best.settings), found.value, best.epochs > 0) == (5, best.value, True)
    page = (found.folder / "report.html").read_text()
    assert all(text in page for text in ("Settings and accuracy", "Best so far", "augment_strength", "Trials"))
    assert (found.folder / "trials.csv").read_text().count("\n") == 3
    assert (found.folder / "study.db").is_file()


def test_failed_and_stopped_trials_are_told_and_the_rest_counts(quick):
    found = quick(9)
    states = {trial.state for trial in found.trials}
    assert states == {"completed", "stopped early", "failed"}
    assert all(trial.error == "MemoryError: too large" for trial in found.trials if trial.state == "failed")
    assert found.value == pytest.approx(1 - abs(found.recipe.dropout - 0.3))
    assert "too large" in (found.folder / "report.html").read_text()


def test_a_search_that_goes_on_has_the_trials_of_one_in_one_session(quick, tmp_path):
    whole = quick(6, out=tmp_path / "whole")
    quick(2)
    parts = quick(6, resume=True)
    assert [trial.settings for trial in parts.trials] == [trial.settings for trial in whole.trials]
    assert [trial.state for trial in parts.trials] == [trial.state for trial in whole.trials]


def test_another_seed_gives_other_trials(quick, tmp_path):
    assert quick(1).trials[0].settings != quick(1, seed=1, out=tmp_path / "other").trials[0].settings


def test_a_search_of_few_values_ends_with_them(quick, monkeypatch):
    monkeypatch.setattr(Trained, "trial", lambda self, callbacks: {"loss": [0.1], "val_accuracy": [0.5]})
    found = quick(9, search=["depth"], image_size=16)
    assert sorted(trial.settings["depth"] for trial in found.trials) == [1, 2]


def test_no_trial_begins_after_max_seconds(quick):
    with pytest.raises(RuntimeError, match="no trial was completed, of 0"):
        quick(max_seconds=1e-9)


def test_a_loss_that_is_not_finite_fails_the_trial(quick, monkeypatch):
    nan = {"loss": [0.3, float("nan")], "val_accuracy": [0.5, 0.1]}
    monkeypatch.setattr(Trained, "trial", lambda self, callbacks: nan)
    with pytest.raises(RuntimeError, match="no trial was completed, of 2: the loss was not finite in epoch 2"):
        quick(2)


def test_an_old_search_is_replaced_only_when_told(quick, tmp_path):
    quick(1)
    with pytest.raises(InputError, match=r"holds a search already\. Give --resume"):
        quick(1)
    assert len(quick(2, overwrite=True).trials) == 2
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "a.txt").write_text("dear")
    with pytest.raises(InputError, match="holds files that are no search"):
        quick(1, out=tmp_path / "letters", overwrite=True)


HOLDING = "import fcntl, os, sys; fcntl.flock(os.open(sys.argv[1], 0), fcntl.LOCK_EX); print(flush=True); input()"


@pytest.mark.parametrize("change", [{}, {"resume": True}, {"overwrite": True}], ids=["new", "resume", "overwrite"])
def test_two_processes_do_not_search_in_one_folder(quick, tmp_path, change):
    folder = quick(1).folder if change else tmp_path / "search"
    folder.mkdir(exist_ok=True)
    before = sorted(folder.rglob("*"))
    command = [sys.executable, "-c", HOLDING, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(InputError, match=r"Another process searches in .*search'.*give another --out"):
            quick(2, **change)
        other.stdin.close()
    assert sorted(folder.rglob("*")) == before
    assert len(quick(2, **change).trials) == 2


def test_a_search_that_began_meanwhile_is_not_replaced(quick, tmp_path, monkeypatch):
    monkeypatch.setattr("keras_opt.recipes.search_folder._hold", lambda folder: (folder / "search.json").touch())
    with pytest.raises(InputError, match="holds a search already"):
        quick(1)
    assert (tmp_path / "search" / "search.json").is_file()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 7}, "epochs=30, this one epochs=7"),
        ({"pruner": None}, "pruner='asha', this one pruner=None"),
        ({"search": ["width"]}, r"search=\('dropout',\), this one search=\('width',\)"),
    ],
)
def test_a_search_goes_on_with_what_it_was_begun_with(quick, change, message):
    quick(1)
    with pytest.raises(InputError, match=message):
        quick(2, resume=True, **change)


def test_other_images_or_a_damaged_plan_are_refused(quick, tmp_path):
    folder = quick(1).folder
    plan = json.loads((folder / "search.json").read_text())
    (folder / "search.json").write_text(json.dumps({**plan, "images": "others"}))
    with pytest.raises(InputError, match="images were changed"):
        quick(2, resume=True)
    (folder / "search.json").write_text("{")
    with pytest.raises(InputError, match=r"plan of the search .* cannot be read"):
        quick(2, resume=True)
    with pytest.raises(InputError, match="There is no search"):
        quick(2, resume=True, out=tmp_path / "none")


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ([], "at least one name"),
        (["dropuot"], "Did you mean 'dropout'"),
        ("width", "a sequence of names"),
        (["depth"], "more than one value"),
    ],
)
def test_a_search_of_nothing_or_of_what_is_not_there_is_refused(search, message):
    with pytest.raises((InputError, TypeError), match=message):
        check_searched(Recipe(image_size=5), search)


def test_a_backbone_keeps_its_width_and_depth():
    names = check_searched(Recipe(backbone="MobileNetV2"), None)
    assert set(SEARCHED) - set(names) == {"width", "depth"}


def test_every_range_holds_what_a_recipe_takes_and_the_rate_of_the_range_test():
    recipe = Recipe(image_size=28)
    ranges = {each.name: each for each in parameters(recipe, SEARCHED, 0.008)}
    assert (ranges["max_learning_rate"].low, ranges["max_learning_rate"].high) == (0.001, 0.016)
    assert (ranges["depth"].low, ranges["depth"].high) == (1, 3)
    for name, each in ranges.items():
        for end in (each.low, each.high):
            assert getattr(dataclasses.replace(recipe, **{name: end}), name) == end


def test_width_and_depth_make_the_network():
    recipe = Recipe(image_size=28, width=0.5, depth=3, dropout=0.0)
    filters = [each.filters for each in build(recipe, (28, 28, 1), 2, norm="batch").layers if hasattr(each, "filters")]
    assert filters == [16, 32, 64]


@pytest.mark.parametrize(("decay", "kind"), [(0.0, "Adam"), (0.01, "AdamW")])
def test_weight_decay_spares_norms_and_biases(decay, kind):
    recipe = Recipe(image_size=28, weight_decay=decay, dropout=0.0, label_smoothing=0.0)
    model = build(recipe, (28, 28, 1), 2, norm="batch")
    prepared = SimpleNamespace(class_names=("a", "b"))
    Trainer(recipe, prepared, Progress(quiet=True))._compile(model, 0.01)
    assert type(model.optimizer).__name__ == kind
    assert model.optimizer.weight_decay == (decay or None)


def test_a_plan_is_read_back_as_it_was(tmp_path):
    recipe = Recipe(image_size=28, augment="none", dropout=0.1, label_smoothing=0.0)
    plan = Plan(recipe, parameters(recipe, SEARCHED, 0.01), "tpe", None, "digest")
    plan.save(tmp_path)
    assert Plan.load(tmp_path) == plan
    assert yaml.safe_load((tmp_path / "search.json").read_text())["sampler"] == "tpe"
