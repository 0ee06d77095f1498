"""Which weights stay: the formulas, in NumPy, for each structure and scope."""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_opt.compression.pruning.matrix import KernelMatrix
from keras_opt.core.errors import argument_error


@dataclass(frozen=True)
class Blocks:
    """Tiles of `rows` x `columns` weights of a matrix that stay or go as one, by the sum of their magnitudes.

    Single weights are blocks of 1 x 1.
    """

    rows: int
    columns: int

    @property
    def final_sparsity(self) -> None:
        """Any sparsity will do."""
        return None

    def divides(self, matrix: KernelMatrix) -> bool:
        """Whether tiles cover the matrix, and none of them spans two of its parts."""
        return matrix.rows % self.rows == 0 and matrix.columns // matrix.parts % self.columns == 0

    def scores(self, weights: np.ndarray, kept: np.ndarray) -> np.ndarray:
        """How much each tile counts; -1 if all of it was dropped before."""
        sizes, is_kept = np.abs(weights), kept != 0
        if self.rows * self.columns > 1:
            sizes = self._tiles(sizes).sum(axis=1, dtype=np.float64).sum(axis=2)
            is_kept = self._tiles(is_kept).any(axis=1).any(axis=2)
        return np.where(is_kept, sizes, -1)

    def spread(self, units: np.ndarray) -> np.ndarray:
        """A matrix in which each weight has the value of its tile."""
        rows, columns = units.shape
        tiles = np.broadcast_to(units[:, None, :, None], (rows, self.rows, columns, self.columns))
        return tiles.reshape(rows * self.rows, columns * self.columns)

    def _tiles(self, matrix: np.ndarray) -> np.ndarray:
        rows, columns = matrix.shape
        return matrix.reshape(rows // self.rows, self.rows, columns // self.columns, self.columns)


@dataclass(frozen=True)
class Pattern:
    """At most `n` of `m` weights stay of each group of consecutive rows in a column, those of the largest magnitude."""

    n: int
    m: int

    @property
    def final_sparsity(self) -> float:
        """That of the whole pattern; on the way to it, the smallest of the weights that it will drop go first."""
        return 1 - self.n / self.m

    def divides(self, matrix: KernelMatrix) -> bool:
        """Whether groups cover the rows, and none of them spans two runs."""
        return matrix.run % self.m == 0

    def scores(self, weights: np.ndarray, kept: np.ndarray) -> np.ndarray:
        """The magnitudes; -1 of what was dropped before, infinite for those that the pattern lets stay."""
        sizes = np.abs(weights)
        sizes[kept == 0] = -1
        groups = sizes.reshape(-1, self.m, weights.shape[1])
        rank = np.zeros(groups.shape, np.intp)
        for first, second in itertools.combinations(range(self.m), 2):  # a sort of so few is slower
            is_ordered = groups[:, first] <= groups[:, second]
            rank[:, second] += is_ordered
            rank[:, first] += ~is_ordered
        groups[rank >= self.m - self.n] = np.inf
        return groups.reshape(weights.shape)

    def spread(self, units: np.ndarray) -> np.ndarray:
        """`units`, each of which is a weight."""
        return units


UNSTRUCTURED = Blocks(1, 1)


def structure_of(owner: str, value: Any) -> Blocks | Pattern:
    """What the argument `structure` of `owner` stands for."""
    if value == "unstructured":
        return UNSTRUCTURED
    match = re.fullmatch(r"([1-9]\d*):([1-9]\d*)", value) if isinstance(value, str) else None
    if match is not None and int(match[1]) < int(match[2]):
        return Pattern(int(match[1]), int(match[2]))
    if isinstance(value, tuple | list) and len(value) == 2 and all(type(size) is int and size > 0 for size in value):
        return Blocks(*value)
    must_be = '"unstructured", "n:m" with 0 < n < m, or (block_rows, block_columns)'
    raise argument_error(owner, "structure", value, must_be, 'Give for example "2:4" or (4, 4).')


def renewed_masks(
    weights: Sequence[np.ndarray],
    kept: Sequence[np.ndarray],
    target: float,
    structure: Blocks | Pattern = UNSTRUCTURED,
    scope: str = "layer",
    regrow: bool = False,
) -> list[np.ndarray]:
    """Masks that drop the round(target * n) lowest of n units; of equals, those that come first.

    A unit is a weight, or a block of them.

    Args:
        weights: One matrix (in, out) a kernel.
        kept: The masks until now: 0 where a weight was dropped, which goes before all others.
        target: Fraction in [0, 1], at most `structure.final_sparsity` if there is one. If more was dropped before, it
            stays so.
        structure: What may stay of a matrix.
        scope: `"layer"` ranks each matrix by itself, `"global"` all of them together.
        regrow: Whether all weights are ranked by their magnitude, those too that were dropped.
    """
    if scope == "global":
        return _ranked_together(weights, kept, target, structure, regrow)
    pairs = zip(weights, kept, strict=True)
    return [_ranked_together([matrix], [mask], target, structure, regrow)[0] for matrix, mask in pairs]


def _ranked_together(
    weights: Sequence[np.ndarray],
    kept: Sequence[np.ndarray],
    target: float,
    structure: Blocks | Pattern,
    regrow: bool,
) -> list[np.ndarray]:
    scores = [structure.scores(matrix, mask) for matrix, mask in zip(weights, kept, strict=True)]
    count = round(target * sum(score.size for score in scores))
    if regrow:
        count = max(count, sum(int(np.sum(score == -1)) for score in scores))
        scores = [structure.scores(matrix, np.ones_like(matrix)) for matrix in weights]
    dropped = _lowest(np.concatenate([score.ravel() for score in scores]), count)
    masks, start = [], 0
    for score, mask in zip(scores, kept, strict=True):
        stays = structure.spread(~dropped[start : start + score.size].reshape(score.shape))
        masks.append(stays.astype(mask.dtype) if regrow else mask * stays)
        start += score.size
    return masks


def _lowest(scores: np.ndarray, count: int) -> np.ndarray:
    """Where the `count` lowest of `scores` are, as a stable sort finds them, in linear time."""
    if count == 0:
        return np.zeros(scores.size, bool)
    highest = np.partition(scores, count - 1)[count - 1]
    lowest = scores < highest
    lowest[np.flatnonzero(scores == highest)[: count - np.count_nonzero(lowest)]] = True
    return lowest
