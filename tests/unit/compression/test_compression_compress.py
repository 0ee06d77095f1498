"""compress: the table, the limits, and a search that loses nothing when it is broken off."""

import json
import re

import keras
import numpy as np
import pytest

from keras_opt.compression import Candidate, CompressionRecipe, compress, compression_recipes
from keras_opt.compression.compression_result import judge
from keras_opt.core.errors import InputError
from keras_opt.core.progress import Progress
from keras_opt.data import arrays
from keras_opt.export import LiteRTModel
from keras_opt.models import macs, mlp

RNG = np.random.default_rng(0)
X = RNG.normal(size=(96, 6)).astype("float32")
Y = (X[:, 0] + X[:, 1] > 0).astype(int)
FLOAT = CompressionRecipe("float32")
DYNAMIC = CompressionRecipe("dynamic")
SMALL = CompressionRecipe("float32", keep=0.5)
QUIET = {"progress": Progress(quiet=True), "epochs": 2}


@pytest.fixture(scope="module")
def trained():
    keras.utils.set_random_seed(0)
    model = mlp([48, 32], (6,), 2)
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(X, Y, epochs=20, verbose=0)
    return model


def search(model, folder, recipes=(FLOAT, SMALL), **settings):
    train = arrays(X[:64], Y[:64], batch_size=16, seed=1)
    return compress(model, train, (X[64:], Y[64:]), folder=folder, recipes=recipes, **{**QUIET, **settings})


def candidate(name, metric, latency, size=100, arena=None):
    return Candidate(
        name, metric=metric, drop=0.9 - metric, latency_ms=latency, macs=1, size_bytes=size, gzip_bytes=size,
        arena_bytes=arena,
    )  # fmt: skip


CANDIDATES = (
    candidate("float", 0.9, 4.0, 400),
    candidate("beaten", 0.88, 3.0, 300),
    candidate("good", 0.895, 2.0, 200, 60),
    candidate("fast", 0.8, 1.0, 50, 30),
    Candidate("failed", note="no"),
)


@pytest.mark.parametrize(
    ("max_drop", "flash", "arena", "best"),
    [(0.01, None, None, "good"), (0.0, None, None, "float"), (0.2, None, None, "fast"), (0.01, 150, None, None),
     (0.01, None, 60, "good"), (0.01, None, 59, None)],
)  # fmt: skip
def test_the_front_and_the_best_within_limits(max_drop, flash, arena, best):
    front, found = judge(CANDIDATES, "latency", False, max_drop, flash, arena)
    assert [each.name for each in front] == ["fast", "good", "float"]
    assert (found and found.name) == best


def test_less_is_better_for_an_error():
    errors = [Candidate(str(cost), metric=cost, drop=0.0, latency_ms=cost) for cost in (1.0, 2.0)]
    front, _ = judge(errors, "latency", True, 0.1, None, None)
    assert [each.name for each in front] == ["1.0"]


def test_every_recipe_has_a_name_and_a_file_of_its_own():
    recipes = compression_recipes.RECIPES
    assert len({recipe.file_name for recipe in recipes}) == len({recipe.name for recipe in recipes}) == len(recipes)
    assert sum(recipe.epochs(5) for recipe in recipes) == 70, "the docstring of compress says how many"


def test_what_a_search_finds(trained, tmp_path):
    before = trained.get_weights()
    found = search(trained, tmp_path, (FLOAT, SMALL, DYNAMIC), max_drop=0.5, objective="macs")
    plain, small, _ = found.candidates
    assert found.reference == np.mean(trained.predict(X[64:], verbose=0).argmax(-1) == Y[64:])
    assert plain.metric == found.reference
    assert plain.macs == macs(trained) > small.macs
    assert plain.size_bytes == plain.path.stat().st_size > small.size_bytes
    assert found.best is small
    assert found.front == ((small,) if small.metric >= plain.metric else (small, plain))
    assert min(plain.latency_ms, plain.arena_bytes) > 0
    for old, new in zip(before, trained.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert not (tmp_path / "trainings").exists()
    assert f"best for macs: {small.name}" in str(found)
    assert len(found.plot().collections) == 1


def test_a_second_call_trains_nothing(trained, tmp_path, monkeypatch):
    first = search(trained, tmp_path)
    monkeypatch.setattr(compression_recipes.Training, "model", None)
    second = search(trained, tmp_path, objective="size")
    assert [each.gzip_bytes for each in first.candidates] == [each.gzip_bytes for each in second.candidates]


class Broken(Exception):
    """What breaks a search off."""


@pytest.mark.parametrize("update", [2, 13])  # in the first epoch and in the last of four
def test_a_search_that_was_broken_off_ends_with_the_same_file(trained, tmp_path, monkeypatch, update):
    whole = search(trained, tmp_path / "whole").candidates[1]
    original, seen = compression_recipes._Watch.on_train_batch_end, []

    def break_off(self, batch, logs=None):
        seen.append(batch)
        if len(seen) == update:
            raise Broken
        original(self, batch, logs)

    with monkeypatch.context() as patch:
        patch.setattr(compression_recipes._Watch, "on_train_batch_end", break_off)
        with pytest.raises(Broken):
            search(trained, tmp_path / "broken")
    after = search(trained, tmp_path / "broken").candidates[1]
    assert after.path.read_bytes() == whole.path.read_bytes()


def test_a_budget_leaves_work_for_a_later_call(trained, tmp_path):
    found = search(trained, tmp_path, budget_seconds=1e-6)
    assert [each.note for each in found.candidates] == ["not tried: the 1e-06 s were over"] * 2
    assert found.best is None
    assert str(found).endswith("No file is within the limits.")
    assert all(each.path for each in search(trained, tmp_path).candidates)


def test_a_recipe_that_fails_is_a_row_with_its_reason(trained, tmp_path):
    found = search(trained, tmp_path, (CompressionRecipe("float32", keep=0.001), CompressionRecipe("dynamic")))
    assert all(each.path or each.note for each in found.candidates)


def test_a_regression_is_judged_by_an_error(tmp_path):
    keras.utils.set_random_seed(0)
    model = mlp([8], (6,), 1, classifier_activation=None)
    with pytest.raises(InputError, match="argument `task` must be given"):
        compress(model, (X, X[:, :1]), (X, X[:, :1]))
    settings = {"metric": "mae", "task": "regression", "folder": tmp_path, "recipes": [FLOAT], **QUIET}
    found = compress(model, (X, X[:, :1]), (X, X[:, :1]), **settings)
    error = np.abs(model.predict(X, verbose=0) - X[:, :1]).mean()
    np.testing.assert_allclose([found.reference, found.best.metric], error, rtol=1e-5)
    assert found.metric == "mean_absolute_error"


def test_another_search_in_the_folder_is_refused(trained, tmp_path):
    search(trained, tmp_path, (FLOAT,))
    with pytest.raises(InputError, match="has the files of another search: epochs was 2 and is 3"):
        search(trained, tmp_path, (FLOAT,), epochs=3)
    (tmp_path / "compress.json").write_text("{")
    with pytest.raises(InputError, match=r"compress\.json' cannot be read"):
        search(trained, tmp_path, (FLOAT,))


def test_a_file_that_is_gone_is_made_again(trained, tmp_path):
    found = search(trained, tmp_path, (FLOAT,))
    found.best.path.unlink()
    again = search(trained, tmp_path, (FLOAT,))
    assert LiteRTModel(again.best.path).predict(X[:1]).shape == (1, 2)
    rows = json.loads((tmp_path / "compress.json").read_text())["candidates"]
    assert rows["float32"]["path"] == "float32.tflite"


def test_class_names_reach_the_files(trained, tmp_path):
    trained.class_names = ("no", "yes")
    found = search(trained, tmp_path, (FLOAT,))
    assert LiteRTModel(found.best.path).class_names == ("no", "yes")
    del trained.class_names


ENDLESS = arrays(X, Y).repeat()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("train", ENDLESS, "must be a dataset of a known number of batches"),
        ("metric", "no metric", "must be a metric that Keras knows"),
        ("metric", keras.metrics.Mean(name="what"), "must be named so that its direction is known"),
    ],
    ids=["endless", "unknown", "direction"],
)
def test_refusals(trained, tmp_path, name, value, message):
    arguments = {"train": (X, Y), "validation": (X, Y), "folder": tmp_path, name: value}
    with pytest.raises(InputError, match=f"compress: argument `{name}` {re.escape(message)}"):
        compress(trained, **arguments)
