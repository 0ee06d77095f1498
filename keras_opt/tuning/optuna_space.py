"""keras-tuner's parameters as Optuna's distributions."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from keras_opt.core.optional import require
from keras_opt.tuning.space import Point, Space, all_values, can_be, is_active, nearest, value_at

_parameters = require("keras_tuner.engine.hyperparameters")


@dataclass(frozen=True)
class Coordinate:
    """How Optuna sees a parameter.

    Attributes:
        name: That of the parameter, with the conditions under which it is there: one name may have several ranges.
        distribution: Optuna's.
        to_value: From what Optuna draws to the parameter's value.
        to_drawn: And back.
    """

    name: str
    distribution: Any
    to_value: Callable[[Any], Any]
    to_drawn: Callable[[Any], Any]


def fill_point(space: Space, draw: Callable[[str, Any], Any]) -> Point:
    """A point whose values `draw` chooses, by Optuna's name and distribution."""
    point: Point = {}
    for parameter in space:
        if not is_active(parameter, point):
            continue
        if isinstance(parameter, _parameters.Fixed):
            point[parameter.name] = parameter.value
        else:
            coordinate = coordinate_of(parameter)
            point[parameter.name] = coordinate.to_value(draw(coordinate.name, coordinate.distribution))
    return point


def drawn_from(space: Space, point: Point) -> dict[str, tuple[Any, Any]]:
    """Of each active parameter that has a value in `point`, what Optuna would have drawn, and its distribution.

    A value that the parameter cannot take, as a default may be, is left out: Optuna would refuse it.
    """
    active = [
        each for each in space if is_active(each, point) and each.name in point and can_be(each, point[each.name])
    ]
    found = [(coordinate_of(each), point[each.name]) for each in active if not isinstance(each, _parameters.Fixed)]
    return {each.name: (each.to_drawn(value), each.distribution) for each, value in found}


def coordinate_of(parameter: Any) -> Coordinate:
    """The coordinate of a parameter that is not `Fixed`.

    A reversed logarithm, which Optuna has not, is drawn by its place in [0, 1].
    """
    distributions = require("optuna").distributions
    name = parameter.name + "".join(
        f" ({condition.name}={'|'.join(map(str, condition.values))})" for condition in parameter.conditions
    )
    if isinstance(parameter, _parameters.Boolean):
        return _same(name, distributions.CategoricalDistribution([False, True]))
    values = all_values(parameter)
    log, stepped = parameter_sampling(parameter) != "linear", getattr(parameter, "step", None) is not None
    if isinstance(parameter, _parameters.Choice) or (log and stepped):
        return _same(name, distributions.CategoricalDistribution(values))
    if parameter.sampling == "reverse_log":
        unit = distributions.FloatDistribution(0.0, 1.0)
        return Coordinate(name, unit, functools.partial(value_at, parameter), parameter.value_to_prob)
    if isinstance(parameter, _parameters.Int):
        return _same(name, distributions.IntDistribution(values[0], values[-1], log=log, step=parameter.step or 1))
    if stepped:
        distribution = distributions.FloatDistribution(values[0], values[-1], step=parameter.step)
        return Coordinate(name, distribution, functools.partial(nearest, parameter), _identity)
    return _same(name, distributions.FloatDistribution(parameter.min_value, parameter.max_value, log=log))


def parameter_sampling(parameter: Any) -> str:
    """How its values are spread: choices are evenly."""
    return getattr(parameter, "sampling", "linear")


def _same(name: str, distribution: Any) -> Coordinate:
    return Coordinate(name, distribution, _identity, _identity)


def _identity(value: Any) -> Any:
    return value
