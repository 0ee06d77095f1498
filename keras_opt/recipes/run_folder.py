"""The output folder of a run: built beside its final place, finished stage by stage, moved there when whole."""

import json
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
        self.final = Path(recipe.out) if recipe.out else _first_free(recipe)
        self.path = self.final.with_name(f"{self.final.name}.partial")
        self.stages = self.path / "stages"
        self._check_place(recipe)
        try:
            if self.path.exists() and not recipe.resume:
                shutil.rmtree(self.path)
            self.stages.mkdir(parents=True, exist_ok=True)
            recipe.save(self.path / "recipe.yaml")
        except OSError as error:
            raise InputError(
                f"Output folder {str(self.final)!r} cannot be written ({error.strerror}). Give another with --out."
            ) from error

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        """Leave nothing behind that holds no finished work; say what is kept of an interrupted run."""
        if not self._has_work():
            shutil.rmtree(self.path, ignore_errors=True)
        elif isinstance(error, KeyboardInterrupt):
            raise KeyboardInterrupt(self.kept()) from error

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
            self.final.rename(old)
        self.path.rename(self.final)
        shutil.rmtree(old, ignore_errors=True)
        return self.final

    def kept(self) -> str:
        """One sentence on what an interrupted run leaves."""
        records = sorted(self.stages.glob("*.json"), key=lambda record: record.stat().st_mtime)
        finished = ", ".join(record.stem for record in records) or "no training yet"
        model = ", with model.keras as the best model so far" if (self.path / "model.keras").exists() else ""
        return f"Kept in {self.path} (finished: {finished}{model}); go on with --out {self.final} --resume."

    def _has_work(self) -> bool:
        return any(self.stages.glob("*.json")) or (self.path / "model.keras").exists()

    def _check_place(self, recipe: Recipe) -> None:
        if recipe.resume:
            if not self.path.exists():
                raise InputError(
                    f"There is no interrupted run of {str(self.final)!r} to resume. Leave out --resume to start one."
                )
            _check_same_settings(recipe, self.path / "recipe.yaml")
        elif not recipe.overwrite:
            for place, state in ((self.final, "holds a run already"), (self.path, "holds an interrupted run")):
                if place.exists():
                    cure = " --resume to go on with it," if place == self.path else ""
                    raise InputError(
                        f"Output folder {str(place)!r} {state}. Give{cure} --overwrite to replace it, or another --out."
                    )


def _first_free(recipe: Recipe) -> Path:
    """The output folder where none is named: with `resume` the newest interrupted run, else a free name."""
    name = "demo" if recipe.data == SAMPLE else Path(recipe.data).resolve().name
    number = 1
    while True:
        place = Path("runs") / (name if number == 1 else f"{name}-{number}")
        interrupted = place.with_name(f"{place.name}.partial").exists()
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
