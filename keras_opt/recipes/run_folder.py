"""The output folder of a run: built beside its final place, finished stage by stage, moved there when whole."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from keras_opt.core.errors import InputError
from keras_opt.core.files import write_atomic
from keras_opt.recipes.recipe import SAMPLE, Recipe, read_settings


class RunFolder:
    """Collects a run in `NAME.partial`, which becomes `NAME` when everything in it is done.

    A run that fails or is interrupted leaves an older `NAME` untouched and keeps its own finished stages, so that a
    resumed run goes on from there.

    Args:
        recipe: Its `out`, `overwrite` and `resume` say where and how.

    Raises:
        ValueError: `out` holds a run already, there is nothing to resume, or the settings of the run to resume differ.
        OSError: The folder cannot be written.
    """

    def __init__(self, recipe: Recipe):
        self.final = _named(recipe.out) if recipe.out else _first_free(recipe)
        self.path = partial_folder(self.final)
        self.stages = self.path / "stages"
        self._check_place(recipe)
        try:
            if self.path.exists() and not recipe.resume:
                shutil.rmtree(self.path)
            self.stages.mkdir(parents=True, exist_ok=True)
            recipe.save(self.path / "recipe.yaml")
        except OSError as error:
            if not self._has_work():
                shutil.rmtree(self.path, ignore_errors=True)
            raise InputError(
                f"Output folder {str(self.final)!r} cannot be written ({error.strerror}). Give another with --out, or "
                "make it writable."
            ) from error

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        """Leave nothing behind that holds no finished work; say what is kept of an interrupted run."""
        kept = self.kept()
        if not self._has_work():
            shutil.rmtree(self.path, ignore_errors=True)
        if isinstance(error, KeyboardInterrupt):
            raise KeyboardInterrupt(kept) from error

    def stage(self, name: str, compute: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
        """Do a stage once: `compute(stages)` returns its facts (JSON) and may leave files in the folder it is given.

        A stage that an earlier run finished is not computed again; its facts are read back.
        """
        record = self.stages / f"{name}.json"
        if not record.exists():
            write_atomic(record, json.dumps(compute(self.stages)))
        return json.loads(record.read_text(encoding="utf-8"))

    def finish(self) -> Path:
        """Drop the stages and put the folder in its final place; an older run there goes only now."""
        shutil.rmtree(self.stages)
        old = self.final.with_name(f"{self.final.name}.old")
        if self.final.exists():
            shutil.rmtree(old, ignore_errors=True)  # left by a run that was killed in the next three lines
            self.final.rename(old)
        self.path.rename(self.final)
        shutil.rmtree(old, ignore_errors=True)
        return self.final

    def kept(self) -> str:
        """What a run that was interrupted or failed leaves, and how to go on."""
        older = f" The older run in {self.final} is as it was." if _holds_run(self.final) else ""
        if not self._has_work():
            return f"Nothing of this run is kept: no training had come far enough.{older}"
        records = sorted(self.stages.glob("*.json"), key=lambda record: record.stat().st_mtime)
        finished = ", ".join(record.stem for record in records) or "no training yet"
        model = "; model.keras is the newest model" if (self.path / "model.keras").exists() else ""
        return f"Kept in {self.path} (finished: {finished}{model}). Go on with --out {self.final} --resume.{older}"

    def _has_work(self) -> bool:
        return any(self.stages.glob("*.json")) or (self.path / "model.keras").exists()

    def _check_place(self, recipe: Recipe) -> None:
        if self.final.exists() and not _holds_run(self.final):
            _check_replaceable(self.final)
        if recipe.resume:
            if not self.path.exists():
                raise InputError(
                    f"There is no interrupted run of {str(self.final)!r} to resume. Leave out --resume to start one."
                )
            _check_same_settings(recipe, self.path / "recipe.yaml")
        elif not recipe.overwrite:
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


def _named(out: str) -> Path:
    place = Path(out)
    if place.name in ("", ".."):
        raise InputError(f"Output folder {out!r} has no name of its own. Give one such as runs/photos with --out.")
    return place


def _holds_run(place: Path) -> bool:
    return (place / "result.json").is_file()


def _check_replaceable(place: Path) -> None:
    """Raise unless `place` is an empty folder: what is no run of ours is never replaced."""
    if not place.is_dir():
        raise InputError(f"Output folder {str(place)!r} is a file. Give another with --out.")
    if any(place.iterdir()):
        raise InputError(f"Output folder {str(place)!r} holds files that are no run. Give another with --out.")


def _first_free(recipe: Recipe) -> Path:
    """The output folder where none is named: with `resume` the first interrupted run, else a free name."""
    name = "demo" if recipe.data == SAMPLE else Path(recipe.data).resolve().name
    number = 1
    while True:
        place = Path("runs") / (name if number == 1 else f"{name}-{number}")
        interrupted = partial_folder(place).exists()
        if (recipe.resume and interrupted) or not (place.exists() or interrupted):
            return place
        number += 1


def _check_same_settings(recipe: Recipe, saved: Path) -> None:
    before = read_settings(saved)
    for name, value in recipe.settings.items():
        if before.get(name) != value:
            raise InputError(
                f"The interrupted run has {name}={before.get(name)!r}, this one {name}={value!r}. Give the settings it "
                "was started with, or --overwrite to start anew."
            )
