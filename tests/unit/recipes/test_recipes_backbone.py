"""A run that starts from a pretrained network."""

import keras
import numpy as np
import pytest

from keras_opt.callbacks import GradualUnfreezing
from keras_opt.core.errors import InputError
from keras_opt.core.progress import Progress
from keras_opt.models import mlp
from keras_opt.recipes import Recipe, run
from keras_opt.recipes.images import prepare
from keras_opt.recipes.networks import build, shipped, unfreezing
from keras_opt.recipes.regularization import chosen
from keras_opt.recipes.training import Trainer


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "base.weights.h5"
    keras.applications.MobileNet(include_top=False, weights=None, input_shape=(32, 32, 3)).save_weights(path)
    return path


def test_the_optimised_training_unfreezes_a_pretrained_backbone(photos, weights, monkeypatch):
    given = []

    def fit(self, model, stage, norm, epochs, watch, callbacks):
        given.extend(each for each in callbacks if isinstance(each, GradualUnfreezing))
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "_fit", fit)
    for settings in ({}, {"weights": None}, {"backbone": None}):
        recipe = Recipe(**{"data": photos, "backbone": "MobileNet", "weights": weights, "image_size": 32, **settings})
        trainer = Trainer(chosen(recipe, 48), prepare(recipe, Progress(quiet=True)), Progress(quiet=True))
        with pytest.raises(KeyboardInterrupt):
            trainer.optimised()
    [unfreeze] = given
    assert list(unfreeze.schedule) == [0, 6, 12]
    assert (unfreeze.lr_decay, unfreeze.freeze_batch_norm) == (10, True)


@pytest.mark.full
def test_a_run_trains_the_head_and_then_unfreezes(tiny_run, weights, monkeypatch):
    schedules = []
    real = GradualUnfreezing.on_epoch_begin

    def on_epoch_begin(self, epoch, logs=None):
        real(self, epoch, logs)
        schedules.append((epoch, len(self.model.trainable_weights), self.lr_decay))

    monkeypatch.setattr(GradualUnfreezing, "on_epoch_begin", on_epoch_begin)
    result = tiny_run(backbone="MobileNet", weights=weights, image_size=32, epochs=1, sparsity=0.0, quantize="float32")
    assert schedules == [(0, 2, 10)]
    model = keras.models.load_model(result.folder / "model.keras", compile=False)
    assert model.layers[1].name == "scale_pixels"
    assert len(model.trainable_weights) == 27 * 3 + 2
    again = Recipe.load(result.folder / "recipe.yaml")
    assert (again.backbone, again.weights) == ("MobileNet", str(weights))


def test_the_upper_third_comes_before_the_rest():
    model = mlp([8] * 6, (4,), 3, norm="none")
    assert unfreezing(model, 30) == {0: "head", 6: ["dense5", "dense6", "classifier"], 12: "all"}
    assert list(unfreezing(model, 2)) == [0, 1, 2]


def test_what_is_shipped_has_the_outputs_of_what_was_trained(weights):
    recipe = Recipe(backbone="MobileNet", weights=weights, image_size=32, dropout=0.5)
    trained = build(recipe, (32, 32, 3), 3, norm="batch")
    trained.set_weights([np.random.default_rng(0).uniform(0.5, 1, each.shape) for each in trained.get_weights()])
    model = shipped(trained, recipe, "batch")
    x = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3))
    np.testing.assert_array_equal(model(x, training=False), trained(x, training=False))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backbone": "MobileNetV4"}, "Recipe: argument `backbone` must be a network of keras.applications"),
        ({"weights": 3}, "Recipe: argument `weights` must be a text"),
    ],
)
def test_bad_settings(change, message):
    with pytest.raises(InputError, match=message):
        Recipe(**change)


def test_weights_that_are_not_there_end_the_run_before_it_begins(photos, tmp_path):
    recipe = Recipe(data=photos, backbone="MobileNetV2", weights="nowhere.h5", image_size=32, out=str(tmp_path / "run"))
    with pytest.raises(InputError, match='finetune: argument `weights` must be "imagenet", a file or None'):
        run(recipe)
    assert not (tmp_path / "run").exists()
