"""Nested states, of numbers, texts and arrays, as one file that is whole, damaged or not there."""

import json
import os
import zipfile
from typing import Any

import ml_dtypes
import numpy as np

from keras_opt.core.files import atomic_path

_NATIVE_KINDS = "biufc"
# What the readers raise, by the place of the wrong byte; RuntimeError where the archive seems to be encrypted.
_OF_DAMAGE = (zipfile.BadZipFile, KeyError, ValueError, EOFError, NotImplementedError, OSError, RuntimeError)


class DamagedFile(Exception):
    """The file is not what was written."""


def write_state(path: str | os.PathLike, state: dict[str, Any]) -> None:
    """Write `state` whole or not at all.

    The file is an uncompressed NumPy archive, whose every part bears a checksum: the text of the state as JSON, and its
    arrays. Numbers come back bit for bit, tuples as lists.

    Args:
        path: The file; its folder must be there.
        state: Dicts with text for keys, lists and tuples, of `None`, bool, int, float, str, NumPy scalars and arrays.

    Raises:
        TypeError: Something in `state` is of another kind; the message says where.
        OSError: It could not be written; a file that was there before is as it was.
    """
    arrays: dict[str, np.ndarray] = {}
    text = json.dumps(_pack(state, arrays, "state"))
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, state=np.frombuffer(text.encode(), np.uint8), **arrays)


def check_state(state: Any) -> None:
    """Raise a TypeError that says where, if something in `state` is of a kind that a file cannot hold."""
    _pack(state, {}, "state")


def read_state(path: str | os.PathLike) -> dict[str, Any]:
    """The state that `write_state` wrote.

    Raises:
        DamagedFile: A checksum is wrong, or a part is missing.
        OSError: The file cannot be opened.
    """
    with open(path, "rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                broken = archive.testzip()
            if broken is not None:
                raise DamagedFile(f"the checksum of {broken!r} is wrong")
            file.seek(0)
            with np.load(file, allow_pickle=False) as arrays:
                return _unpack(json.loads(arrays["state"].tobytes()), arrays)
        except _OF_DAMAGE as error:
            raise DamagedFile(str(error)) from error


def _pack(value: Any, arrays: dict[str, np.ndarray], where: str) -> Any:
    """`value` as JSON can hold it; its arrays go into `arrays`, and their names into their places."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_pack(each, arrays, f"{where}[{place}]") for place, each in enumerate(value)]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {"dict": [[key, _pack(each, arrays, f"{where}[{key!r}]")] for key, each in value.items()]}
    if isinstance(value, np.ndarray | np.generic):
        return _pack_array(np.asarray(value), arrays, where)
    raise TypeError(
        f"{where} is a {type(value).__name__}, which a state cannot hold. Use dicts with text for keys, lists, "
        "numbers, texts and NumPy arrays."
    )


def _pack_array(array: np.ndarray, arrays: dict[str, np.ndarray], where: str) -> dict[str, Any]:
    name, kind, shape = f"array_{len(arrays)}", array.dtype.name, list(array.shape)
    if array.dtype.kind not in _NATIVE_KINDS:
        if not hasattr(ml_dtypes, kind):
            raise TypeError(f"{where} is an array of {kind}, which a state cannot hold. Use numbers.")
        array = np.frombuffer(array.tobytes(), np.uint8)  # NumPy's files do not know bfloat16 and its like
    arrays[name] = array
    return {"array": name, "dtype": kind, "shape": shape}


def _unpack(value: Any, arrays: Any) -> Any:
    if isinstance(value, list):
        return [_unpack(each, arrays) for each in value]
    if not isinstance(value, dict):
        return value
    if "dict" in value:
        return {key: _unpack(each, arrays) for key, each in value["dict"]}
    array, kind = arrays[value["array"]], value["dtype"]
    if array.dtype.name != kind:
        array = array.view(getattr(ml_dtypes, kind))
    return array.reshape(value["shape"])
