"""The output folder: where runs go, what an interruption leaves, and that nothing of the user's is ever replaced."""

import contextlib
import errno
import json
import os
import shutil

import pytest

from keras_opt.recipes.recipe import Recipe
from keras_opt.recipes.run_folder import RunFolder, resumed_recipe


@pytest.fixture
def out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path / "run"


@contextlib.contextmanager
def begun(recipe, images=None):
    with RunFolder(recipe, images or {}) as folder:
        folder.begin(recipe)
        yield folder


def finish(recipe):
    """A whole run that leaves one figure."""
    with begun(recipe) as folder:
        folder.stage("plain", lambda stages: {"epochs": recipe.epochs})
        (folder.path / "result.json").write_text(json.dumps(recipe.epochs))
        return folder.finish()


def interrupt(recipe, finished=("plain",), error=KeyboardInterrupt, images=None):
    def work():
        with begun(recipe, images) as folder:
            for name in finished:
                folder.stage(name, lambda stages: {})
            raise error

    with pytest.raises(error) as caught:
        work()
    return str(caught.value)


def test_runs_without_a_name_are_numbered(out):
    assert [str(finish(Recipe.demo())) for _ in range(3)] == ["runs/demo", "runs/demo-2", "runs/demo-3"]
    assert str(finish(Recipe(data="some/photos"))) == "runs/photos"


def test_a_finished_run_is_refused_and_overwritten_only_when_the_new_one_is_whole(out):
    finish(Recipe(out=str(out), epochs=1))
    with pytest.raises(ValueError, match=r"run' holds a run already\. Give --overwrite .*--out"):
        RunFolder(Recipe(out=str(out)), {})
    message = interrupt(Recipe(out=str(out), overwrite=True, epochs=2))
    assert f"The older run in {out} is as it was" in message
    assert json.loads((out / "result.json").read_text()) == 1
    finish(Recipe(out=str(out), overwrite=True, epochs=3))
    assert json.loads((out / "result.json").read_text()) == 3
    assert not list(out.parent.glob("run.*"))


def test_an_interrupted_run_is_refused_then_resumed_with_its_stages(out):
    message = interrupt(Recipe(out=str(out)), finished=("plain", "optimised"))
    assert f"Kept in {out}.partial (finished: plain, optimised)" in message
    assert f"--out {out} --resume" in message
    with pytest.raises(ValueError, match=r"holds an interrupted run. Give --resume to go on with it, --overwrite"):
        RunFolder(Recipe(out=str(out)), {})
    with begun(Recipe(out=str(out), resume=True)) as folder:
        assert folder.stage("plain", lambda stages: pytest.fail("computed again")) == {}
        folder.finish()


def test_a_changed_setting_is_refused_by_name_when_resuming(out):
    interrupt(Recipe(out=str(out)))
    with pytest.raises(ValueError, match=r"has batch_size=32, this one batch_size=16"):
        RunFolder(Recipe(out=str(out), batch_size=16, resume=True), {})


def test_what_an_older_keras_opt_did_not_know_has_its_default(out):
    interrupt(Recipe(out=str(out), epochs=20))
    saved = out.parent / "run.partial/recipe.yaml"
    older = [line for line in saved.read_text().splitlines() if line.split(":")[0] not in ("strategy", "weight_decay")]
    saved.write_text("\n".join(older))
    recipe = resumed_recipe({"out": str(out), "resume": True})
    assert (recipe.epochs, recipe.weight_decay, recipe.strategy) == (20, 0.0, None)
    RunFolder(recipe, {})
    for name, value in (("weight_decay", 0.1), ("strategy", "mirrored")):
        with pytest.raises(ValueError, match=f"The interrupted run has {name}=(0.0|None), this one {name}={value!r}"):
            RunFolder(resumed_recipe({"out": str(out), "resume": True, name: value}), {})


def test_resume_without_an_interrupted_run_says_so(out):
    with pytest.raises(ValueError, match=r"no interrupted run of .*run' to resume. Leave out --resume"):
        RunFolder(Recipe(out=str(out), resume=True), {})


def test_resume_without_a_name_finds_the_interrupted_run(out):
    interrupt(Recipe.demo())
    with begun(Recipe.demo(resume=True)) as folder:
        assert str(folder.finish()) == "runs/demo"


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_nothing_is_left_of_a_run_that_did_nothing(out, error):
    message = interrupt(Recipe(out=str(out)), finished=(), error=error)
    assert not list(out.parent.iterdir())
    if error is KeyboardInterrupt:
        assert "Nothing of this run is kept" in message


@pytest.mark.parametrize("choice", [{}, {"overwrite": True}])
def test_a_folder_of_other_files_is_never_replaced(out, choice):
    out.mkdir()
    (out / "photo.png").write_bytes(b"dear")
    with pytest.raises(ValueError, match=r"holds files that are no run. Give another with --out"):
        RunFolder(Recipe(out=str(out), **choice), {})
    assert (out / "photo.png").read_bytes() == b"dear"


@pytest.mark.parametrize("settings", [{"data": "."}, {"data": "photos", "out": "photos/run"}, {"test": "."}])
def test_a_place_among_the_images_is_refused_and_nothing_is_made_there(out, settings):
    before = sorted(out.parent.rglob("*"))
    with pytest.raises(ValueError, match=r"lies in the folder of images .*Give another with --out\."):
        RunFolder(Recipe(**({"data": "elsewhere"} | settings)), {})
    assert sorted(out.parent.rglob("*")) == before


def test_a_file_in_the_place_is_refused(out):
    out.write_text("dear")
    with pytest.raises(ValueError, match="is a file"):
        RunFolder(Recipe(out=str(out), overwrite=True), {})


def test_an_empty_folder_is_a_fine_place(out):
    out.mkdir()
    assert finish(Recipe(out=str(out))) == out


@pytest.mark.parametrize("place", [".", "/", ".."])
def test_a_place_without_a_name_is_refused(out, place):
    with pytest.raises(ValueError, match="has no name of its own"):
        RunFolder(Recipe(out=place), {})


def test_a_place_that_cannot_be_written_is_named(out):
    out.write_text("a file, not a folder")
    with pytest.raises(ValueError, match=r"run/below' cannot be written \(Not a directory\)\. Give another with --out"):
        RunFolder(Recipe(out=str(out / "below")), {})


def test_a_full_disk_at_the_start_leaves_nothing(out, monkeypatch):
    def full(path, text):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("keras_opt.recipes.recipe.write_atomic", full)
    with pytest.raises(ValueError, match=r"cannot be written \(No space left on device\)"):
        finish(Recipe(out=str(out)))
    assert not list(out.parent.iterdir())


def test_what_a_killed_overwrite_left_does_not_stop_the_next(out):
    finish(Recipe(out=str(out)))
    (out.parent / "run.old").mkdir()
    (out.parent / "run.old" / "model.keras").write_bytes(b"old")
    finish(Recipe(out=str(out), overwrite=True))
    assert [path.name for path in out.parent.iterdir()] == ["run"]


def test_a_stage_whose_work_failed_is_computed_again(out):
    with begun(Recipe(out=str(out))) as folder:
        with pytest.raises(OSError, match="broken"):
            folder.stage("plain", lambda stages: (_ for _ in ()).throw(OSError("broken")))
        assert folder.stage("plain", lambda stages: {"a": 1}) == {"a": 1}
        folder.finish()


IMAGES = {"data": {"red/1.png": 10, "red/2.png": 20}, "test": {"red/1.png": 30}}


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("data", {"red/0.png": 5}, r"Image 'red/0\.png' of the data folder was added"),
        ("data", {"red/1.png": None}, r"Image 'red/1\.png' of the data folder was removed"),
        ("data", {"red/2.png": 21}, r"Image 'red/2\.png' of the data folder was changed"),
        ("test", {"red/1.png": 31}, r"Image 'red/1\.png' of the test folder was changed"),
    ],
)
def test_a_run_is_resumed_on_the_same_images_only(out, part, change, message):
    interrupt(Recipe(out=str(out)), images=IMAGES)
    resume = Recipe(out=str(out), resume=True)
    now = {name: size for name, size in {**IMAGES[part], **change}.items() if size is not None}
    with pytest.raises(ValueError, match=rf"{message} after the run .*Put the folder back .* --overwrite"):
        RunFolder(resume, {**IMAGES, part: now})
    with begun(resume, IMAGES) as folder:
        assert {path.name for path in folder.finish().iterdir()} == {"recipe.yaml"}


def test_backups_stay_until_their_stage_is_finished(out):
    def train(stages):
        (folder.backups("plain") / "backup-00000001-epoch.npz").write_bytes(b"a backup")
        raise ValueError("broken off")

    with pytest.raises(ValueError, match="broken off"), begun(Recipe(out=str(out))) as folder:
        folder.stage("plain", train)
    with begun(Recipe(out=str(out), resume=True)) as folder:
        assert "(finished: no training yet; begun: plain). Go on with" in folder.kept()
        assert os.listdir(folder.backups("plain")) == ["backup-00000001-epoch.npz"]
        folder.stage("plain", lambda stages: {})
        assert "(finished: plain). Go on with" in folder.kept()
        assert sorted(os.listdir(folder.stages)) == ["images.json", "plain.json"]
        folder.finish()


def test_backups_that_a_kill_left_of_a_finished_stage_go(out):
    interrupt(Recipe(out=str(out)))
    backups = out.parent / "run.partial/stages/plain.backups"
    backups.mkdir()
    with begun(Recipe(out=str(out), resume=True)) as folder:
        folder.stage("plain", lambda stages: pytest.fail("computed again"))
        assert not backups.exists()
        folder.finish()


def test_files_that_a_kill_left_unfinished_go(out):
    interrupt(Recipe(out=str(out)))
    (out.parent / "run.partial/.model-x1.keras").write_bytes(b"half a model")
    (out.parent / "run.partial/stages/.optimised-x1.json").write_bytes(b"half")
    with begun(Recipe(out=str(out), resume=True)) as folder:
        assert "(finished: plain)." in folder.kept()
        assert os.listdir(folder.finish()) == ["recipe.yaml"]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("steps", range(8))
def test_a_kill_at_any_step_of_the_begin_leaves_a_run_that_can_be_resumed_or_none(out, monkeypatch, steps, overwrite):
    """Only the first `steps` renames, removals, new folders and files of `begin` happen."""
    if overwrite:
        interrupt(Recipe(out=str(out), epochs=1))
    recipe = Recipe(out=str(out), overwrite=overwrite, epochs=2)
    folder = RunFolder(recipe, {})
    left = [steps]

    def killed_after_steps(real):
        def call(*arguments, **options):
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            return real(*arguments, **options)

        return call

    with monkeypatch.context() as patch:
        for name in ("rename", "mkdir"):
            patch.setattr(os, name, killed_after_steps(getattr(os, name)))
        patch.setattr(shutil, "rmtree", killed_after_steps(shutil.rmtree))
        patch.setattr("keras_opt.core.files.os.fsync", killed_after_steps(os.fsync))
        with contextlib.suppress(KeyboardInterrupt):
            folder.begin(recipe)
    partial = out.parent / "run.partial"
    if partial.exists():
        recipe = resumed_recipe({"out": str(out), "resume": True})
        RunFolder(recipe, {})
        assert recipe.epochs == 2 or (partial / "stages/plain.json").exists()
    finish(Recipe(out=str(out), overwrite=True))
    assert [path.name for path in out.parent.iterdir()] == ["run"]


def test_a_run_without_its_list_of_images_is_not_resumed(out):
    interrupt(Recipe(out=str(out)))
    (out.parent / "run.partial/stages/images.json").unlink()
    with pytest.raises(ValueError, match=r"its list of images .* cannot be read\. Give --overwrite"):
        RunFolder(Recipe(out=str(out), resume=True), {})


def test_a_folder_of_images_may_be_named_in_other_ways(out):
    (out.parent / "photos").mkdir()
    interrupt(Recipe(data="photos", test="photos/../more", out=str(out)))
    RunFolder(Recipe(data=os.path.abspath("photos"), test="more/", out=str(out), resume=True), {})
    with pytest.raises(ValueError, match="has data='photos', this one data='other'"):
        RunFolder(Recipe(data="other", test="more", out=str(out), resume=True), {})


def test_an_interrupted_run_goes_only_when_the_new_one_begins(out):
    interrupt(Recipe(out=str(out)))
    with pytest.raises(ValueError, match="no such folder"), RunFolder(Recipe(out=str(out), overwrite=True), {}):
        raise ValueError("no such folder")
    with begun(Recipe(out=str(out), resume=True)) as folder:
        folder.stage("plain", lambda stages: pytest.fail("computed again"))
    finish(Recipe(out=str(out), overwrite=True))
    assert [path.name for path in out.parent.iterdir()] == ["run"]


@pytest.mark.parametrize("steps", range(5))
def test_a_kill_at_any_step_of_the_end_keeps_the_stages_or_the_whole_run(out, monkeypatch, steps):
    """Only the first `steps` renames and removals of `finish` happen."""
    done = []

    def killed_after_steps(real):
        def call(*arguments, **options):
            if len(done) == steps:
                raise KeyboardInterrupt
            done.append(arguments)
            return real(*arguments, **options)

        return call

    finish(Recipe(out=str(out), epochs=1))
    recipe = Recipe(out=str(out), overwrite=True, epochs=2)
    folder = RunFolder(recipe, {})
    folder.begin(recipe)
    folder.stage("plain", lambda stages: {})
    (folder.path / "result.json").write_text("2")
    monkeypatch.setattr(shutil, "rmtree", killed_after_steps(shutil.rmtree))
    monkeypatch.setattr(os, "rename", killed_after_steps(os.rename))
    with pytest.raises(KeyboardInterrupt):
        folder.finish()
    whole = out.exists() and json.loads((out / "result.json").read_text()) == 2
    assert whole or (out.parent / "run.partial/stages/plain.json").exists()
    assert whole == (steps >= 3)


def test_a_resumed_recipe_is_the_interrupted_run_s_with_what_is_given(out):
    interrupt(Recipe.demo(seed=2, out=str(out)))
    assert resumed_recipe({"out": str(out), "resume": True}) == Recipe.demo(seed=2, out=str(out), resume=True)
    other = resumed_recipe({"out": str(out), "resume": True, "seed": 3})
    with pytest.raises(ValueError, match="has seed=2, this one seed=3"):
        RunFolder(other, {})


def test_resume_with_nothing_named_and_nothing_interrupted_says_so(out):
    with pytest.raises(ValueError, match=r"no interrupted run of 'demo' under runs\. Name its folder with --out, or"):
        resumed_recipe({"resume": True})


def test_any_failure_of_the_beginning_leaves_nothing(out, monkeypatch):
    monkeypatch.setattr(Recipe, "save", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        finish(Recipe(out=str(out)))
    assert not list(out.parent.iterdir())
