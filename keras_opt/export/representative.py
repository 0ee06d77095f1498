"""The rows from which an integer file learns the range of each activation."""

import os
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_opt.core.call_stack import users_stacklevel
from keras_opt.core.errors import InputError, argument_error
from keras_opt.data.folder_index import IMAGE_SUFFIXES
from keras_opt.data.image_files import decode_files
from keras_opt.export.names import input_names
from keras_opt.export.pixels import takes_pixels

ROWS = 200
FEW_ROWS = 100


@dataclass(frozen=True, eq=False)
class Representative:
    """At most about 200 rows.

    Args:
        rows: For each input of the model an array of rows, as numbers of any type.
        y: Their targets where the data has them, else `None`.
    """

    rows: list[np.ndarray]
    y: np.ndarray | None


def representative(owner: str, model: keras.Model, data: Any, class_names: Sequence[str] = ()) -> Representative:
    """Read what `representative_data` of `to_tflite` may be, and check it.

    Raises:
        InputError: The rows do not fit the inputs, are no finite numbers, all the same, or scaled already where the
            model takes raw pixels.

    Warns:
        UserWarning: There are fewer than 100 rows, or none of some class.
    """
    reader = _Reader(owner, model)
    found = reader.read(data, class_names)
    for name, rows in zip(reader.names, found.rows, strict=True):
        if rows.dtype.kind not in "uif":
            raise reader.refused(rows.dtype.name, "numbers")
        if damaged := _damaged(rows):
            raise reader.refused(f"NaN or more than float32 holds in {damaged} of {len(rows)} rows", "finite numbers")
        low, high = rows.min(), rows.max()
        if len(reader.names) == 1 and low == high:
            raise reader.refused(f"{low} in every place", "rows that differ")
        if takes_pixels(model, name) and low >= -1 and high <= 1:
            must_be = "raw pixels, 0..255: the model scales them itself by its Rescaling layer"
            raise reader.refused(f"values from {low:g} to {high:g}", must_be)
    if len(found.rows[0]) < FEW_ROWS:
        _warn(
            f"{owner}: representative_data has {len(found.rows[0])} rows; under {FEW_ROWS} the int8 ranges may be too "
            f"narrow. Give {ROWS} if you can."
        )
    missing = _missing_classes(found.y, model)
    if missing:
        listed = ", ".join(class_names[index] if class_names else str(index) for index in missing[:10])
        _warn(f"{owner}: representative_data shows no row of {len(missing)} classes ({listed}). Show it every class.")
    return found


class _Reader:
    """Reads rows for the inputs of one model."""

    def __init__(self, owner, model):
        self.owner = owner
        self.names = input_names(model)
        self.shapes = [tuple(tensor.shape[1:]) for tensor in model.inputs]

    def refused(self, received: object, must_be: str | None = None) -> InputError:
        if must_be is None:
            shapes = [f"(rows, {', '.join(map(str, shape))})" for shape in self.shapes]
            must_be = f"an array of raw inputs of shape {shapes[0]}, rows >= 1"
            if len(shapes) > 1:
                named = ", ".join(f"{name!r} {shape}" for name, shape in zip(self.names, shapes, strict=True))
                must_be = f"a list or dict of arrays of raw inputs, rows >= 1: {named}"
        cure = (
            "Give about 200 training rows as they are before preprocessing: arrays, a tf.data.Dataset or generator of "
            "batches, or a folder of images."
        )
        return argument_error(self.owner, "representative_data", received, must_be, cure)

    def read(self, data: Any, class_names: Sequence[str]) -> Representative:
        if data is None:
            raise self.refused(None)
        if isinstance(data, str | os.PathLike):
            return self._from_path(Path(data), class_names)
        if isinstance(data, tf.data.Dataset):
            return self._from_batches(data.as_numpy_iterator())
        if isinstance(data, Mapping | list | tuple) or hasattr(data, "__array__"):
            return self._from_arrays(data)
        if isinstance(data, Callable):
            data = data()
        if not isinstance(data, Iterable):
            raise self.refused(type(data).__name__)
        return self._from_batches(data)

    def _from_arrays(self, data):
        """Rows spread evenly, chosen before anything else is done to them: the arrays may be larger than memory."""
        columns, y = self._split(data)
        lengths = {len(column) for column in columns}
        if len(lengths) > 1 or 0 in lengths:
            raise self.refused([column.shape for column in columns])
        (count,) = lengths
        chosen = np.linspace(0, count - 1, min(count, ROWS)).round().astype(int)
        return Representative(
            [column[chosen] for column in columns], y[chosen] if y is not None and len(y) == count else None
        )

    def _from_batches(self, batches):
        """The first 200 rows or somewhat more: whole batches."""
        found, count = [], 0
        for item in batches:
            columns, y = self._split(item, one_row_allowed=True)
            if len({len(column) for column in columns}) > 1:
                raise self.refused([column.shape for column in columns])
            found.append((columns, y))
            count += len(columns[0])
            if count >= ROWS:
                break
        if count == 0:
            raise self.refused("no rows")
        rows = [np.concatenate(parts) for parts in zip(*(columns for columns, _ in found), strict=True)]
        targets = [y for _, y in found]
        whole = all(y is not None and len(y) == len(columns[0]) for columns, y in found)
        return Representative(rows, np.concatenate(targets) if whole else None)

    def _split(self, item, one_row_allowed=False):
        """The columns of (x, y, ...) or x, and y where it is one array."""
        x, y = (item[0], item[1]) if isinstance(item, tuple) and len(item) > 1 else (item, None)
        x = x[0] if isinstance(x, tuple) and len(x) == 1 else x
        columns = self._columns(x)
        if one_row_allowed and all(column.shape == shape for column, shape in zip(columns, self.shapes, strict=True)):
            columns, y = [column[np.newaxis] for column in columns], None if y is None else [y]
        for column, shape in zip(columns, self.shapes, strict=True):
            if column.shape[1:] != shape or column.ndim == 0:
                raise self.refused([each.shape for each in columns] if len(columns) > 1 else column.shape)
        if y is None or (isinstance(y, Mapping | list) and not _is_flat(y)):
            return columns, None
        return columns, np.asarray(y)

    def _columns(self, x):
        if isinstance(x, Mapping):
            if set(x) != set(self.names):
                raise self.refused(f"columns {', '.join(map(repr, x))}")
            x = [x[name] for name in self.names]
        elif len(self.names) == 1 and not (isinstance(x, list) and len(x) == 1 and _fits(x[0], self.shapes[0])):
            x = [x]
        elif not isinstance(x, list | tuple) or len(x) != len(self.names):
            raise self.refused(type(x).__name__)
        try:
            return [np.asarray(column) for column in x]
        except ValueError as error:  # rows of several shapes
            raise self.refused(type(x).__name__) from error

    def _from_path(self, path, class_names):
        if not path.exists():
            raise self.refused(str(path), "a folder of images or a NumPy file, or the data itself")
        return self._from_folder(path, class_names) if path.is_dir() else self._from_arrays(self._from_file(path))

    def _from_folder(self, folder, class_names):
        shape = self.shapes[0]
        if len(self.shapes) > 1 or len(shape) != 3 or shape[-1] not in (1, 3):
            raise self.refused(str(folder), f"an .npz file or arrays for inputs of shape {shape}, which is no image")
        paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
        if not paths:
            raise self.refused(str(folder), "a folder that holds images (JPEG, PNG, BMP or GIF)")
        chosen = [paths[position] for position in np.unique(np.linspace(0, len(paths) - 1, ROWS, dtype=int))]
        decoded = decode_files(chosen, shape[:2], shape[2])
        classes = [chosen[position].relative_to(folder).parts[0] for position in decoded.kept]
        known = list(class_names)
        y = np.array([known.index(name) for name in classes]) if set(classes) <= set(known) and known else None
        return Representative([decoded.images], y)

    def _from_file(self, file):
        try:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded
            with loaded:
                return self._members(file, loaded)
        except InputError:
            raise
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            must_be = f"a folder of images or a NumPy file ({error})"
            raise self.refused(str(file), must_be) from error

    def _members(self, file, archive):
        """The inputs of an .npz file: by name, or `x`, or its only array; and `y` where there is one."""
        names = archive.files
        if set(self.names) <= set(names):
            x = {name: archive[name] for name in self.names}
        elif len(self.names) == 1 and ("x" in names or len(names) == 1):
            x = archive["x" if "x" in names else names[0]]
        else:
            wanted = "x" if len(self.names) == 1 else ", ".join(self.names)
            raise self.refused(str(file), f"a file that names its inputs {wanted}, not {', '.join(names)}")
        return (x, archive["y"]) if "y" in names else x


def _damaged(rows):
    """How many rows hold what is no finite float32."""
    with np.errstate(over="ignore"):
        finite = np.isfinite(rows.astype(np.float32)).reshape(len(rows), -1)
    return int((~finite.all(axis=1)).sum())


def _fits(column, shape):
    return np.shape(column)[1:] == shape


def _is_flat(y):
    return isinstance(y, list) and all(np.ndim(each) == 0 or np.shape(each) == np.shape(y[0]) for each in y)


def _missing_classes(y, model):
    """The classes of a one-output classifier that `y` does not show; none where `y` are no classes."""
    if y is None or len(model.outputs) != 1 or len(model.outputs[0].shape) != 2:
        return []
    classes = model.outputs[0].shape[-1]
    if classes > 1 and y.shape[1:] == (classes,) and (np.sort(y, axis=-1)[:, -2:] == (0, 1)).all():
        y = y.argmax(-1)
    if classes < 2 or y.dtype.kind not in "ui" or y.size != len(y) or y.min() < 0 or y.max() >= classes:
        return []
    return sorted(set(range(classes)) - set(y.reshape(-1).tolist()))


def _warn(message):
    warnings.warn(message, stacklevel=users_stacklevel())
