"""The folder of a search: its finished candidates and their files, with which a later call goes on."""

import dataclasses
import hashlib
import json
import math
import shutil
from pathlib import Path
from typing import Any

import keras

from keras_opt.compression.search.recipe import CompressionRecipe
from keras_opt.compression.search.result import Candidate
from keras_opt.core.errors import InputError
from keras_opt.core.files import write_atomic

_STATE = "compress.json"
_TRAININGS = "compress_trainings"  # it is removed: a name that no folder of the user has


class FinishedCandidates:
    """The candidates that are finished, in a folder beside their files and the backups of a training.

    The settings are written before anything is trained: a training that was broken off belongs to them.

    Raises:
        ValueError: The folder has those of another search, or their list is damaged.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]):
        self.folder = folder
        self._settings = settings
        self._rows: dict[str, Candidate] = {}
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / _STATE
        if not path.is_file():
            shutil.rmtree(self.trainings, ignore_errors=True)
            self._write()
            return
        try:
            state = json.loads(path.read_text("utf-8"))
            found = dict(state["settings"])
            self._rows = {name: self._candidate(row) for name, row in state["candidates"].items()}
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(f"compress: {str(path)!r} cannot be read ({error}). Give another folder.") from error
        changed = [name for name in found if not _is_same(found[name], settings.get(name))]
        if not changed:
            return
        if self._rows or self.trainings.is_dir():
            name = changed[0]
            raise InputError(
                f"compress: {str(folder)!r} has the files of another search: {name} was {found[name]!r} and is "
                f"{settings.get(name)!r}. Give another folder, or the same model, data and settings."
            )
        self._write()

    @property
    def trainings(self) -> Path:
        """Where the backups of a training are, until its candidate is finished."""
        return self.folder / _TRAININGS

    def get(self, recipe: CompressionRecipe) -> Candidate | None:
        candidate = self._rows.get(recipe.file_name)
        is_gone = candidate is not None and candidate.path is not None and not candidate.path.is_file()
        return None if is_gone else candidate

    def add(self, recipe: CompressionRecipe, candidate: Candidate) -> None:
        self._rows[recipe.file_name] = candidate
        self._write()
        shutil.rmtree(self.trainings, ignore_errors=True)

    def _write(self):
        state = {"settings": self._settings, "candidates": {name: _row(each) for name, each in self._rows.items()}}
        write_atomic(self.folder / _STATE, json.dumps(state, indent=1) + "\n")

    def _candidate(self, row):
        return Candidate(**{**row, "path": None if row["path"] is None else self.folder / row["path"]})


def _row(candidate):
    return {**dataclasses.asdict(candidate), "path": None if candidate.path is None else candidate.path.name}


def _is_same(old, new):
    if isinstance(old, float) and isinstance(new, float):
        return math.isclose(old, new, rel_tol=1e-4)  # sums of another number of threads
    return old == new


def fingerprint(model: keras.Model) -> str:
    """What tells a model with its weights from others."""
    digest = hashlib.sha256(json.dumps(model.get_config(), sort_keys=True, default=str).encode())
    for weight in model.get_weights():
        digest.update(weight.tobytes())
    return digest.hexdigest()
