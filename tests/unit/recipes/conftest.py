"""One tiny run, made once, that many tests read."""

import os

import pytest
from image_folders import write_images

from keras_opt.recipes import Recipe, run


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("data") / "photos", count=20)


@pytest.fixture
def tiny_run(photos, tmp_path):
    """Run a recipe on the tiny folder in a second or two, without the plain side unless asked."""

    def tiny(**changes):
        changes = {"data": photos, "image_size": 16, "epochs": 2, "pruning_epochs": 1, "batch_size": 16, **changes}
        changes = {"baseline": False, "augment": "none", "out": tmp_path / "run", **changes}
        return run(Recipe(**changes), verbose=0)

    return tiny


@pytest.fixture(scope="session")
def finished(photos, tmp_path_factory):
    """A whole run with both sides."""
    out = tmp_path_factory.mktemp("finished") / "run"
    recipe = Recipe(data=photos, image_size=16, epochs=2, pruning_epochs=1, batch_size=16, out=os.fspath(out))
    return run(recipe, verbose=0)
