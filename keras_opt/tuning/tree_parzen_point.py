"""The point that Optuna's tree-structured Parzen estimator proposes."""

import math
from typing import Any

from keras_opt.core.optional import require
from keras_opt.tuning.evidence import Evidence, random_point
from keras_opt.tuning.optuna_parts import make_sampler
from keras_opt.tuning.optuna_space import drawn_from, fill_point
from keras_opt.tuning.space import Point
from keras_opt.tuning.trial_store import quiet_optuna

_REPEATS = 10


def tree_parzen_point(evidence: Evidence, initial_points: int = 10) -> Point | None:
    """A new point, proposed from the trials so far; at random where the estimator only repeats itself.

    And while fewer than `initial_points` trials have a score.
    """
    optuna = require("optuna")
    with quiet_optuna():
        sampler = make_sampler("tpe", int(evidence.generator.integers(2**31)), initial_points)
        study = optuna.create_study(sampler=sampler)
        study.add_trials([_frozen(evidence, *each) for each in zip(evidence.points, evidence.losses, strict=True)])
        for _ in range(_REPEATS):
            trial = study.ask()
            point = fill_point(evidence.space, lambda name, distribution: _suggest(trial, name, distribution))  # noqa: B023
            if evidence.is_new(point):
                return point
    return random_point(evidence)


def _frozen(evidence, point, loss):
    optuna = require("optuna")
    drawn = drawn_from(evidence.space, point)
    states = optuna.trial.TrialState
    return optuna.trial.create_trial(
        state=states.COMPLETE if math.isfinite(loss) else states.FAIL,
        value=float(loss) if math.isfinite(loss) else None,
        params={name: value for name, (value, _) in drawn.items()},
        distributions={name: distribution for name, (_, distribution) in drawn.items()},
    )


def _suggest(trial: Any, name: str, distribution: Any) -> Any:
    if hasattr(distribution, "choices"):
        return trial.suggest_categorical(name, distribution.choices)
    suggest = trial.suggest_int if isinstance(distribution.low, int) else trial.suggest_float
    return suggest(name, distribution.low, distribution.high, step=distribution.step, log=distribution.log)
