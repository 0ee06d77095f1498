"""One recipe, two processes, the same bits; and a model.keras that needs no keras_opt."""

import keras
import numpy as np
import pytest

from keras_opt.recipes import Recipe, run

WITHOUT_KERAS_OPT = """
import sys
sys.modules["keras_opt"] = None
import json, zipfile, keras, numpy as np
model = keras.models.load_model("model.keras")
x = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3)).astype("float32")
np.save("outputs.npy", model.predict(x, verbose=0))
names = json.loads(zipfile.ZipFile("model.keras").read("metadata.json"))["keras_opt"]["class_names"]
print(any(isinstance(layer, keras.layers.Rescaling) for layer in model.layers), names)
"""


@pytest.fixture(scope="module")
def place(photos, tmp_path_factory):
    """A folder with the run `first`, made in this process."""
    folder = tmp_path_factory.mktemp("repeat")
    recipe = Recipe(data=photos, image_size=16, epochs=1, pruning_epochs=1, batch_size=16, out=folder / "first")
    run(recipe, verbose=0)
    return folder


def test_one_recipe_gives_the_same_bits_in_two_processes(place, keras_opt_process):
    done = keras_opt_process("train", "--recipe", "first/recipe.yaml", "--out", "second", cwd=place)
    assert done.returncode == 0, done.stderr
    first, second = (keras.models.load_model(place / name / "model.keras") for name in ("first", "second"))
    for one, other in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    for name in ("model.tflite", "plain.tflite", "recipe.yaml", "labels.txt", "predict.py"):
        assert (place / "first" / name).read_bytes() == (place / "second" / name).read_bytes(), name


def test_the_model_opens_where_keras_opt_cannot_be_imported(place, keras_opt_process):
    done = keras_opt_process(cwd=place / "first", code=WITHOUT_KERAS_OPT)
    assert done.stdout.strip() == "True ['blue', 'green', 'red']", done.stderr
    x = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3)).astype("float32")
    model = keras.models.load_model(place / "first/model.keras")
    np.testing.assert_array_equal(np.load(place / "first/outputs.npy"), model.predict(x, verbose=0))
