"""Optuna's samplers and pruners by name."""

import importlib.util
import warnings
from typing import Any

from keras_opt.core.errors import argument_error, check_choice
from keras_opt.core.optional import require

SAMPLERS = ("tpe", "gp", "cmaes")
PRUNERS = ("asha", "median", None)
# How many times fewer trials go on at each rung of "asha".
REDUCTION_FACTOR = 3


def check_sampler(owner: str, name: str, objectives: int = 1) -> None:
    """Raise unless `name` is a sampler, its packages are there, and it can serve so many objectives."""
    check_choice(owner, "sampler", name, SAMPLERS)
    if name == "cmaes":
        if objectives > 1:
            cure = "CMA-ES follows one objective only."
            raise argument_error(owner, "sampler", name, '"tpe" or "gp" with several objectives', cure)
        require("cmaes")
    if name == "gp" and importlib.util.find_spec("torch") is None:
        raise ImportError(
            f'{owner}: sampler="gp" is Optuna\'s GPSampler, which needs `torch` (several GB), and that is not '
            'installed. Use keras_opt.tuning.BayesianOptimization(sampler="gp"), a Gaussian process that needs none, '
            'or sampler="tpe", or run: pip install torch'
        )


def check_pruner(owner: str, name: str | None, objectives: int = 1) -> None:
    """Raise unless `name` is a pruner that can serve so many objectives."""
    check_choice(owner, "pruner", name, PRUNERS)
    if name is not None and objectives > 1:
        cure = "Optuna stops no trial by several objectives."
        raise argument_error(owner, "pruner", name, "None with several objectives", cure)


def make_sampler(name: str | None, seed: int, initial_trials: int = 10) -> Any:
    """A sampler, of which "tpe" draws the first trials at random; `None` draws all so."""
    optuna = require("optuna")
    samplers = optuna.samplers
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if name == "tpe":  # groups: the parameters that are active together are drawn together
            together = {"multivariate": True, "group": True, "constant_liar": True}
            return samplers.TPESampler(n_startup_trials=initial_trials, seed=seed, **together)
        if name == "gp":
            return samplers.GPSampler(seed=seed, warn_independent_sampling=False)
        if name == "cmaes":
            return samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)
        return samplers.RandomSampler(seed=seed)


def make_pruner(name: str | None, min_epochs: int) -> Any:
    """The pruner, which lets every trial live for `min_epochs`."""
    pruners = require("optuna").pruners
    if name == "asha":
        return pruners.SuccessiveHalvingPruner(min_resource=min_epochs, reduction_factor=REDUCTION_FACTOR)
    if name == "median":
        return pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=min_epochs - 1)
    return pruners.NopPruner()
