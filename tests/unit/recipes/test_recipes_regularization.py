"""What a recipe leaves open follows from the number of training images, and stands in all that a run leaves."""

import dataclasses
import io

import numpy as np
import pytest

from keras_opt.cli.kinds import AUGMENTATIONS
from keras_opt.core.errors import InputError
from keras_opt.core.progress import Progress
from keras_opt.layers import CutMix, RandomAffine
from keras_opt.recipes import Recipe, recipe
from keras_opt.recipes.images import Images, Prepared
from keras_opt.recipes.regularization import augmentation, chosen, regularization, settled
from keras_opt.recipes.run_folder import RunFolder
from keras_opt.recipes.training import Trainer


def said(recipe, images):
    stream = io.StringIO()
    settled(recipe, images, Progress(stream))
    return stream.getvalue()


@pytest.mark.parametrize(
    ("images", "image_size", "pretrained", "augment", "dropout"),
    [
        (1, 64, False, "cut_mix", 0.0),
        (19_999, 28, False, "cut_mix", 0.0),
        (19_999, 65, False, "affine", 0.0),
        (20_000, 28, False, "none", 0.0),
        (1_000_000, 224, False, "none", 0.0),
        (1, 32, True, "affine", 0.2),
        (19_999, 224, True, "affine", 0.2),
        (20_000, 224, True, "none", 0.2),
    ],
)
def test_the_rule(images, image_size, pretrained, augment, dropout):
    choice = {"augment": augment, "dropout": dropout, "label_smoothing": 0.0}
    assert regularization(images, image_size, pretrained=pretrained) == choice
    found = chosen(Recipe(image_size=image_size, backbone="MobileNet" if pretrained else None), images)
    assert {name: getattr(found, name) for name in choice} == choice


def test_random_weights_are_no_pretraining():
    assert chosen(Recipe(backbone="MobileNet", weights=None), 500).dropout == 0


def test_what_is_given_stays_and_only_the_rest_is_said():
    given = Recipe(dropout=0.3, augment="none")
    assert chosen(given, 500) == dataclasses.replace(given, label_smoothing=0.0)
    assert said(given, 500) == "500 training images: label smoothing 0\n"
    assert said(Recipe(image_size=32), 2150) == "2,150 training images: CutMix, dropout 0, label smoothing 0\n"
    assert said(Recipe(backbone="VGG16", label_smoothing=0), 9) == "9 training images: mild RandomAffine, dropout 0.2\n"
    assert said(Recipe(), 60_000) == "60,000 training images: images as they are, dropout 0, label smoothing 0\n"


def test_nothing_is_left_open_by_the_demo_and_by_a_chosen_recipe():
    for whole in (Recipe.demo(), chosen(Recipe(), 500)):
        assert chosen(whole, 10**6) == whole
        assert said(whole, 500) == ""
    assert (Recipe.demo().dropout, Recipe.demo().label_smoothing, Recipe.demo().augment) == (0.5, 0.1, "none")


def test_the_layers_are_those_of_the_name():
    layers = {name: augmentation(Recipe(augment=name)) for name in recipe.AUGMENTATIONS}
    kinds = {name: [type(layer) for layer in each] for name, each in layers.items()}
    assert kinds == {
        "none": [],
        "affine": [RandomAffine],
        "cut_mix": [CutMix],
        "affine+cut_mix": [RandomAffine, CutMix],
    }
    assert recipe.AUGMENTATIONS == AUGMENTATIONS


@pytest.mark.parametrize("class_weight", [None, "balanced"])
def test_training_batches_alone_are_augmented(class_weight):
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), [2, 4, 6])
    images = Images(generator.integers(0, 256, (12, 8, 8, 3)).astype("uint8"), labels)
    prepared = Prepared(images, images, lambda: None, ("a", "b", "c"), (), "noise")
    settings = chosen(Recipe(augment="affine+cut_mix", batch_size=12, class_weight=class_weight), 12)
    trainer = Trainer(settings, prepared, Progress(quiet=True))
    (pixels, targets, *weights), (mixed_pixels, mixed_targets, *mixed_weights) = (
        next(iter(trainer._batches(augmented=augmented))) for augmented in (False, True)
    )
    assert sorted(pixels.numpy().sum((1, 2, 3))) == sorted(images.pixels.sum((1, 2, 3)))
    assert set(np.unique(targets)) == {0.0, 1.0}
    assert mixed_pixels.dtype == pixels.dtype == "uint8"
    assert not set(mixed_pixels.numpy().sum((1, 2, 3))) & set(pixels.numpy().sum((1, 2, 3)))
    np.testing.assert_allclose(mixed_targets.numpy().sum(1), 1, atol=1e-6)
    assert ((mixed_targets.numpy() > 0) & (mixed_targets.numpy() < 1)).any()
    assert len(weights) == len(mixed_weights) == (class_weight is not None)
    if weights:  # of the classes 2, 1 and 2/3; those of two mixed images lie between
        assert mixed_weights[0].numpy().min() > 2 / 3 - 1e-6
        assert mixed_weights[0].numpy().max() < 2 + 1e-6


def test_a_run_goes_on_with_what_was_chosen_when_it_began(tmp_path):
    open_recipe = Recipe(out=tmp_path / "run")
    with RunFolder(open_recipe, {}) as folder:
        folder.begin(chosen(open_recipe, 500))
        folder.stage("plain", lambda stages: {})
    resume = dataclasses.replace(open_recipe, resume=True)
    RunFolder(resume, {}).begin(chosen(resume, 500))
    message = r"The interrupted run has augment='affine', this one augment='none'\. .* or --overwrite"
    with pytest.raises(InputError, match=message):
        RunFolder(resume, {}).begin(chosen(resume, 50_000))
    with pytest.raises(InputError, match=r"has dropout=0\.0, this one dropout=0\.5"):
        RunFolder(dataclasses.replace(resume, dropout=0.5), {})
