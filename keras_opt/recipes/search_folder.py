"""The folder of a search: what it searches, its trials, its report."""

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from keras_opt.core import folder_lock
from keras_opt.core.errors import InputError
from keras_opt.core.files import write_atomic
from keras_opt.recipes.images import image_sizes
from keras_opt.recipes.recipe import CHOSEN_FIELDS, SAMPLE, Recipe
from keras_opt.recipes.run_folder import check_outside_of_images
from keras_opt.recipes.search_space import Parameter
from keras_opt.tuning.trial_store import TrialStore

_PLAN, _STUDY = "search.json", "study.db"
MIN_EPOCHS = 2


@dataclasses.dataclass(frozen=True)
class Plan:
    """What makes the trials of a search what they are.

    Args:
        recipe: That of every trial but for what is searched; nothing is left open in it.
        parameters: What is searched.
        sampler: Optuna's, by name.
        pruner: Optuna's, by name, or `None`.
        images: A digest of the images: on others the trials would not compare.
    """

    recipe: Recipe
    parameters: list[Parameter]
    sampler: str
    pruner: str | None
    images: str

    def save(self, folder: Path) -> None:
        """Write it into the folder of the search."""
        state = {**dataclasses.asdict(self), "recipe": self.recipe.settings}
        write_atomic(folder / _PLAN, json.dumps(state, indent=2))

    @classmethod
    def load(cls, folder: Path) -> "Plan":
        """Read the plan of a search.

        Raises:
            InputError: There is none, or it cannot be read.
        """
        try:
            state = json.loads((folder / _PLAN).read_text(encoding="utf-8"))
            found = [Parameter(**each) for each in state.pop("parameters")]
            return cls(Recipe(**state.pop("recipe")), found, **state)
        except FileNotFoundError as error:
            raise InputError(
                f"There is no search in {str(folder)!r} to go on with. Leave out --resume to start one."
            ) from error
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise InputError(
                f"The plan of the search {str(folder / _PLAN)!r} cannot be read ({error}). The trials in "
                f"{_STUDY} are as they were; give --overwrite, or another --out, to start anew."
            ) from error

    def open_store(self, folder: Path) -> TrialStore:
        """The trials of the search."""
        return TrialStore(folder / _STUDY, ["maximize"], self.pruner, MIN_EPOCHS)


def place_of(recipe: Recipe) -> Path:
    """The folder of the search of a recipe."""
    name = "demo" if recipe.data == SAMPLE else Path(recipe.data).resolve().name
    return Path(recipe.out) if recipe.out else Path("runs") / f"{name}-tune"


def check_place(folder: Path, recipe: Recipe) -> None:
    """Raise unless a search can begin in `folder`, or go on there."""
    check_outside_of_images(folder, recipe)
    if recipe.resume:
        Plan.load(folder)
    elif _holds_search(folder):
        if not recipe.overwrite:
            raise InputError(
                f"Output folder {str(folder)!r} holds a search already. Give --resume to go on with it, --overwrite to "
                "start anew, or another --out."
            )
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"Output folder {str(folder)!r} holds files that are no search. Give another with --out.")


@contextlib.contextmanager
def claimed(folder: Path, recipe: Recipe) -> Iterator[None]:
    """Keep the folder for this process; it is made if need be.

    Raises:
        InputError: Another process searches there, or a search can neither begin nor go on there.
    """
    check_place(folder, recipe)
    _make(folder)
    _hold(folder)
    try:
        check_place(folder, recipe)  # again: another process may have been there until now
        yield
    finally:
        folder_lock.release(folder)


def begin(folder: Path) -> None:
    """Empty the folder, which this process has claimed: a search in its place goes only now."""
    if _holds_search(folder):
        shutil.rmtree(folder)
        _make(folder)
        _hold(folder)


def _make(folder):
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"Output folder {str(folder)!r} cannot be written ({error.strerror}). Give another with --out."
        ) from error


def _hold(folder):
    if not folder_lock.hold(folder):
        raise InputError(
            f"Another process searches in {str(folder)!r}. Wait until it has ended, or give another --out. To train "
            "several trials at once, give --workers to one process."
        )


def check_same(plan: Plan, given: dict[str, Any], images: str) -> None:
    """Raise unless a search that goes on has what it was begun with.

    Args:
        plan: Of the search.
        given: The settings by name, as they are now; `search`, and what is chosen by the images, may be `None`.
        images: Their digest.
    """
    before = {**plan.recipe.settings, "sampler": plan.sampler, "pruner": plan.pruner}
    before["search"] = tuple(each.name for each in plan.parameters)
    for name, value in given.items():
        if value is None and name in (*CHOSEN_FIELDS, "search"):
            continue
        if _comparable(name, value) != _comparable(name, before[name]):
            raise InputError(
                f"The search has {name}={before[name]!r}, this one {name}={value!r}. Give what it was started with, or "
                "--overwrite to start anew."
            )
    if images != plan.images:
        raise InputError(
            "The images were changed after the search was begun, so that new trials would not compare with the old "
            "ones. Put the folder back as it was, or give --overwrite to start anew."
        )


def _comparable(name: str, value: Any) -> Any:
    """A folder has many names; everything else has one."""
    return os.path.realpath(value) if name in ("data", "test") and value is not None else value


def digest(recipe: Recipe) -> str:
    """Of the names and sizes of the images."""
    return hashlib.sha256(json.dumps(image_sizes(recipe), sort_keys=True).encode()).hexdigest()


def _holds_search(folder: Path) -> bool:
    return (folder / _PLAN).is_file()
