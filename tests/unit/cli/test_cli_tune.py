"""`keras-opt tune` hands on what it is told."""

import sys
from pathlib import Path

import click.testing
import pytest

from keras_opt.cli.tune import _SEARCHED, command
from keras_opt.recipes import Recipe, search_space
from keras_opt.recipes.search_folder import Plan
from keras_opt.recipes.search_result import SearchResult, TrialRecord


@pytest.fixture
def called(monkeypatch):
    """What `tune` was called with."""
    seen = []

    def tune(recipe, *arguments):
        seen.append((recipe, *arguments))
        trial = TrialRecord(0, "completed", 0.75, {"dropout": 0.25}, 3, 1.5, "")
        return SearchResult(recipe, 0.75, (trial,), {}, Path("runs/photos-tune"))

    monkeypatch.setattr(sys.modules["keras_opt.recipes.tune"], "tune", tune)
    return seen


def invoke(*arguments):
    return click.testing.CliRunner().invoke(command, arguments, catch_exceptions=False)


def test_options_reach_the_search_and_its_end_is_told(called):
    options = ["--max-trials", "5", "--workers", "2", "--max-seconds", "60", "--search", "dropout", "--epochs", "4"]
    done = invoke("photos", "--image-size", "32", *options)
    assert called == [(Recipe(data="photos", image_size=32, epochs=4), 5, ("dropout",), 2, 60.0)]
    assert "75.00 %" in done.stdout
    assert "runs/photos-tune/recipe.yaml" in done.stdout


def test_a_search_that_goes_on_takes_its_settings_from_its_folder(called, tmp_path):
    recipe = Recipe(data="photos", image_size=32, epochs=7, augment="none", dropout=0.0, label_smoothing=0.0)
    Plan(recipe, [], "tpe", "asha", "").save(tmp_path)
    invoke("--out", str(tmp_path), "--resume", "--max-trials", "50")
    ((found, *rest),) = called
    assert (found.data, found.epochs, found.resume, rest) == ("photos", 7, True, [50, None, 1, None])


def test_a_test_split_takes_the_place_of_the_test_folder_of_a_recipe(called, tmp_path):
    Recipe(data="photos", test="elsewhere").save(tmp_path / "recipe.yaml")
    invoke("--recipe", str(tmp_path / "recipe.yaml"), "--test-split", "0.3")
    ((recipe, *_),) = called
    assert (recipe.test, recipe.test_split) == (None, 0.3)


def test_nothing_to_search_in_is_told_with_an_example():
    done = click.testing.CliRunner().invoke(command, [])
    assert done.exit_code == 2
    assert "keras-opt tune photos" in done.output


def test_it_offers_what_can_be_searched():
    assert tuple(_SEARCHED) == search_space.SEARCHED
