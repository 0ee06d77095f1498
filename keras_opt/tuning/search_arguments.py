"""The arguments that every search takes, checked before anything is read or built."""

from collections.abc import Mapping
from dataclasses import InitVar, dataclass
from typing import Any

from keras_opt.callbacks.monitors import resolve_mode
from keras_opt.core.errors import argument_error, check_at_least, check_path, did_you_mean, kind_error
from keras_opt.core.optional import require

keras_tuner = require("keras_tuner")
_direction_of = require("keras_tuner.engine.metrics_tracking").infer_metric_direction

_OF_TUNER = (
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


@dataclass
class OracleArguments:
    """Those of keras-tuner's Oracle, in the order of its tuners, sound or not made.

    Args:
        owner: Whose arguments they are, for the errors.
        objective: Name of a metric, keras-tuner's Objective, a list of these, or `None`. A name is made an Objective,
            with the direction that its words tell: keras-tuner looks for the least `val_f1_score`.
        seed: Of every choice; `None` draws one.
        hyperparameters: The space, or a part of it; is copied.
        tune_new_entries: As keras-tuner's.
        allow_new_entries: As keras-tuner's.
        max_retries_per_trial: How often a trial that crashed runs again.
        max_consecutive_failed_trials: Failures in a row that end the search with an error; `None` for no limit.
        max_trials: Trials at most; `None` for no limit.

    Raises:
        ValueError: One is out of its range.
        TypeError: One is of the wrong kind.
    """

    owner: InitVar[str]
    objective: Any = None
    seed: int | None = None
    hyperparameters: Any = None
    tune_new_entries: bool = True
    allow_new_entries: bool = True
    max_retries_per_trial: int = 0
    max_consecutive_failed_trials: int | None = None
    max_trials: int | None = None

    def __post_init__(self, owner: str) -> None:
        for name in ("max_trials", "max_consecutive_failed_trials"):
            if getattr(self, name) is not None:
                check_at_least(owner, name, getattr(self, name), 1)
        check_at_least(owner, "max_retries_per_trial", self.max_retries_per_trial, 0)
        if self.seed is not None:
            check_at_least(owner, "seed", self.seed, 0)
            self.seed = int(self.seed)  # of NumPy's it would not go into a file
        self.hyperparameters = self._space(owner)
        self.objective = _sound_objective(owner, self.objective)

    def _space(self, owner):
        space = self.hyperparameters
        if space is not None and not isinstance(space, keras_tuner.HyperParameters):
            cure = "Give keras_tuner.HyperParameters(), with the parameters that it was asked for."
            raise kind_error(owner, "hyperparameters", space, "a keras_tuner.HyperParameters or None", cure)
        for name in ("tune_new_entries", "allow_new_entries"):
            if space is None and not getattr(self, name):
                cure = "Give `hyperparameters` too: without them every parameter is a new entry."
                raise argument_error(owner, name, getattr(self, name), "True without `hyperparameters`", cure)
        return space and space.copy()


def check_tuner_arguments(owner: str, keywords: Mapping[str, Any]) -> None:
    """Raise unless the arguments that go on to keras-tuner's Tuner are sound."""
    for name in keywords:
        if name not in _OF_TUNER:
            raise TypeError(f"{owner}: there is no argument `{name}`. {did_you_mean(name, _OF_TUNER)}")
    if keywords.get("directory") is not None:
        check_path(owner, "directory", keywords["directory"])
    if "executions_per_trial" in keywords:
        check_at_least(owner, "executions_per_trial", keywords["executions_per_trial"], 1)


def check_hypermodel(owner: str, value: object, is_needed: bool) -> None:
    """Raise unless `value` can build models, or is `None` and not needed."""
    if isinstance(value, keras_tuner.HyperModel) or callable(value) or (value is None and not is_needed):
        return
    must_be = "a function of HyperParameters that gives a compiled model, or a HyperModel"
    raise kind_error(owner, "hypermodel", value, must_be, "Give one, or override `run_trial` in a subclass.")


def _sound_objective(owner, value):
    if value is None:
        return None
    several = value if isinstance(value, list) and value else [value]
    found = [_one_objective(owner, value, each) for each in several]
    return found if isinstance(value, list) else found[0]


def _one_objective(owner, value, each):
    if isinstance(each, str) and each:
        known = resolve_mode(each, "auto")
        direction = _direction_of(each) if known == "auto" else known
        if direction is None:
            cure = f'Give keras_tuner.Objective({each!r}, "max"), or "min".'
            raise argument_error(owner, "objective", value, "a metric whose name tells if more is better", cure)
        return keras_tuner.Objective(each, direction)
    if not isinstance(each, keras_tuner.Objective):
        must_be = "the name of a metric, a keras_tuner.Objective, a list of these or None"
        raise kind_error(owner, "objective", value, must_be, 'Give for example "val_accuracy".')
    if getattr(each, "objectives", None) is None and each.direction not in ("min", "max"):
        cure = f'Give keras_tuner.Objective({each.name!r}, "max"), or "min".'
        raise argument_error(owner, "objective", str(each), 'an Objective with direction "min" or "max"', cure)
    return each
