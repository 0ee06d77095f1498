"""What a search knows when it chooses its next point."""

import itertools
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field

import numpy as np

from keras_opt.tuning.space import Point, Space, all_values, draw, fingerprint, key, points, value_at

_DRAWS = 100
_LISTED = 10_000


@dataclass(frozen=True)
class Evidence:
    """The points that were tried, and how they did.

    Args:
        space: The parameters, parents before children.
        points: Those whose trial ended.
        losses: Their scores, lower is better; NaN where the trial failed.
        running: The points of the trials in hand.
        generator: The same for the same seed and number of trials.
    """

    space: Space
    points: list[Point]
    losses: np.ndarray
    running: list[Point]
    generator: np.random.Generator
    tried: Collection[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tried", frozenset(map(self._key, [*self.points, *self.running])))

    def is_new(self, point: Point) -> bool:
        """Whether no trial had this point."""
        return self._key(point) not in self.tried

    def _key(self, point):
        return fingerprint(self.space, point)


# Chooses the next point; `None` ends the search: no point is left.
Proposer = Callable[[Evidence], Point | None]


def random_point(evidence: Evidence) -> Point | None:
    """A point that was not tried, at random."""
    for _ in range(_DRAWS):
        point = draw(evidence.space, evidence.generator)
        if evidence.is_new(point):
            return point
    # So many repeats mean that few points are left, if any.
    left = untried(evidence)
    return left[evidence.generator.integers(len(left))] if left else None


def untried(evidence: Evidence) -> list[Point]:
    """The points that were not tried, at most ten thousand of them; of each continuum one value, at random."""
    values = {}
    for parameter in evidence.space:
        known = all_values(parameter)
        values[key(parameter)] = [value_at(parameter, evidence.generator.random())] if known is None else known
    new = filter(evidence.is_new, points(evidence.space, values))
    return list(itertools.islice(new, _LISTED))


def grid_point(evidence: Evidence) -> Point | None:
    """The first point of the grid that was not tried."""
    return next(filter(evidence.is_new, grid(evidence.space)), None)


def grid(space: Space) -> Iterator[Point]:
    """The points of a grid: the defaults first, then the last parameter fastest.

    A continuum counts as keras-tuner's ten values and its default.
    """
    values = {}
    for parameter in space:
        default = parameter.default
        values[key(parameter)] = [default, *(value for value in _grid_values(parameter) if value != default)]
    return points(space, values)


def _grid_values(parameter):
    if getattr(parameter, "step", 1) is None:
        return sorted(parameter.values)
    return all_values(parameter)
