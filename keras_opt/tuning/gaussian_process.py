"""A Gaussian process that predicts the loss of points, and the expected improvement by it."""

import math
import warnings

import numpy as np

from keras_opt.core.optional import require

_LENGTHS, _NOISE, _SCALE = (1e-2, 1e2), (1e-6, 1.0), (1e-2, 1e2)
_LENGTH, _SPREAD = 0.5, 0.8  # of the prior of the lengths: its median, and the deviation of the logarithm
_FIT_STEPS, _FIT_TRIALS = 60, 64
_SQRT5 = math.sqrt(5.0)


class GaussianProcess:
    """scikit-learn's regressor with a Matern 5/2 kernel, one length scale a column, and noise.

    k(x, x') = scale (1 + sqrt(5) r + 5 r^2 / 3) exp(-sqrt(5) r), r^2 = sum over j of (x_j - x'_j)^2 / length_j^2

    Its parameters are those of the highest posterior: with few trials the likelihood alone takes some columns for
    irrelevant that are not.

    Args:
        x: Features, of shape (trials, columns).
        y: Losses, of shape (trials,); are standardised.
    """

    def __init__(self, x: np.ndarray, y: np.ndarray):
        self.shift, self.unit = float(np.mean(y)), float(np.std(y)) or 1.0
        y = (y - self.shift) / self.unit
        # The fit costs the cube of the trials, and some of them, from the best to the worst, tell as much.
        some = np.argsort(y)[np.unique(np.linspace(0, len(y) - 1, _FIT_TRIALS).astype(int))]
        with warnings.catch_warnings():
            # A parameter at its bound, as the noise of a function without any, is no matter for the user.
            warnings.simplefilter("ignore", require("sklearn.exceptions").ConvergenceWarning)
            kernel = _regressor(_kernel(x.shape[1]), _most_probable).fit(x[some], y[some]).kernel_
        regressor = _regressor(kernel, None).fit(x, y)
        self.x, self.alpha, self.cholesky = regressor.X_train_, regressor.alpha_, regressor.L_
        scale, *lengths, self.noise = np.exp(regressor.kernel_.theta)
        self.scale, self.lengths = scale, np.array(lengths)
        self.best = float((regressor.y_train_ - self.noise * self.alpha).min())

    def predict(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of the standardised loss, without noise, at rows of features."""
        return self._predict(x)[:2]

    def log_expected_improvement(self, x: np.ndarray) -> np.ndarray:
        """log E max(best - loss, 0) at rows of features."""
        mean, deviation = self.predict(x)
        return np.log(deviation) + _log_h((self.best - mean) / deviation)[0]

    def log_expected_improvement_and_gradient(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        """The same at one row, with its gradient."""
        mean, deviation, r, solved = self._predict(x[None])
        z = (self.best - mean) / deviation
        log_h, slope = _log_h(z)
        decay = self.scale * (5.0 / 3.0) * (1.0 + _SQRT5 * r[0]) * np.exp(-_SQRT5 * r[0])
        by_x = -decay[:, None] * (x - self.x) / self.lengths**2
        mean_by_x = self.alpha @ by_x
        deviation_by_x = -(solved[:, 0] @ by_x) / deviation[0]
        gradient = (deviation_by_x * (1.0 - slope[0] * z[0]) - slope[0] * mean_by_x) / deviation[0]
        return float(np.log(deviation[0]) + log_h[0]), gradient

    def _predict(self, x):
        linalg = require("scipy.linalg")
        r = require("scipy.spatial.distance").cdist(x / self.lengths, self.x / self.lengths)
        kernel = self.scale * (1.0 + _SQRT5 * r + (5.0 / 3.0) * r**2) * np.exp(-_SQRT5 * r)
        solved = linalg.cho_solve((self.cholesky, True), kernel.T, check_finite=False)
        variance = self.scale - (kernel * solved.T).sum(1)
        return kernel @ self.alpha, np.sqrt(np.maximum(variance, 1e-12)), r, solved


def _kernel(columns):
    kernels = require("sklearn.gaussian_process.kernels")
    matern = kernels.Matern(np.full(columns, _LENGTH), _LENGTHS, nu=2.5)
    return kernels.ConstantKernel(1.0, _SCALE) * matern + kernels.WhiteKernel(1e-3, _NOISE)


def _regressor(kernel, optimizer):
    return require("sklearn.gaussian_process").GaussianProcessRegressor(kernel, alpha=1e-10, optimizer=optimizer)


def _most_probable(negative_likelihood, start, bounds):
    """scikit-learn's hook: the parameters that maximise the likelihood times a prior."""

    def loss(theta):
        value, gradient = negative_likelihood(theta)
        prior, prior_gradient = _log_prior(theta)
        return value - prior, gradient - prior_gradient

    found = require("scipy.optimize").minimize(
        loss, start, jac=True, bounds=bounds, method="L-BFGS-B", options={"maxiter": _FIT_STEPS}
    )
    return found.x, found.fun


def _log_prior(theta):
    """Of the logarithms of scale, lengths and noise: lengths log-normal about half the space, noise small."""
    scale, noise, deviations = math.exp(theta[0]), math.exp(theta[-1]), (theta[1:-1] - math.log(_LENGTH)) / _SPREAD
    value = theta[0] - scale - 0.5 * (deviations**2).sum() + 0.1 * theta[-1] - 30.0 * noise
    return value, np.concatenate([[1.0 - scale], -deviations / _SPREAD, [0.1 - 30.0 * noise]])


def _log_h(z):
    """log(phi(z) + z Phi(z)), exact far below zero too, and its derivative (Ament et al., 2023, equation 9)."""
    special = require("scipy.special")
    high, low = np.maximum(z, -1.0), np.minimum(z, -1.0)
    near = np.log(_density(high) + high * special.ndtr(high))
    # Phi(z) / phi(z) for z <= -1; beyond -1e5 what is left of 1 + z Phi(z) / phi(z) is 1 / z^2.
    ratio = math.sqrt(math.pi / 2.0) * special.erfcx(-low / math.sqrt(2.0))
    rest = np.where(low > -1e5, np.log1p(np.maximum(low, -1e5) * ratio), -2.0 * np.log(-low))
    log_h = np.where(z > -1.0, near, -0.5 * low**2 - 0.5 * math.log(2.0 * math.pi) + rest)
    return log_h, np.where(z > -1.0, special.ndtr(high) * np.exp(-near), ratio * np.exp(-rest))


def _density(z):
    return np.exp(-0.5 * z**2) / math.sqrt(2.0 * math.pi)
