"""What a trial measured, from whatever it returned."""

import math
import numbers
from collections.abc import Iterable, Mapping
from typing import Any

import keras
import numpy as np

from keras_opt.core.errors import did_you_mean
from keras_opt.core.optional import require

_errors = require("keras_tuner.errors")


def trial_metrics(results: Any, objective: Any, source: str) -> tuple[dict[str, float], int]:
    """The metrics of a trial, the objective among them, and the epoch they are of.

    A History counts by its best epoch, a list by the mean of its members, a metric of a number a class by their mean.

    Args:
        results: A number, a dict of metrics, a History, or a list of these, one an execution.
        objective: keras-tuner's.
        source: What returned `results`, for the errors.

    Raises:
        FatalTypeError: `results` is nothing of the kind.
        FatalValueError: The objective is not among the names that were reported.
    """
    if isinstance(results, list | tuple) and results:
        each = [trial_metrics(result, objective, source) for result in results]
        names = set.intersection(*(set(metrics) for metrics, _ in each))
        mean = {name: float(np.mean([metrics[name] for metrics, _ in each])) for name in sorted(names)}
        return mean, int(np.mean([epoch for _, epoch in each]))
    if isinstance(results, numbers.Real) and not isinstance(results, bool):
        return {objective.name: float(results)}, 0
    if isinstance(results, keras.callbacks.History):
        return _best_epoch(results.history, objective, source)
    if isinstance(results, Mapping):
        return _with_objective(dict(results), objective, source), 0
    raise _errors.FatalTypeError(
        f"{source} must return a number, a dict of metrics, a History or a list of these. Received: {results!r} of "
        f"type {type(results).__name__}."
    )


def _best_epoch(history, objective, source):
    if not any(history.values()):
        raise _errors.FatalValueError(f"{source} returned a History of no epoch, so `{objective.name}` has no value.")
    _check_reported(history, objective, source)
    count = min(len(history[name]) for name in _names(objective, history))
    # With `validation_freq` other lists are longer, of epochs in which the objective has no value.
    reported = {name: values for name, values in history.items() if len(values) == count}
    epochs = [dict(zip(reported, values, strict=True)) for values in zip(*reported.values(), strict=True)]
    epochs = [_with_objective(metrics, objective, source) for metrics in epochs]
    sign = -1.0 if objective.direction == "max" else 1.0
    losses = [sign * metrics[objective.name] for metrics in epochs]
    finite = [place for place, loss in enumerate(losses) if math.isfinite(loss)]
    best = min(finite, key=losses.__getitem__, default=len(losses) - 1)
    return epochs[best], best


def _with_objective(metrics, objective, source):
    """The metrics with the objective, which for several is their sum, those to maximise subtracted."""
    _check_reported(metrics, objective, source)
    metrics = as_numbers(metrics)
    return metrics if objective.name in metrics else {**metrics, objective.name: objective.get_value(metrics)}


def as_numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The metrics, the mean of those that are arrays: keras.metrics.F1Score gives a number a class."""
    return {name: float(np.mean(value)) for name, value in metrics.items()}


def _check_reported(metrics, objective, source):
    missing = [name for name in _names(objective, metrics) if name not in metrics]
    if missing:
        raise _errors.FatalValueError(missing_objective(missing[0], metrics, source))


def _names(objective, metrics):
    """Of the metrics that the objective is made of."""
    several = () if objective.name in metrics else getattr(objective, "name_to_direction", ())
    return list(several) or [objective.name]


def missing_objective(name: str, seen: Iterable[str], source: str) -> str:
    """Why an objective has no value, and how to mend it."""
    if name == "default_objective":
        cure = "Give the search an `objective`, or return a single number to minimise."
    elif name.startswith("val_") and not any(each.startswith("val_") for each in seen):
        cure = "Give `search` a `validation_data`: no validation metric was reported."
    else:
        cure = did_you_mean(name, seen)
    return f"The objective {name!r} was not reported by {source}, which gave: {', '.join(seen) or 'nothing'}. {cure}"
