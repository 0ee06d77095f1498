"""The output folder of a run: built beside its final place, finished stage by stage, moved there when whole."""

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from keras_opt.core.errors import InputError
from keras_opt.core.files import write_atomic
from keras_opt.recipes.recipe import CHOSEN_FIELDS, SAMPLE, Recipe

# Of each folder of images ("data", "test"): the name of every image in it, and its size in bytes.
ImageSizes = dict[str, dict[str, int]]

_FOLDER_SETTINGS = ("data", "test")
_IMAGES = "images.json"
_BACKUPS = ".backups"


class RunFolder:
    """Collects a run in `NAME.partial`, which becomes `NAME` when everything in it is done.

    Making the object checks the place and leaves nothing there; `begin` starts the folder. A run that fails, is
    interrupted or killed leaves an older `NAME` untouched and keeps its own finished stages and the backups of the
    training that it was in, so that a resumed run goes on there.

    Args:
        recipe: Its `out`, `overwrite` and `resume` say where and how.
        images: What the run trains on: a run is resumed on these very images only, because the split between training
            and test images follows from their list.

    Raises:
        InputError: `out` holds a run already, or cannot be written; there is nothing to resume, or the run to resume
            has other settings or other images.
    """

    def __init__(self, recipe: Recipe, images: ImageSizes):
        self.final = _place(recipe.out, recipe.data, resume=recipe.resume)
        self.path = partial_folder(self.final)
        self.stages = self.path / "stages"
        self.model = self.path / "model.keras"
        self._new, self._old = (self.path.with_name(f"{self.path.name}.{word}") for word in ("new", "old"))
        self._recipe = recipe
        self._images = images
        self._whole = False
        self._check_place()
        with self._writing():
            self._make_new()  # whether that can be done is better known before images are decoded
            self._new.rmdir()

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        """Leave nothing behind that holds no finished work; say what is kept of an interrupted run."""
        kept = self.kept()
        shutil.rmtree(self._new, ignore_errors=True)
        if not self._has_work():
            shutil.rmtree(self.path, ignore_errors=True)
        if isinstance(error, KeyboardInterrupt):
            raise KeyboardInterrupt(kept) from error

    def begin(self, recipe: Recipe) -> None:
        """Start the folder, or go on in it; with `overwrite` an interrupted run in its place goes only now.

        Args:
            recipe: That of the run, which no longer leaves anything open.
        """
        if recipe.resume:
            _check_same_settings(recipe, self.path / "recipe.yaml")
            _remove_unfinished_files(self.path)
            return
        with self._writing():
            self._make_new()
            stages = self._new / self.stages.name
            stages.mkdir()
            write_atomic(stages / _IMAGES, json.dumps(self._images))
            recipe.save(self._new / "recipe.yaml")
            # A run that is killed here leaves its folder whole or none, and so does the one in its place.
            shutil.rmtree(self._old, ignore_errors=True)
            if self.path.exists():
                self.path.rename(self._old)
            self._new.rename(self.path)
            shutil.rmtree(self._old, ignore_errors=True)

    def backups(self, name: str) -> Path:
        """The folder for the backups of the training of a stage; made here, where a full disk is told as what it is."""
        folder = self._backups(name)
        folder.mkdir(exist_ok=True)
        return folder

    def stage(self, name: str, compute: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
        """Do a stage once: `compute(stages)` returns its facts (JSON) and may leave files in the folder it is given.

        A stage that an earlier run finished is not computed again; its facts are read back. Once it is finished, its
        backups go.
        """
        record = self.stages / f"{name}.json"
        if not record.exists():
            write_atomic(record, json.dumps(compute(self.stages)))
        shutil.rmtree(self._backups(name), ignore_errors=True)
        return json.loads(record.read_text(encoding="utf-8"))

    def finish(self) -> Path:
        """Put the folder in its final place, where an older run goes only now; the stages go last."""
        old = self.final.with_name(f"{self.final.name}.old")
        if self.final.exists():
            shutil.rmtree(old, ignore_errors=True)  # left by a run that was killed in the lines below
            self.final.rename(old)
        self.path.rename(self.final)
        self._whole = True
        shutil.rmtree(self.final / self.stages.name)
        shutil.rmtree(old, ignore_errors=True)
        return self.final

    def kept(self) -> str:
        """What a run that was interrupted or failed leaves, and how to go on."""
        if self._whole:
            return f"The run in {self.final} is whole."
        older = f" The older run in {self.final} is as it was." if _holds_run(self.final) else ""
        if not self._has_work():
            return f"Nothing of this run is kept: no training had come far enough.{older}"
        finished = ", ".join(record.stem for record in self._records()) or "no training yet"
        begun = "".join(f"; begun: {name}" for name in self._begun())
        model = "; model.keras is the newest model" if self.model.exists() else ""
        what = f"finished: {finished}{begun}{model}"
        return f"Kept in {self.path} ({what}). Go on with --out {self.final} --resume.{older}"

    def _has_work(self) -> bool:
        return bool(self._records()) or bool(self._begun()) or self.model.exists()

    def _records(self) -> list[Path]:
        """The records of the finished stages, in the order in which they were finished."""
        records = [path for path in self.stages.glob("[!.]*.json") if path.name != _IMAGES]
        return sorted(records, key=lambda record: record.stat().st_mtime)

    def _backups(self, name: str) -> Path:
        return self.stages / f"{name}{_BACKUPS}"

    def _begun(self) -> set[str]:
        """The unfinished stages whose trainings have backups: one, or none."""
        return {path.parent.name.removesuffix(_BACKUPS) for path in self.stages.glob(f"*{_BACKUPS}/[!.]*.npz")}

    def _make_new(self) -> None:
        shutil.rmtree(self._new, ignore_errors=True)
        self._new.mkdir(parents=True)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InputError(
                f"Output folder {str(self.final)!r} cannot be written ({error.strerror}). Give another with --out, or "
                "make it writable."
            ) from error

    def _check_place(self) -> None:
        if self.final.exists() and not _holds_run(self.final):
            _check_replaceable(self.final)
        check_outside_of_images(self.final, self._recipe)
        if self._recipe.resume:
            _check_interrupted(self.path)
            _check_same_settings(self._recipe, self.path / "recipe.yaml")
            _check_same_images(self._images, self.stages / _IMAGES)
        elif not self._recipe.overwrite:
            if self.path.exists():
                raise InputError(
                    f"Output folder {str(self.path)!r} holds an interrupted run. Give --resume to go on with it, "
                    "--overwrite to start anew, or another --out."
                )
            if _holds_run(self.final):
                raise InputError(
                    f"Output folder {str(self.final)!r} holds a run already. "
                    "Give --overwrite to replace it, or another --out."
                )


def partial_folder(out: str | os.PathLike) -> Path:
    """Where the run of an output folder stands until it is whole."""
    out = Path(out)
    return out.with_name(f"{out.name}.partial")


def resumed_recipe(given: dict[str, Any]) -> Recipe:
    """The recipe of the interrupted run that is to be gone on with, under the settings `given` by name.

    `RunFolder` refuses those that are not the interrupted run's.

    Raises:
        InputError: There is no such interrupted run, or a setting is out of its range.
    """
    recipe = Recipe(**given)
    place = _place(recipe.out, recipe.data, resume=True)
    _check_interrupted(partial_folder(place))
    return Recipe.load(partial_folder(place) / "recipe.yaml", **given)


def _place(out: str | None, data: str, *, resume: bool) -> Path:
    """The output folder; where none is named, the first interrupted run's with `resume`, else a free one."""
    if out:
        place = Path(out)
        if place.name in ("", ".."):
            raise InputError(f"Output folder {out!r} has no name of its own. Give one such as runs/photos with --out.")
        return place
    name = "demo" if data == SAMPLE else Path(data).resolve().name
    number = 1
    while True:
        place = Path("runs") / (name if number == 1 else f"{name}-{number}")
        interrupted = partial_folder(place).exists()
        if resume and interrupted:
            return place
        if not (place.exists() or interrupted):
            if resume:
                raise InputError(
                    f"There is no interrupted run of {name!r} under runs. Name its folder with --out, or leave out "
                    "--resume to start one."
                )
            return place
        number += 1


def check_outside_of_images(out: Path, recipe: Recipe) -> None:
    """Raise if a folder for results lies in one of images, where it would be a class."""
    for name in _FOLDER_SETTINGS:
        images = getattr(recipe, name)
        if images not in (None, SAMPLE) and out.resolve().is_relative_to(Path(images).resolve()):
            raise InputError(
                f"Output folder {str(out)!r} lies in the folder of images {str(images)!r}, whose folders are the "
                "classes. Give another with --out."
            )


def _remove_unfinished_files(folder: Path) -> None:
    """Remove what a run that was killed was writing: `write_atomic` gives a file its name when it is whole."""
    for path in folder.glob(".*"):
        path.unlink()


def _holds_run(place: Path) -> bool:
    return (place / "result.json").is_file()


def _check_replaceable(place: Path) -> None:
    """Raise unless `place` is an empty folder: what is no run of ours is never replaced."""
    if not place.is_dir():
        raise InputError(f"Output folder {str(place)!r} is a file. Give another with --out.")
    if any(place.iterdir()):
        raise InputError(f"Output folder {str(place)!r} holds files that are no run. Give another with --out.")


def _check_interrupted(partial: Path) -> None:
    if not partial.exists():
        final = partial.with_name(partial.name.removesuffix(".partial"))
        raise InputError(f"There is no interrupted run of {str(final)!r} to resume. Leave out --resume to start one.")


def _check_same_settings(recipe: Recipe, saved: Path) -> None:
    before = Recipe.load(saved).settings  # what an older keras_opt did not know has its default
    for name, value in recipe.settings.items():
        if name in CHOSEN_FIELDS and value is None:
            continue  # `begin` compares what will have been chosen
        if _comparable(name, before[name]) != _comparable(name, value):
            raise InputError(
                f"The interrupted run has {name}={before[name]!r}, this one {name}={value!r}. Give the settings it "
                "was started with, or --overwrite to start anew."
            )


def _comparable(name: str, value: Any) -> Any:
    """A folder has many names; everything else has one."""
    return os.path.realpath(value) if name in _FOLDER_SETTINGS and value is not None else value


def _check_same_images(images: ImageSizes, saved: Path) -> None:
    """Raise if the run would be split anew: former training images would come among the test images."""
    try:
        before = json.loads(saved.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"The interrupted run cannot be resumed: its list of images {str(saved)!r} cannot be read. "
            "Give --overwrite to start anew."
        ) from error
    for part in _FOLDER_SETTINGS:
        then, now = before.get(part, {}), images.get(part, {})
        changed = sorted(name for name in then.keys() | now.keys() if then.get(name) != now.get(name))
        if changed:
            what = "added" if changed[0] not in then else "removed" if changed[0] not in now else "changed"
            raise InputError(
                f"Image {changed[0]!r} of the {part} folder was {what} after the run was interrupted; a resumed run "
                "would mix training and test images. Put the folder back as it was, or give --overwrite to start anew."
            )
