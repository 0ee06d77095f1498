"""Files of weights: those that a ModelCheckpoint has left in a folder, and what weights are in a file."""

import contextlib
import json
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from keras_opt.callbacks.checkpoint_files import INDEX_NAME
from keras_opt.core.errors import InputError
from keras_opt.core.optional import require

SUFFIXES = (".keras", ".weights.h5")
_WEIGHTS_IN_ARCHIVE = "model.weights.h5"
_LAYER_NUMBER = re.compile(r"_\d+$")


def checkpoint_files(owner: str, folder: Path) -> list[Path]:
    """The files that the index of `folder` names, in the order they were saved.

    Raises:
        ValueError: There is no index of `keras_opt.callbacks.ModelCheckpoint`, or it names none, or those of several
            trainings.
    """
    path = folder / INDEX_NAME
    try:
        index = json.loads(path.read_text("utf-8"))
        names = {pattern: [each["file"] for each in entry["files"]] for pattern, entry in index.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(
            f"{owner}: the folder {str(folder)!r} has no {INDEX_NAME} of keras_opt.callbacks.ModelCheckpoint "
            f"({error}). Give a list of files."
        ) from error
    filled = [pattern for pattern, files in names.items() if files]
    if len(filled) != 1:
        found = ", ".join(map(repr, filled)) or "nothing"
        raise InputError(
            f"{owner}: the folder {str(folder)!r} must have the files of one ModelCheckpoint; {INDEX_NAME} names those "
            f"of {found}. Give a list of files."
        )
    return [folder / each for each in names[filled[0]]]


@contextlib.contextmanager
def weights_file(path: Path) -> Iterator[Path]:
    """The file of weights in a `.keras` file, as one of its own while it lasts; a `.weights.h5` file is one itself.

    Keras reads an archive through Python, which takes ten times as long and twice the memory of a variable more.
    """
    if path.suffix != ".keras":
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        extracted = Path(folder) / _WEIGHTS_IN_ARCHIVE
        with (
            zipfile.ZipFile(path) as archive,
            archive.open(_WEIGHTS_IN_ARCHIVE) as member,
            extracted.open("wb") as file,
        ):
            shutil.copyfileobj(member, file)
        yield extracted


def weights_in_file(path: Path) -> dict[str, tuple[str, tuple[int, ...], str]]:
    """By its place in the file, each variable of the model: the name of its layer, its shape and dtype.

    Names that Keras has numbered by itself, as `dense_1`, are told by the place, which has the same word; or, where
    that is an attribute of a layer, lose their number.
    """
    h5py = require("h5py")
    with weights_file(path) as own, h5py.File(own) as file:
        return dict(_variables(h5py, file))


def _variables(h5py: Any, file: Any) -> Iterator[tuple[str, tuple[str, tuple[int, ...], str]]]:
    groups = []
    file.visititems(lambda name, entry: groups.append((name, entry)) if name.split("/")[-1] == "vars" else None)
    for name, group in groups:
        place = name.removesuffix("/vars")
        if place == "optimizer" or place.startswith("optimizer/") or place.endswith("seed_generator"):
            continue
        layer = _name_at(place, str(group.attrs.get("name", "")))
        for key, variable in group.items():
            if isinstance(variable, h5py.Dataset):
                yield f"{place}/{key}", (layer, variable.shape, str(variable.dtype))


def _name_at(place: str, layer: str) -> str:
    container, _, word = place.rpartition("/")
    plain = _LAYER_NUMBER.sub("", layer)
    if plain == _LAYER_NUMBER.sub("", word):
        return ""
    return f"of layer {layer if container.endswith('layers') else plain!r}"
