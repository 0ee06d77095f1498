"""Recipes: every bad setting is refused by name before anything runs, and a YAML file brings all of it back."""

from pathlib import Path

import numpy as np
import pytest

from keras_opt.cli import kinds
from keras_opt.distribute import choice
from keras_opt.export import tflite
from keras_opt.recipes import recipe as module
from keras_opt.recipes.recipe import Recipe


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("image_size", 0),
        ("image_size", 3),
        ("image_size", 32.0),
        ("epochs", 0),
        ("batch_size", -1),
        ("patience", 0),
        ("pruning_epochs", True),
        ("seed", -1),
        ("max_learning_rate", 0),
        ("max_learning_rate", float("nan")),
        ("dropout", 1),
        ("label_smoothing", -0.1),
        ("sparsity", 50),
        ("target_accuracy", 99.5),
        ("max_accuracy_drop", -1),
        ("validation_split", 0),
        ("validation_split", 20),
        ("test_split", 0),
        ("color_mode", "gray"),
        ("class_weight", "foo"),
        ("quantize", "int7"),
        ("augment", "yes"),
        ("mixed_precision", None),
        ("data", None),
        ("data", 5),
        ("test", 5),
        ("device", 0),
        ("strategy", "multiworker"),
        ("strategy", "tpu"),
        ("out", 7),
    ],
)
def test_a_bad_setting_is_named_with_what_was_received(setting, value):
    with pytest.raises(ValueError, match=rf"^Recipe: argument `{setting}` must be .*Received: {setting}=") as caught:
        Recipe(**{setting: value})
    assert "\n" not in str(caught.value)


def test_a_strategy_chooses_the_devices_by_itself():
    with pytest.raises(ValueError, match=r"argument `device` must be None beside strategy='one'.*leave one of the two"):
        Recipe(device="cpu", strategy="one")


def test_a_run_of_several_workers_is_refused_with_what_to_do_instead():
    with pytest.raises(ValueError, match=r"give `keras-opt launch` a script that makes its model in the scope of"):
        Recipe(strategy="multiworker")


def test_overwrite_and_resume_exclude_one_another():
    with pytest.raises(ValueError, match="choose one"):
        Recipe(overwrite=True, resume=True)


def test_yaml_round_trip_keeps_every_setting_but_where_the_run_is_written(tmp_path):
    recipe = Recipe(data=tmp_path / "photos", epochs=3, class_weight="balanced", out="here", overwrite=True)
    recipe.save(tmp_path / "recipe.yaml")
    assert Recipe.load(tmp_path / "recipe.yaml") == Recipe(**recipe.settings)
    assert Recipe.load(tmp_path / "recipe.yaml", epochs=4, out="there").epochs == 4
    assert recipe.data == str(tmp_path / "photos")
    assert "out" not in recipe.settings


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch: 3", "unknown key 'epoch'. Did you mean 'epochs'?"),
        ("image-size: 3", "unknown key 'image-size'. Did you mean 'image_size'?"),
        ("3: 4", "unknown key 3"),
        ("- epochs", "holds no settings"),
        ("", "holds no settings"),
        ("a: [", "cannot be read"),
        ("epochs: many", "argument `epochs` must be an integer"),
    ],
)
def test_a_bad_recipe_file_is_one_clear_line(tmp_path, text, message):
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        Recipe.load(file)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_recipe_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"none\.yaml' cannot be read .*No such file"):
        Recipe.load(tmp_path / "none.yaml")


def test_the_kinds_are_the_same_everywhere():
    assert set(kinds.KINDS) == set(module.QUANTIZE_KINDS)
    assert set(kinds.EXPORT_KINDS) == set(tflite.KINDS)
    assert set(module.STRATEGIES) == {*choice.NAMES} - {"multiworker"}


def test_the_demo_takes_changes():
    assert Recipe.demo(epochs=2).epochs == 2
    assert Recipe.demo().data == module.SAMPLE
    assert not Path(module.SAMPLE).exists()


def test_numpy_scalars_become_python_s(tmp_path):
    recipe = Recipe(seed=np.int64(3), dropout=np.float32(0.25), baseline=np.bool_(False), quantize=np.str_("float16"))
    assert [type(value) for value in (recipe.seed, recipe.dropout, recipe.baseline)] == [int, float, bool]
    recipe.save(tmp_path / "recipe.yaml")
    assert Recipe.load(tmp_path / "recipe.yaml") == recipe
