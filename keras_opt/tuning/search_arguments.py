"""The arguments that every search takes, checked before anything is read or built."""

from collections.abc import Mapping
from typing import Any

from keras_opt.core.errors import argument_error, check_at_least, check_path, did_you_mean, kind_error
from keras_opt.core.optional import require

keras_tuner = require("keras_tuner")

_KEYWORDS = (
    "directory",
    "project_name",
    "overwrite",
    "executions_per_trial",
    "max_model_size",
    "optimizer",
    "loss",
    "metrics",
    "distribution_strategy",
    "logger",
    "tuner_id",
)


def check_search_arguments(owner: str, book: Mapping[str, Any], keywords: Mapping[str, Any]) -> None:
    """Raise unless the arguments of the oracle (`book`) and those that go on to keras-tuner's Tuner are sound."""
    for name in ("max_trials", "max_consecutive_failed_trials"):
        if book.get(name) is not None:
            check_at_least(owner, name, book[name], 1)
    for name in ("seed", "max_retries_per_trial"):
        if book.get(name) is not None:
            check_at_least(owner, name, book[name], 0)
    space = book.get("hyperparameters")
    if space is not None and not isinstance(space, keras_tuner.HyperParameters):
        cure = "Give keras_tuner.HyperParameters(), with the parameters that it was asked for."
        raise kind_error(owner, "hyperparameters", space, "a keras_tuner.HyperParameters or None", cure)
    _check_objective(owner, book.get("objective"))
    if keywords.get("directory") is not None:
        check_path(owner, "directory", keywords["directory"])
    for name in keywords:
        if name not in _KEYWORDS:
            raise TypeError(f"{owner}: there is no argument `{name}`. {did_you_mean(name, _KEYWORDS)}")
    if "executions_per_trial" in keywords:
        check_at_least(owner, "executions_per_trial", keywords["executions_per_trial"], 1)


def check_hypermodel(owner: str, value: object, is_needed: bool) -> None:
    """Raise unless `value` can build models, or is `None` and not needed."""
    if isinstance(value, keras_tuner.HyperModel) or callable(value) or (value is None and not is_needed):
        return
    must_be = "a function of HyperParameters that gives a compiled model, or a HyperModel"
    raise kind_error(owner, "hypermodel", value, must_be, "Give one, or override `run_trial` in a subclass.")


def _check_objective(owner, value):
    several = value if isinstance(value, list) and value else [value]
    for each in several:
        if isinstance(each, str) and each:
            _check_direction(owner, value, each)
        elif not isinstance(each, keras_tuner.Objective) and (each is not None or value is not None):
            must_be = "the name of a metric, a keras_tuner.Objective, a list of these or None"
            raise kind_error(owner, "objective", value, must_be, 'Give for example "val_accuracy".')


def _check_direction(owner, value, name):
    if require("keras_tuner.engine.metrics_tracking").infer_metric_direction(name) is None:
        cure = f'Give keras_tuner.Objective({name!r}, "max"), or "min".'
        raise argument_error(owner, "objective", value, "a metric of which Keras knows whether more is better", cure)
