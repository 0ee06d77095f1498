"""Points of a keras-tuner space: which parameters are active, which values they can take, all points of a finite one.

A space is a list of keras-tuner's hyperparameters, parents before children; a point is a dict of the active values.
"""

import functools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np

from keras_opt.core.optional import require

_parameters = require("keras_tuner.engine.hyperparameters")

Space = Sequence[Any]
Point = dict[str, Any]

_ROUNDING = "1e-9"  # by so much of it the end of a range may be missed by a step that is not exact


def is_active(parameter: Any, point: Mapping[str, Any]) -> bool:
    """Whether the values of its parents make it part of the point."""
    return all(condition.is_active(point) for condition in parameter.conditions)


def all_values(parameter: Any) -> Sequence[Any] | None:
    """Every value it can take; `None` where they are a continuum.

    Those of a step are counted in decimals: keras-tuner's own leave out the end of `Float("x", 0.0, 0.5, step=0.1)`,
    and are floats for an Int with `sampling="log"`.
    """
    if isinstance(parameter, _parameters.Boolean):
        return [False, True]
    if isinstance(parameter, _parameters.Choice | _parameters.Fixed):
        return list(parameter.values)
    low, high, step = parameter.min_value, parameter.max_value, parameter.step
    if low == high:
        return [low]
    if isinstance(parameter, _parameters.Int) and (step is None or parameter.sampling == "linear"):
        return range(low, high + 1, step or 1)
    return None if step is None else _steps(low, high, step, parameter.sampling)


@functools.lru_cache(typed=True)
def _steps(low, high, step, sampling):
    """The values of a step, which is a factor where the sampling is by ratios, counted from above where reversed."""
    first, last, by = (Decimal(str(number)) for number in (low, high, step))
    kept = (last - first if sampling == "linear" else last / first) * (1 + Decimal(_ROUNDING))
    if sampling == "linear":
        found = [first + number * by for number in range(int(kept / by) + 1)]
    else:
        found = [first * by**number for number in range(int(kept.ln() / by.ln()) + 1)]
    if sampling == "reverse_log":
        found = [last + first - value for value in found]
    return [type(low)(min(max(value, first), last)) for value in found]


def is_free(parameter: Any) -> bool:
    """Whether it has more than one value."""
    values = all_values(parameter)
    return values is None or len(values) > 1


def can_be(parameter: Any, value: Any) -> bool:
    """Whether it is one of its values; a default need not be."""
    values = all_values(parameter)
    return parameter.min_value <= value <= parameter.max_value if values is None else value in values


def nearest(parameter: Any, value: Any) -> Any:
    """The value that it can take nearest to a number: 0.30000000000000004, as others count a step, is 0.3."""
    if not hasattr(parameter, "min_value"):
        return value
    values = all_values(parameter)
    if values is None or isinstance(values, range):
        return min(max(value, parameter.min_value), parameter.max_value)
    return min(values, key=lambda each: abs(each - value))


def value_at(parameter: Any, place: float) -> Any:
    """Its value at a place in [0, 1], by its sampling; keras-tuner's, but for the end of a step and of rounding."""
    values = all_values(parameter)
    if values is not None and getattr(parameter, "step", 1) is not None:
        return values[min(int(place * len(values)), len(values) - 1)]
    return min(max(parameter.prob_to_value(place), parameter.min_value), parameter.max_value)


def draw(space: Space, generator: np.random.Generator) -> Point:
    """A random point, each parameter by its own sampling."""
    point: Point = {}
    for parameter in space:
        place = float(generator.random())  # drawn for inactive ones too: a point moves only where its parents do
        if is_active(parameter, point):
            point[parameter.name] = value_at(parameter, place)
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


def fingerprint(space: Space, point: Mapping[str, Any]) -> str:
    """Equal for points that are equal in what is searched: a trial may have more, such as a default or its epochs."""
    names = {parameter.name for parameter in space}
    return json.dumps({name: value for name, value in point.items() if name in names}, sort_keys=True)


def other_ranges(space: Space, other: Space) -> Iterator[tuple[Any, Any]]:
    """The parameters of both that have another range in `other`, as they are in each."""
    theirs = {key(parameter): parameter for parameter in other}
    pairs = [(each, theirs[key(each)]) for each in space if key(each) in theirs]
    return ((one, another) for one, another in pairs if _range(one) != _range(another))


def _range(parameter):
    config = parameter.get_config()
    return type(parameter), {name: value for name, value in config.items() if name not in ("default", "conditions")}


def is_ordered(parameter: Any) -> bool:
    """Whether its values have an order: numbers do, unless the user said otherwise."""
    return getattr(parameter, "ordered", not isinstance(parameter, _parameters.Boolean))


def place(parameter: Any, value: Any) -> float:
    """Where a value stands in [0, 1]: by its sampling in a range, by its rank among choices."""
    if isinstance(parameter, _parameters.Float | _parameters.Int):
        low, high = parameter.min_value, parameter.max_value
        value = min(max(value, low), high)  # a default may be outside
        if low == high:
            return 0.0
        if parameter.sampling == "linear":
            return (value - low) / (high - low)
        if parameter.sampling == "log":
            return math.log(value / low) / math.log(high / low)
        return 1.0 - math.log((high + low - value) / low) / math.log(high / low)
    values = all_values(parameter)
    return values.index(value) / max(len(values) - 1, 1)
