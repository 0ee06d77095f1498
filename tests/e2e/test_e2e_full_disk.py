"""A disk that is really full: a tiny one is mounted, which takes root; elsewhere the injected errors stand alone."""

import hashlib
import shutil
import subprocess

import pytest
from full_rows import full

from keras_opt.recipes import Recipe, run

KB = 1024


@pytest.fixture
def disk(tmp_path):
    """A folder on a disk of 8 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", place]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting a small disk takes root")
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.fixture
def recipe(photos, disk):
    settings = {"data": photos, "image_size": 16, "epochs": 1, "batch_size": 16, "sparsity": 0.0, "baseline": False}
    return lambda **changes: Recipe(**{**settings, "augment": "none", "out": disk / "run", **changes})


def fill(disk, left):
    """Leave `left` bytes free."""
    with (disk / "filler").open("wb") as filler:
        filler.write(bytes(shutil.disk_usage(disk).free - left))


def contents(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.mark.filterwarnings("ignore:BackupAndRestore. no backup could be written")
@pytest.mark.parametrize("left", [224 * KB, full(64 * KB)])
def test_the_old_run_is_kept_and_the_new_one_goes_on(disk, recipe, left):
    run(recipe(), verbose=0)
    before = contents(disk / "run")
    fill(disk, left)
    with pytest.raises(ValueError, match=r"run\.partial' is full\. Free some space\. ") as caught:
        run(recipe(overwrite=True, seed=1), verbose=0)
    assert f"The older run in {disk / 'run'} is as it was" in str(caught.value)
    assert contents(disk / "run") == before
    (disk / "filler").unlink()
    resume = {"resume": True} if "--resume" in str(caught.value) else {"overwrite": True}
    assert run(recipe(seed=1, **resume), verbose=0).recipe.seed == 1
    assert contents(disk / "run")["model.tflite"] != before["model.tflite"]
    assert [path.name for path in disk.iterdir()] == ["run"]


def test_a_disk_that_is_full_from_the_start(disk, recipe):
    fill(disk, 0)
    with pytest.raises(ValueError, match=r"is full\. Free some space|cannot be written \(No space left on device\)"):
        run(recipe(), verbose=0)
    assert [path.name for path in disk.iterdir()] == ["filler"]
