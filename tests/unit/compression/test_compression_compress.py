"""compress: the table, the limits, and a search that loses nothing when it is broken off."""

import json
import re
import shutil
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from full_rows import full

from keras_opt.compression import Candidate, CompressionRecipe, compress
from keras_opt.compression.search import attempts, training
from keras_opt.compression.search.folder import FinishedCandidates
from keras_opt.compression.search.result import Limits, front_and_best
from keras_opt.core.errors import InputError
from keras_opt.core.progress import Stage
from keras_opt.data import arrays
from keras_opt.export import LiteRTModel
from keras_opt.models import macs, mlp

RNG = np.random.default_rng(0)
X = RNG.normal(size=(96, 6)).astype("float32")
Y = (X[:, 0] + X[:, 1] > 0).astype(int)
FLOAT = CompressionRecipe("float32")
DYNAMIC = CompressionRecipe("dynamic")
SMALL = CompressionRecipe("float32", keep=0.5)
QUIET = {"verbose": 0, "epochs": 2}


@pytest.fixture(scope="module")
def trained():
    keras.utils.set_random_seed(0)
    model = mlp([48, 32], (6,), 2)
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(X, Y, epochs=20, verbose=0)
    return model


@pytest.fixture(scope="module")
def whole(trained, tmp_path_factory):
    """A search that nothing broke off."""
    before = trained.get_weights()
    recipes = (FLOAT, SMALL, DYNAMIC)
    found = search(trained, tmp_path_factory.mktemp("whole"), recipes, max_drop=0.5, objective="macs")
    for old, new in zip(before, trained.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    return found


@pytest.fixture
def no_arena(monkeypatch):
    """TFLite Micro is asked in no process of its own."""
    monkeypatch.setattr(attempts, "run_tflm", missing)


def missing(*arguments, **settings):
    raise ImportError("not installed")


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
    front, found = front_and_best(CANDIDATES, "latency", False, Limits(max_drop, flash, arena))
    assert [each.name for each in front] == ["fast", "good", "float"]
    assert (found and found.name) == best


def test_a_drop_of_the_limit_itself_is_within_it():
    at_limit = Candidate("at", metric=0.92, drop=0.93 - 0.92, macs=1)
    assert at_limit.drop > 0.01
    assert front_and_best([at_limit], "macs", False, Limits(0.01))[1] is at_limit


def test_less_is_better_for_an_error():
    errors = [Candidate(str(cost), metric=cost, drop=0.0, latency_ms=cost) for cost in (1.0, 2.0)]
    front, _ = front_and_best(errors, "latency", True, Limits(0.1))
    assert [each.name for each in front] == ["1.0"]


def test_every_recipe_has_a_name_and_a_file_of_its_own():
    recipes = CompressionRecipe.defaults()
    assert len({recipe.file_name for recipe in recipes}) == len({recipe.name for recipe in recipes}) == len(recipes)
    assert sum(recipe.epochs(5) for recipe in recipes) == 70, "the docstring of compress says how many"


def test_what_a_search_finds(trained, whole):
    plain, small, _ = whole.candidates
    assert whole.reference == np.mean(trained.predict(X[64:], verbose=0).argmax(-1) == Y[64:])
    assert plain.metric == whole.reference
    assert plain.macs == macs(trained) > small.macs
    assert plain.size_bytes == plain.path.stat().st_size > small.size_bytes
    assert whole.best is small
    assert whole.front == ((small,) if small.metric >= plain.metric else (small, plain))
    assert min(plain.latency_ms, plain.arena_bytes) > 0
    assert not (plain.path.parent / "compress_trainings").exists()
    assert f"best for macs: {small.name}" in str(whole)
    assert len(whole.plot().collections) == 1


@pytest.mark.usefixtures("no_arena")
def test_a_second_call_trains_nothing(trained, whole, tmp_path, monkeypatch):
    folder = shutil.copytree(whole.best.path.parent, tmp_path / "again")
    monkeypatch.setattr(training.Training, "model", None)
    second = search(trained, folder, objective="size")
    assert [each.gzip_bytes for each in whole.candidates[:2]] == [each.gzip_bytes for each in second.candidates]


@pytest.mark.usefixtures("no_arena")
def test_what_a_missing_package_kept_back_comes_with_it(trained, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(attempts, "to_tflite", missing)
        assert [each.note for each in search(trained, tmp_path, (FLOAT,)).candidates] == ["not installed"]
    found = search(trained, tmp_path, (FLOAT,)).best
    assert found.arena_bytes is None
    monkeypatch.setattr(attempts.Attempts, "_arena_bytes", lambda self, path: 7)
    assert search(trained, tmp_path, (FLOAT,)).best.arena_bytes == 7


class Broken(Exception):
    """What breaks a search off."""


@pytest.mark.parametrize("update", [full(2), 13])  # in the first epoch and in the last of four
@pytest.mark.usefixtures("no_arena")
def test_a_search_that_was_broken_off_ends_with_the_same_file(trained, whole, tmp_path, monkeypatch, update, capsys):
    original, seen = training._Watch.on_train_batch_end, []

    def break_off(self, batch, logs=None):
        seen.append(batch)
        if len(seen) == update:
            raise Broken
        original(self, batch, logs)

    with monkeypatch.context() as patch:
        patch.setattr(training._Watch, "on_train_batch_end", break_off)
        with pytest.raises(Broken):
            search(trained, tmp_path, (SMALL,))
    capsys.readouterr()
    (after,) = search(trained, tmp_path, (SMALL,)).candidates
    assert capsys.readouterr() == ("", "")
    assert after.path.read_bytes() == whole.candidates[1].path.read_bytes()


def test_epochs_before_a_training_was_broken_off_count_in_the_bar():
    stage = Stage("compress", 5)
    watch = training._Watch(SimpleNamespace(stage=stage), "small: channels")
    for epoch in (2, 3):  # of four, where the first two have ended in an earlier call
        watch.on_epoch_begin(epoch)
        watch.on_epoch_end(epoch, {"loss": 1.0})
    assert stage.done == 4
    assert stage.note == "small: channels"


def test_a_training_that_was_broken_off_is_not_gone_on_with_for_another_model(trained, tmp_path, monkeypatch):
    def break_off(self, epoch, logs=None):
        raise Broken

    monkeypatch.setattr(training._Watch, "on_epoch_end", break_off)
    with pytest.raises(Broken):
        search(trained, tmp_path, (SMALL,))
    with pytest.raises(InputError, match=r"has the files of another search: (reference|model) was"):
        search(keras.models.clone_model(trained), tmp_path, (SMALL,))
    (tmp_path / "compress.json").unlink()
    FinishedCandidates(tmp_path, {})
    assert not (tmp_path / "compress_trainings").exists(), "nobody knows what it was for"


def test_settings_may_be_changed_until_something_was_made_by_them(trained, tmp_path):
    for epochs in (np.int64(2), 3):
        search(trained, tmp_path, (FLOAT,), epochs=epochs, learning_rate=np.float32(0.5), budget_seconds=1e-6)
        assert json.loads((tmp_path / "compress.json").read_text())["settings"]["epochs"] == epochs


@pytest.mark.usefixtures("no_arena")
def test_a_model_may_give_its_output_in_a_dict(tmp_path):
    inputs = keras.Input((6,))
    model = keras.Model(inputs, {"scores": keras.layers.Dense(2, "softmax", name="scores")(inputs)})
    found = search(model, tmp_path, (FLOAT,))
    assert found.best.metric == found.reference == np.mean(model.predict(X[64:])["scores"].argmax(-1) == Y[64:])


@pytest.mark.usefixtures("no_arena")
def test_a_file_does_not_depend_on_what_was_made_before_it(trained, tmp_path):
    x = np.random.default_rng(0).standard_t(3, size=(300, 6)).astype("float32")
    data = arrays(x, Y[np.arange(300) % 96], batch_size=16, seed=1)  # more rows than the ranges are learnt from
    files = []
    for before in ((), (FLOAT,)):
        recipes = (*before, CompressionRecipe("int8"))
        folder = tmp_path / str(len(before))
        files.append(compress(trained, data, (X, Y), folder=folder, recipes=recipes, **QUIET).candidates[-1].path)
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.usefixtures("no_arena")
@pytest.mark.parametrize(
    ("kind", "frozen", "note"),
    [
        ("DepthwiseConv2D", False, "33% zeros in all: depthwise and frozen kernels stay dense"),
        full("Conv2D", True, "25% zeros in all: depthwise and frozen kernels stay dense"),
        full("Conv2D", False, ""),
    ],
)
def test_a_row_says_how_many_zeros_there_are_where_kernels_stay_dense(tmp_path, kind, frozen, note):
    first = keras.layers.DepthwiseConv2D(3) if kind == "DepthwiseConv2D" else keras.layers.Conv2D(2, 3)
    first.trainable = not frozen
    point, head = keras.layers.Conv2D(9, 1), keras.layers.Dense(2, activation="softmax")
    model = keras.Sequential([keras.Input((6, 6, 2)), first, point, keras.layers.GlobalMaxPooling2D(), head])
    x, y = RNG.normal(size=(8, 6, 6, 2)).astype("float32"), np.arange(8) % 2
    recipes = [CompressionRecipe("float32", sparsity=0.5)]
    (row,) = compress(model, (x, y), (x, y), folder=tmp_path, recipes=recipes, **QUIET).candidates
    assert row.note == note


def test_ctrl_c_says_how_to_go_on(trained, tmp_path, monkeypatch):
    def press(self, recipe):
        raise KeyboardInterrupt

    monkeypatch.setattr(training.Training, "model", press)
    with pytest.raises(KeyboardInterrupt, match="has what is finished; the same call goes on from there"):
        search(trained, tmp_path, (FLOAT,))


def test_a_training_that_diverges_is_a_row_that_says_so(trained, tmp_path):
    found = search(trained, tmp_path, (SMALL,), learning_rate=1e30)
    assert re.search(r"channels: the loss is (nan|inf) after epoch 1. Lower learning_rate", found.candidates[0].note)


@pytest.mark.usefixtures("no_arena")
def test_a_budget_leaves_work_for_a_later_call(trained, tmp_path):
    found = search(trained, tmp_path, (FLOAT, DYNAMIC), budget_seconds=1e-6)
    assert [each.note for each in found.candidates] == ["not tried: the 1e-06 s were over"] * 2
    assert found.best is None
    assert str(found).endswith("No file is within the limits.")
    assert all(each.path for each in search(trained, tmp_path, (FLOAT, DYNAMIC)).candidates)


@pytest.mark.usefixtures("no_arena")
def test_a_recipe_that_fails_is_a_row_with_its_reason(tmp_path):
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(2, "softmax")])
    model.layers[0].trainable = False
    recipes = (SMALL, CompressionRecipe("float32", sparsity=0.5), FLOAT)
    small, zeros, plain = search(model, tmp_path, recipes).candidates
    assert "removes no channel" in small.note, "the file would be named for what it is not"
    assert "PruneLowMagnitude" in zeros.note
    assert plain.path.is_file()


@pytest.mark.usefixtures("no_arena")
def test_a_regression_is_judged_by_an_error(tmp_path):
    keras.utils.set_random_seed(0)
    model = mlp([8], (6,), 1, classifier_activation=None)
    with pytest.raises(InputError, match="argument `task` must be given"):
        compress(model, (X, X[:, :1]), (X, X[:, :1]))
    settings = {"metric": "mae", "task": "regression", "folder": tmp_path, "recipes": [FLOAT], **QUIET}
    found = compress(model, (X, X[:, :1]), (X, X[:, :1]), **settings)
    error = np.abs(model.predict(X, verbose=0) - X[:, :1]).mean()
    np.testing.assert_allclose([found.reference, found.best.metric], error, rtol=1e-5)
    assert found.metric == "mae"


@pytest.mark.usefixtures("no_arena")
def test_another_search_in_the_folder_is_refused(trained, tmp_path):
    search(trained, tmp_path, (FLOAT,))
    with pytest.raises(InputError, match="has the files of another search: epochs was 2 and is 3"):
        search(trained, tmp_path, (FLOAT,), epochs=3)
    relabelled = arrays(X[:64], np.zeros(64, int), batch_size=16, seed=1)
    with pytest.raises(InputError, match="has the files of another search: labels of train was"):
        compress(trained, relabelled, (X[64:], Y[64:]), folder=tmp_path, recipes=(FLOAT,), **QUIET)
    other = keras.models.clone_model(trained)
    other.set_weights(trained.get_weights())
    other.compile(loss=keras.losses.SparseCategoricalCrossentropy(ignore_class=-1))
    with pytest.raises(InputError, match=r"has the files of another search: loss was .* and is "):
        search(other, tmp_path, (FLOAT,))
    for damage in ("{", '{"settings": {}, "candidates": {"float32": {}}}'):
        (tmp_path / "compress.json").write_text(damage)
        with pytest.raises(InputError, match=r"compress\.json' cannot be read"):
            search(trained, tmp_path, (FLOAT,))


@pytest.mark.usefixtures("no_arena")
def test_a_file_that_is_gone_is_made_again(trained, tmp_path):
    found = search(trained, tmp_path, (FLOAT,))
    found.best.path.unlink()
    again = search(trained, tmp_path, (FLOAT,))
    assert LiteRTModel(again.best.path).predict(X[:1]).shape == (1, 2)
    rows = json.loads((tmp_path / "compress.json").read_text())["candidates"]
    assert rows["float32"]["path"] == "float32.tflite"


@pytest.mark.usefixtures("no_arena")
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
        ("train", (X[:, :5], Y), "must be batches of inputs of shape (None, 6). Received: train=(None, 5)"),
        ("train", tf.data.Dataset.from_tensor_slices((X, Y)), "must be batches of inputs of shape (None, 6)"),
        ("train", tf.data.Dataset.from_tensors((X,)), "must be a dataset of inputs with targets"),
        ("train", (X, Y + 1), "must be batches with labels from 0 to 1, the classes of 'mlp'. Received: train='... 2"),
        ("validation", (X, -Y), "must be batches with labels from 0 to 1, the classes of 'mlp'. Received"),
        ("train", (X, np.array(["no", "yes"])[Y]), "must be batches with labels from 0 to 1"),
        ("train", arrays(X, {"a": Y}), "must be a dataset of inputs with targets"),
        ("validation", (X, np.zeros((96, 7))), "must be inputs and targets of"),
        ("metric", "no metric", "must be a metric that Keras knows"),
        ("metric", keras.metrics.Mean(name="what"), "must be named so that its direction is known"),
    ],
    ids=[
        "endless",
        "width",
        "unbatched",
        "no targets",
        "over",
        "under",
        "words",
        "dict",
        "targets",
        "unknown",
        "direction",
    ],
)
def test_refusals(trained, tmp_path, name, value, message):
    arguments = {"train": (X, Y), "validation": (X, Y), "folder": tmp_path, name: value}
    with pytest.raises(InputError, match=f"compress: argument `{name}` {re.escape(message)}"):
        compress(trained, **arguments)


@pytest.mark.usefixtures("no_arena")
def test_a_metric_that_keras_numbers_lets_a_later_call_go_on(tmp_path):
    model = mlp([8], (6,), 1, classifier_activation="sigmoid")
    for _ in range(2):
        found = compress(model, (X, Y), (X, Y), "auc", folder=tmp_path, recipes=[FLOAT], **QUIET)
    assert found.metric == "auc"


@pytest.mark.usefixtures("no_arena")
def test_accuracy_of_labels_given_as_logits_is_their_sign(tmp_path):
    inputs = keras.Input((6,))
    model = keras.Model(inputs, keras.layers.Dense(3)(inputs))
    labels = (model.predict(X, verbose=0) > 0).astype(int)
    found = compress(model, (X, labels), (X, labels), folder=tmp_path, recipes=[FLOAT], task="multi_label", **QUIET)
    assert found.reference == found.best.metric == 1.0, "at 0.5 of a logit it would be less"
    assert found.measure(np.full((2, 3), 0.1), np.ones((2, 3))) == 1.0


@pytest.mark.usefixtures("no_arena")
def test_labels_that_the_loss_ignores_are_let_through(tmp_path):
    inputs = keras.Input((6,))
    model = keras.Model(inputs, keras.layers.Dense(2, "softmax")(inputs))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(ignore_class=255))
    labels = np.where(np.arange(len(Y)) % 9, Y, 255)
    assert compress(model, (X, labels), (X, Y), folder=tmp_path, recipes=[FLOAT], max_drop=1.0, **QUIET).best


def test_recipes_of_a_dict_cut_the_layers_it_names():
    recipe = CompressionRecipe("int8", keep={"conv*": 0.5, "conv1": 0.75}, aware=True)
    assert recipe.name == "channels of conv* 50%, conv1 75%, QAT, int8"
    assert recipe.epochs(5) == 15
    assert recipe.file_name != CompressionRecipe("int8", keep={"conv1": 0.75, "conv*": 0.5}, aware=True).file_name


@pytest.mark.usefixtures("no_arena")
def test_a_recipe_of_a_dict_makes_its_file(trained, tmp_path):
    name = trained.layers[1].name
    (found,) = search(trained, tmp_path, [CompressionRecipe("float32", keep={name: 0.5})], epochs=1).candidates
    assert found.macs == 6 * 24 + 24 * 32 + 32 * 2


def test_it_is_silent_if_asked(trained, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(training.Training, "model", missing)
    for verbose, shows in ((0, False), (2, True)):
        search(trained, tmp_path, (FLOAT,), verbose=verbose)
        assert bool(capsys.readouterr().err) == shows


def test_recipes_that_differ_little_have_files_of_their_own():
    assert CompressionRecipe("int8", keep=0.501).file_name != CompressionRecipe("int8", keep=0.5).file_name
    assert CompressionRecipe("int8", keep=0.29).file_name == "channels_29_int8"
    assert len({CompressionRecipe("int8", keep={"a": share}).file_name for share in (0.5, np.float32(0.5))}) == 1
