"""Points of a keras-tuner space: which parameters are active, which values they can take, all points of a finite one.

A space is a list of keras-tuner's hyperparameters, parents before children; a point is a dict of the active values.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from keras_opt.core.optional import require

_parameters = require("keras_tuner.engine.hyperparameters")

Space = Sequence[Any]
Point = dict[str, Any]

# The keys under which keras-tuner's Hyperband keeps its own book among the values of a trial.
BOOK_PREFIX = "tuner/"


def is_active(parameter: Any, point: Mapping[str, Any]) -> bool:
    """Whether the values of its parents make it part of the point."""
    return all(condition.is_active(point) for condition in parameter.conditions)


def all_values(parameter: Any) -> list[Any] | None:
    """Every value it can take, in order; `None` where they are a continuum."""
    if isinstance(parameter, _parameters.Boolean):
        return [False, True]
    if isinstance(parameter, _parameters.Choice | _parameters.Fixed):
        return list(parameter.values)
    if parameter.min_value == parameter.max_value:
        return [parameter.min_value]
    if parameter.step is not None:
        return list(parameter.values)
    if isinstance(parameter, _parameters.Int):
        return list(range(parameter.min_value, parameter.max_value + 1))
    return None


def is_free(parameter: Any) -> bool:
    """Whether it has more than one value."""
    values = all_values(parameter)
    return values is None or len(values) > 1


def draw(space: Space, generator: np.random.Generator) -> Point:
    """A random point, each parameter by its own sampling."""
    point: Point = {}
    for parameter in space:
        place = float(generator.random())  # drawn for inactive ones too: a point moves only where its parents do
        if is_active(parameter, point):
            point[parameter.name] = parameter.prob_to_value(place)
    return point


def points(space: Space, values: Mapping[str, Sequence[Any]]) -> Iterator[Point]:
    """All points, the last parameter varying fastest; `values` holds those of each parameter, by `key`."""
    yield from _points(list(space), values, {})


def _points(space, values, point):
    if not space:
        yield dict(point)
        return
    parameter, *rest = space
    if not is_active(parameter, point):
        yield from _points(rest, values, point)
        return
    for value in values[key(parameter)]:
        yield from _points(rest, values, {**point, parameter.name: value})


def key(parameter: Any) -> str:
    """Tells parameters apart, also those of one name under different conditions."""
    return f"{parameter.name} {[condition.get_config() for condition in parameter.conditions]}"


def fingerprint(point: Mapping[str, Any]) -> str:
    """Equal for equal points; blind to what Hyperband keeps among the values."""
    kept = {name: value for name, value in point.items() if not name.startswith(BOOK_PREFIX)}
    return json.dumps(kept, sort_keys=True)


def is_ordered(parameter: Any) -> bool:
    """Whether its values have an order: numbers do, unless the user said otherwise."""
    return getattr(parameter, "ordered", not isinstance(parameter, _parameters.Boolean))


def place(parameter: Any, value: Any) -> float:
    """Where a value stands in [0, 1]: by its sampling in a range, by its rank among choices."""
    if isinstance(parameter, _parameters.Float | _parameters.Int):
        low, high = parameter.min_value, parameter.max_value
        if low == high:
            return 0.0
        if parameter.sampling == "linear":
            return (value - low) / (high - low)
        if parameter.sampling == "log":
            return math.log(value / low) / math.log(high / low)
        return 1.0 - math.log((high + low - value) / low) / math.log(high / low)
    values = all_values(parameter)
    return values.index(value) / max(len(values) - 1, 1)
