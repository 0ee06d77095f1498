"""A `.keras` file that carries its class names, and still opens in plain Keras."""

import json
import os
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import keras

from keras_opt.core.errors import InputError
from keras_opt.core.files import atomic_path

# The member of a .keras archive that Keras writes about the file and does not need to read it.
_METADATA = "metadata.json"


def save_labelled(model: keras.Model, path: str | os.PathLike, class_names: Sequence[str]) -> None:
    """Save `model` with `class_names` as `keras_opt.class_names` in the archive's `metadata.json`."""
    with atomic_path(path) as temporary:
        model.save(temporary)
        _add_class_names(temporary, class_names)


# What the zip reader raises for a damaged file: an offset before the file, a flag of another kind of archive.
_READ_ERRORS = (zipfile.BadZipFile, zlib.error, KeyError, ValueError, OSError, RuntimeError)


def read_class_names(path: str | os.PathLike) -> tuple[str, ...]:
    """The class names in a `.keras` file; empty where it carries none.

    Raises:
        ValueError: The file is missing, or is no `.keras` archive.
    """
    if not Path(path).is_file():
        raise InputError(f"Model file {str(path)!r} is not there, or is a folder. Give the path of a .keras file.")
    try:
        with zipfile.ZipFile(path) as archive:
            facts = json.loads(archive.read(_METADATA))
    except _READ_ERRORS as error:
        raise InputError(
            f"{str(path)!r} is no .keras file ({error}). Give a file that model.save('name.keras') wrote."
        ) from error
    return tuple(facts.get("keras_opt", {}).get("class_names", ()))


def _add_class_names(path: Path, class_names: Sequence[str]) -> None:
    with zipfile.ZipFile(path) as archive:
        members = [(member, archive.read(member)) for member in archive.infolist()]
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in members:
            if member.filename == _METADATA:
                facts = {**json.loads(content), "keras_opt": {"class_names": list(class_names)}}
                content = json.dumps(facts).encode()
            archive.writestr(member, content)
