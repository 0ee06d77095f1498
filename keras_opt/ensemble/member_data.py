"""What each member of an ensemble is trained on."""

import zlib
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_opt.core.errors import InputError, argument_error, kind_error

VARIATIONS = ("seed", "bootstrap", "fold")


@dataclass(frozen=True)
class MemberData:
    """Arrays, or batches for `vary="seed"`, and which of them a member gets.

    Args:
        data: `(x, y)` or `(x, y, sample_weight)` in arrays, each of which may be a dict or list of them; or batches.
        vary: One of `VARIATIONS`.
        count: The number of members.
        seed: What is drawn depends on it and the member.
    """

    data: Any
    vary: str
    count: int
    seed: int

    def __post_init__(self):
        if not self.is_arrays:
            if not isinstance(self.data, tf.data.Dataset | keras.utils.PyDataset):
                must_be = "(x, y) in NumPy arrays, or a dataset that can be gone through for each member"
                raise kind_error("train_ensemble", "data", self.data, must_be, "Give np.asarray of x and of y.")
            if self.vary != "seed":
                must_be = f"(x, y) in arrays for vary={self.vary!r}"
                cure = 'Of batches no rows can be drawn: give arrays, or vary="seed".'
                raise argument_error("train_ensemble", "data", self.data, must_be, cure)
            return
        lengths = {len(column) for column in keras.tree.flatten(self.data)}
        if len(lengths) != 1 or lengths == {0}:
            raise InputError(
                f"train_ensemble: `data` must have columns of one length. Received: {sorted(lengths)} rows."
            )
        if self.vary == "fold" and not 2 <= self.count <= self.rows:
            must_be = f'from 2 to {self.rows}, the number of rows, for vary="fold"'
            raise argument_error("train_ensemble", "n", self.count, must_be, "A fold is left out by each member.")

    @property
    def is_arrays(self) -> bool:
        """Whether rows can be drawn."""
        columns = keras.tree.flatten(self.data) if isinstance(self.data, tuple) else []
        return len(columns) > 1 and all(isinstance(column, np.ndarray) for column in columns)

    @property
    def rows(self) -> int:
        return len(keras.tree.flatten(self.data)[0])

    def of(self, member: int) -> tuple[tuple[Any, ...], tuple[Any, ...] | None]:
        """The arguments of `fit` that are data, and the rows left out to validate on, for folds."""
        if not self.is_arrays:
            return (self.data,), None
        if self.vary == "seed":
            return self.data, None
        if self.vary == "bootstrap":
            drawn = np.random.default_rng([self.seed, member]).integers(0, self.rows, self.rows)
            return self._taken(drawn), None
        folds = np.array_split(np.random.default_rng(self.seed).permutation(self.rows), self.count)
        rest = np.concatenate([fold for place, fold in enumerate(folds) if place != member])
        return self._taken(rest), self._taken(folds[member])

    def fingerprint(self) -> str:
        """What tells other data from these: their checksum; of batches their kinds."""
        if not self.is_arrays:
            return str(getattr(self.data, "element_spec", type(self.data).__name__))
        checksum = 0
        for column in keras.tree.flatten(self.data):
            column = column.astype(str) if column.dtype.hasobject else column
            checksum = zlib.crc32(np.ascontiguousarray(column).view(np.uint8).reshape(-1), checksum)
        return f"{self.rows} rows, {checksum:08x}"

    def _taken(self, rows: np.ndarray) -> tuple[Any, ...]:
        return keras.tree.map_structure(lambda column: column[rows], self.data)
