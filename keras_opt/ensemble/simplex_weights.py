"""Weights of the members of an ensemble, none negative, sum 1, from their predictions."""

import numpy as np

from keras_opt.core.optional import require

_GAP = 1e-6
_MAX_ITERATIONS = 10_000


def likelihood_weights(likelihoods: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The mixture with the highest likelihood, by expectation maximisation (Dempster et al., 1977).

    With p[r, m] what member m gives to what is true in row r, it maximises mean_r log(sum_m w[m] p[r, m]), which is
    concave, by

        w[m] = w[m] * g[m]        g[m] = mean_r p[r, m] / sum_k w[k] p[r, k]

    where each row counts `counts[r]` times in the mean,

    until max(g) - 1, by which the mean log-likelihood can at most still grow, is 1e-6; or 10,000 times.

    Args:
        likelihoods: (rows, members), of at least 0.
        counts: (rows,), above 0.
    """
    likelihoods = np.maximum(np.asarray(likelihoods, np.float64), np.finfo(np.float32).tiny)
    weights = np.full(likelihoods.shape[1], 1 / likelihoods.shape[1])
    for _ in range(_MAX_ITERATIONS):
        gains = (counts / (likelihoods @ weights)) @ likelihoods / np.sum(counts)
        if gains.max() - 1 <= _GAP:
            break
        weights = weights * gains
    return weights / weights.sum()


def least_squares_weights(predictions: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The mixture with the smallest squared error.

    With e[r, m] the error of member m in row r, scaled to a sum of squares of 1, non-negative least squares finds the v
    that minimises |e v|^2 + (sum(v) - 1)^2. With v = s w and sum(w) = 1, the best s for a given w leaves
    |e w|^2 / (1 + |e w|^2), which grows with |e w|^2; so w = v / sum(v) is the best mixture.

    Args:
        predictions: (rows, members).
        targets: (rows,).
    """
    errors = np.asarray(predictions, np.float64) - np.asarray(targets, np.float64)[:, np.newaxis]
    scale = np.sqrt(np.mean(errors**2) * errors.size)
    if scale == 0:
        return np.full(errors.shape[1], 1 / errors.shape[1])
    triangle = np.linalg.qr(errors / scale, mode="r")
    rows = np.vstack([triangle, np.ones(errors.shape[1])])
    found, _ = require("scipy.optimize").nnls(rows, np.r_[np.zeros(len(triangle)), 1.0])
    return found / found.sum()
