"""Hyperparameter search on keras-tuner's surface.

The names load on first use: keras-tuner, whose classes they extend, loads with them and not with this package.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keras_opt.tuning.bayesian_optimization import BayesianOptimization as BayesianOptimization
    from keras_opt.tuning.grid_search import GridSearch as GridSearch
    from keras_opt.tuning.hyperband import Hyperband as Hyperband
    from keras_opt.tuning.optuna_oracle import OptunaOracle as OptunaOracle
    from keras_opt.tuning.random_search import RandomSearch as RandomSearch

_HOMES = {
    "BayesianOptimization": "bayesian_optimization",
    "GridSearch": "grid_search",
    "Hyperband": "hyperband",
    "OptunaOracle": "optuna_oracle",
    "RandomSearch": "random_search",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'keras_opt.tuning' has no attribute {name!r}")
    return getattr(importlib.import_module(f"keras_opt.tuning.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(_HOMES)
