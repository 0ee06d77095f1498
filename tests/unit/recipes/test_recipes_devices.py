"""Recipes under a strategy: its devices are checked before anything runs, and two replicas train the model of one."""

import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
import uneven_batches

from keras_opt.core.progress import Progress
from keras_opt.recipes import Recipe, run, training, tune
from keras_opt.recipes.devices import check_devices, on_devices, replicas_of, take_turns_on_gpus
from keras_opt.recipes.documents import comparison
from keras_opt.recipes.images import Images, Prepared
from keras_opt.recipes.regularization import chosen
from keras_opt.recipes.training import Trainer

TF_CONFIG = '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}'


@pytest.fixture
def no_strategy(monkeypatch):
    """The process has none yet."""
    monkeypatch.setattr(sys.modules["keras_opt.distribute.strategy"], "_made", None)


def test_a_recipe_without_a_strategy_makes_none(no_strategy):
    check_devices(Recipe())
    with on_devices(Recipe(device="cpu")):
        assert not tf.distribute.has_strategy()
    assert replicas_of(Recipe()) == 1
    assert sys.modules["keras_opt.distribute.strategy"]._made is None


def test_gpus_that_are_not_there_are_missed_before_anything_is_read(no_strategy, tmp_path):
    recipe = Recipe(strategy="mirrored", data="nowhere", out=str(tmp_path / "run"))
    for job in (run, lambda recipe: tune(recipe, max_trials=1)):
        with pytest.raises(ValueError, match=r"needs several devices, and there are 0 GPUs\. Take 'auto'; or, to try"):
            job(recipe)


def test_auto_never_means_several_workers(no_strategy, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", TF_CONFIG)
    with pytest.raises(ValueError, match=r"means the 2 workers that TF_CONFIG names, .*Take 'mirrored' or 'one'; for"):
        check_devices(Recipe(strategy="auto"))


def test_a_search_of_several_processes_takes_no_strategy(mirrored, tmp_path):
    with pytest.raises(ValueError, match="`workers` must be 1 beside strategy='mirrored' of the recipe"):
        tune(Recipe.demo(strategy="mirrored", out=str(tmp_path / "search")), workers=2)


@pytest.mark.parametrize(
    ("process", "device", "seen"),
    [(0, None, ["a"]), (1, None, ["b"]), (2, None, ["a"]), (1, "gpu:0", []), (None, None, [])],
)
def test_processes_take_the_gpus_in_turn_and_of_each_what_they_need(process, device, seen, monkeypatch):
    growing, visible = [], []
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["a", "b"])
    monkeypatch.setattr(tf.config, "set_visible_devices", lambda gpu, kind: visible.append(gpu))
    monkeypatch.setattr(tf.config.experimental, "set_memory_growth", lambda gpu, is_on: growing.append((gpu, is_on)))
    take_turns_on_gpus(process, device)
    assert growing == [("a", True), ("b", True)]
    assert visible == seen


def test_what_has_settled_the_gpus_before_is_let_be(monkeypatch):
    def settled(gpu, is_on):
        raise RuntimeError("Physical devices cannot be modified after being initialized")

    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["a"])
    monkeypatch.setattr(tf.config.experimental, "set_memory_growth", settled)
    take_turns_on_gpus(None, None)


class Weights(keras.callbacks.Callback):
    def on_train_end(self, logs=None):
        self.end = [np.asarray(each) for each in self.model.get_weights()]


def trained(**changes):
    """The weights and the history of a training as `optimised` does it, in float64; its last batches are uneven."""
    generator = np.random.default_rng(0)

    def images(count):
        labels = np.arange(count) % 3
        return Images(generator.integers(0, 256, (count, 8, 8, 1)).astype(np.uint8), labels)

    prepared = Prepared(images(7), images(3), lambda: None, ("a", "b", "c"), (), "noise")
    recipe = Recipe(epochs=1, batch_size=4, width=0.1, augment="none", class_weight="balanced", **changes)
    weights = Weights()
    with uneven_batches.float64():
        history = Trainer(chosen(recipe, 7), prepared, Progress(quiet=True)).trial([weights])
    return weights.end, history


@pytest.fixture
def in_float64(monkeypatch):
    session = Trainer._session
    monkeypatch.setattr(Trainer, "_session", lambda trainer, policy: session(trainer, "float64"))
    monkeypatch.setattr(training, "_warm_up", lambda *_: None)


@pytest.mark.filterwarnings("ignore:preflight. model .* was made outside")
def test_two_replicas_train_the_model_of_one_device(mirrored, in_float64):
    one, one_history = trained()
    two, two_history = trained(strategy="mirrored")
    for mine, other in zip(two, one, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-9, atol=1e-12)
    for name, values in one_history.items():
        np.testing.assert_allclose(two_history[name], values, rtol=1e-9, err_msg=name)


def saved_weights(result):
    return keras.models.load_model(result.folder / "model.keras", compile=False).get_weights()


@pytest.mark.full
@pytest.mark.filterwarnings("ignore:preflight. model .* was made outside")
def test_a_run_on_two_replicas_is_that_of_one_device(mirrored, photos, tmp_path, capsys):
    settings = {"data": photos, "image_size": 16, "epochs": 2, "pruning_epochs": 1, "batch_size": 10}
    one, two = (run(Recipe(**settings, strategy=name, out=tmp_path / f"{name}")) for name in (None, "auto"))
    assert "strategy auto: 2 replicas" in capsys.readouterr().err
    assert (one.replicas, two.replicas) == (1, 2)
    for mine, other in zip(saved_weights(two), saved_weights(one), strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-4)
    assert two.optimised.sparsity == one.optimised.sparsity
    assert "on 2 replicas, a share on each" in (two.folder / "report.html").read_text()
    assert "replicas, a share" not in comparison(one).note
    assert '"replicas": 2' in (two.folder / "result.json").read_text()
    assert Recipe.load(two.folder / "recipe.yaml").strategy == "auto"
