"""The point where a Gaussian process expects the most improvement."""

import numpy as np

from keras_opt.core.optional import require
from keras_opt.tuning.encoding import Encoding
from keras_opt.tuning.evidence import Evidence, random_point
from keras_opt.tuning.gaussian_process import GaussianProcess
from keras_opt.tuning.space import Point, is_free

_CANDIDATES = 1024  # random rows, beside which stand those near the best trials
_STARTS, _NEAR, _NEAR_DEVIATION = 8, 16, 0.1
_CLIMB_STEPS = 50
_LEVELS = 16  # of one parameter that a sweep looks at


def gaussian_process_point(evidence: Evidence, initial_points: int = 10) -> Point | None:
    """A new point of high expected improvement; at random while fewer than `initial_points` trials have a score."""
    scored = np.isfinite(evidence.losses)
    if scored.sum() < max(initial_points, 2) or not any(map(is_free, evidence.space)):
        return random_point(evidence)
    encoding = Encoding(evidence.space)
    losses = _modelled_losses(evidence.losses)
    rows = np.array([encoding.row(point) for point in evidence.points])
    process = GaussianProcess(encoding.features(rows), losses)
    tried = rows[np.argsort(losses)]
    for row in _candidates(encoding, process, tried, evidence.generator):
        point = encoding.point(row)
        if evidence.is_new(point):
            return point
    return random_point(evidence)


def _modelled_losses(losses):
    """Losses of which the worse half differs little, and a failed trial counts as the worst one.

    How bad a bad one is does not matter, and one of 1e30 would hide all others: what is above the median is squeezed
    into its distance d from the best, as median + d x / (1 + x) with x = (loss - median) / d. Where more than half
    are the best, d is the distance of the worst.
    """
    losses = losses / (np.nanmax(np.abs(losses)) or 1.0)  # the difference of two of the largest floats is none
    scored = losses[np.isfinite(losses)]
    best, median, worst = scored.min(), np.median(scored), scored.max()
    losses = np.where(np.isfinite(losses), losses, worst)
    distance = (median - best) or (worst - best)
    above = np.maximum(losses - median, 0.0) / (distance or 1.0)
    return np.minimum(losses, median) + distance * above / (1.0 + above)


def _candidates(encoding, process, tried, generator):
    """Rows, those of the highest expected improvement first."""
    width = tried.shape[1]
    near = np.repeat(tried[:_STARTS], _NEAR, 0)
    near = np.clip(near + generator.normal(0.0, _NEAR_DEVIATION, near.shape), 0.0, 1.0)
    rows = encoding.snap(np.concatenate([generator.random((_CANDIDATES, width)), near]))
    values = process.log_expected_improvement(encoding.features(rows))
    starts = rows[np.argsort(-values)[:_STARTS]]
    climbed = _sweep(encoding, process, encoding.snap([_climb(encoding, process, row) for row in starts]))
    rows = np.concatenate([climbed, rows])
    values = np.concatenate([process.log_expected_improvement(encoding.features(climbed)), values])
    return rows[np.argsort(-values, kind="stable")]


def _climb(encoding, process, row):
    """From `row` uphill along the numbers, whole ones taken for real."""
    moving = np.flatnonzero(encoding.ordered & encoding.active(row[None])[0])
    if not len(moving):
        return row
    features = encoding.features(row[None])[0]
    where = encoding.feature_columns[moving]

    def loss(x):
        features[where] = x
        value, gradient = process.log_expected_improvement_and_gradient(features)
        return -value, -gradient[where]

    found = require("scipy.optimize").minimize(
        loss,
        row[moving],
        jac=True,
        bounds=[(0.0, 1.0)] * len(moving),
        method="L-BFGS-B",
        options={"maxiter": _CLIMB_STEPS},
    )
    row = row.copy()
    row[moving] = found.x
    return row


def _sweep(encoding, process, rows):
    """Each row with its levels, one parameter after another, where the expected improvement is highest."""
    for column, levels in enumerate(encoding.levels):
        if levels is None or len(levels) == 1:
            continue
        for place, row in enumerate(rows):
            near = levels[np.argsort(np.abs(levels - row[column]))[:_LEVELS]]
            options = np.repeat(row[None], len(near), 0)
            options[:, column] = near
            options = encoding.snap(options)
            values = process.log_expected_improvement(encoding.features(options))
            rows[place] = options[values.argmax()]
    return rows
