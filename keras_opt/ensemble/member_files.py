"""The finished members of an ensemble in a folder, and with which settings they were trained."""

import json
from pathlib import Path
from typing import Any

import keras

from keras_opt.core.errors import InputError
from keras_opt.core.files import write_atomic
from keras_opt.ensemble.class_names import class_names_of
from keras_opt.loading import load_model
from keras_opt.models.labelled_file import save_labelled

_SETTINGS_NAME = "ensemble.json"


class MemberFiles:
    """A folder with `member_0.keras`, ..., each whole or not there.

    Args:
        folder: Is made.
        settings: What JSON can hold. The members of an earlier training are used if it had the same.

    Raises:
        ValueError: The folder has members that were trained with other settings; the message names them.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / _SETTINGS_NAME
        if not path.is_file() or not any(folder.glob("member_*.keras")):
            write_atomic(path, json.dumps(settings, indent=1) + "\n")
            return
        try:
            found = dict(json.loads(path.read_text("utf-8")))
        except (ValueError, TypeError) as error:
            raise InputError(f"train_ensemble: {str(path)!r} cannot be read ({error}). Give another folder.") from error
        changed = [name for name in {**found, **settings} if found.get(name) != settings.get(name)]
        if changed:
            name = changed[0]
            raise InputError(
                f"train_ensemble: the members in {str(folder)!r} were trained with other settings: {name} was "
                f"{found.get(name)!r} and is {settings.get(name)!r}. Give another folder, or the same settings."
            )

    def path(self, member: int) -> Path:
        """Where a finished member is."""
        return self.folder / f"member_{member}.keras"

    def has(self, member: int) -> bool:
        """Whether it is finished."""
        return self.path(member).is_file()

    def load(self, member: int) -> keras.Model:
        """A finished member, compiled.

        Raises:
            ValueError: Its file is damaged, or holds a class that is not known here.
        """
        try:
            return load_model(self.path(member))
        except InputError as error:
            raise InputError(
                f"train_ensemble: the member in {str(self.path(member))!r} cannot be loaded. {error} Delete it, and "
                "the same call trains it again."
            ) from error


def save_member(model: keras.Model, path: Path) -> None:
    """Save a finished member whole or not at all."""
    save_labelled(model, path, class_names_of(model))
