"""The point that keras-tuner's own Bayesian oracle proposes."""

import warnings

import numpy as np

from keras_opt.core.optional import require
from keras_opt.tuning.evidence import Evidence, random_point
from keras_opt.tuning.space import Point, is_active, nearest

keras_tuner = require("keras_tuner")
Trial = require("keras_tuner.engine.trial").Trial


def keras_tuner_point(
    evidence: Evidence, initial_points: int | None = None, alpha: float = 1e-4, beta: float = 2.6
) -> Point | None:
    """The point of keras-tuner's oracle where it is new, and a random one where that repeats itself."""
    space = keras_tuner.HyperParameters()
    space.merge(list(evidence.space))
    oracle = require("keras_tuner.oracles").BayesianOptimizationOracle(
        keras_tuner.Objective("loss", "min"),
        num_initial_points=initial_points,
        alpha=alpha,
        beta=beta,
        seed=1 + int(evidence.generator.integers(2**31)),
        hyperparameters=space,
    )
    for number, (point, loss) in enumerate(zip(evidence.points, evidence.losses, strict=True)):
        values = space.copy()
        values.values = _allowed(space, point)
        trial = Trial(values, str(number), "COMPLETED" if np.isfinite(loss) else "FAILED")
        trial.score = float(loss)
        oracle.trials[trial.trial_id] = trial
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        point = oracle.populate_space(str(len(evidence.points)))["values"]
    if point is None:
        return random_point(evidence)
    point = _allowed(space, point)
    return point if evidence.is_new(point) else random_point(evidence)


def _allowed(space, point):
    """The point with values that its parameters can take."""
    active = [each for each in space.space if is_active(each, point) and each.name in point]
    return {each.name: nearest(each, point[each.name]) for each in active}
