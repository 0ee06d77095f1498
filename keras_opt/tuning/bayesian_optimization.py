"""Search by a model of what was tried."""

import functools
import warnings
from typing import Any

from keras_opt.core.errors import NoEffectWarning, check_at_least, check_choice, check_positive
from keras_opt.tuning.gaussian_process_point import gaussian_process_point
from keras_opt.tuning.keras_tuner_point import keras_tuner_point
from keras_opt.tuning.search_arguments import OracleArguments, check_tuner_arguments
from keras_opt.tuning.search_oracle import SearchOracle
from keras_opt.tuning.search_tuner import SearchTuner
from keras_opt.tuning.tree_parzen_point import tree_parzen_point

SAMPLERS = ("gp", "tpe", "keras_tuner")


class BayesianOptimization(SearchTuner):
    """Searches hyperparameters where a model of the trials so far expects the most improvement.

    When: a trial takes seconds or more, and there are some dozen of them. When not: a trial is a matter of
    milliseconds (`RandomSearch`), or a few epochs tell good from bad (`Hyperband`, `OptunaOracle` with a pruner).

    The model is chosen by `sampler`:

    - `"gp"`: scikit-learn's Gaussian process, Matern 5/2 with one length scale a parameter and noise, at its most
      probable parameters; the next point maximises log E max(best - loss, 0), by random candidates, L-BFGS from the
      best of them, and a sweep over whole numbers and choices. Ranges are searched by their `sampling`; a parameter
      whose conditions are not met stands in the middle of its range. A failed trial counts as the worst one, and how
      bad the worse half of the losses is counts little, so that one of 1e30 hides nothing.
    - `"tpe"`: Optuna's tree-structured Parzen estimator: for hundreds of trials, or where most of the space depends on
      conditions.
    - `"keras_tuner"`: keras-tuner's own process, with a random point wherever it repeats itself.

    The arguments are keras-tuner's. A trial that crashes, or whose objective is NaN or infinite, fails with its error
    and the search goes on; no point is tried twice, and a finished space ends the search; what has ended is on disk,
    so that the same call goes on after Ctrl-C or a kill, and runs the trial again that was cut off.

    Args:
        hypermodel: Function of HyperParameters that gives a compiled model, or a HyperModel. `None` where a subclass
            overrides `run_trial`.
        objective: Name of a metric, a `keras_tuner.Objective`, or a list of these, whose sum counts. Take a validation
            metric, such as "val_accuracy"; its name tells the direction. `None` where a trial returns one number to
            minimise.
        max_trials: Int of at least 1, trials at most; `None` for no limit. Default 10.
        num_initial_points: Int of at least 1, random points that come first. Default `None`: a quarter of `max_trials`,
            at least 3 and at most 10; with "keras_tuner" its own, three for each parameter.
        alpha: Float above 0, the variance of the noise for "keras_tuner", `None` for its 1e-4.
        beta: Float above 0, the weight of exploration for "keras_tuner", `None` for its 2.6.
        seed: Int of at least 0: the same seed gives the same trials, each of which seeds Keras, NumPy and Python;
            `None` draws one.
        hyperparameters: keras_tuner.HyperParameters, the space or a part of it; is copied. Default `None`.
        tune_new_entries: Whether parameters that are not in `hyperparameters` are searched too. Default `True`.
        allow_new_entries: Whether the hypermodel may ask for such parameters at all. Default `True`.
        max_retries_per_trial: Int of at least 0, how often a trial that failed runs again. Default 0.
        max_consecutive_failed_trials: Int of at least 1, failures in a row that end the search with an error; `None`,
            the default, for no limit.
        sampler: `"gp"`, `"tpe"` or `"keras_tuner"`, see above. Default `"gp"`.
        max_seconds: Float above 0, in seconds: no trial begins later than that in `search`; `None`, the default, for no
            limit.
        **kwargs: Those of keras-tuner's Tuner: `directory`, `project_name`, `overwrite`, `executions_per_trial`,
            `max_model_size`, `optimizer`, `loss`, `metrics`, `distribution_strategy`, `tuner_id`.

    Raises:
        ValueError: An argument is out of its range; the hypermodel asks for no parameter with more than one value; the
            objective is not among the names that a trial reports; the folder holds a search for another objective or
            seed, or with other ranges.
        TypeError: An argument is of the wrong kind, or there is none of that name.
        RuntimeError: From `search`: every trial failed, or too many in a row; another process searches in the folder.

    Warns:
        UserWarning: Trials failed, with their errors; the objective is measured on training data; a file of the search
            is damaged.
        NoEffectWarning: `alpha` or `beta` without `sampler="keras_tuner"`.

    Cost: for "gp" a fit to at most 64 of the trials and some thousand predictions a trial; 0.02 CPU seconds a
        trial, beside the training (benchmarks/results/search_quality.json).

    Source: D. R. Jones et al., 1998, "Efficient Global Optimization of Expensive Black-Box Functions" (expected
        improvement, equation 15); S. Ament et al., 2023, "Unexpected Improvements to Expected Improvement for Bayesian
        Optimization" (its logarithm, equation 9); J. Bergstra et al., 2011, "Algorithms for Hyper-Parameter
        Optimization" (TPE).

    Example:
        >>> import keras_opt                                                                     # doctest: +SKIP
        >>> tuner = keras_opt.tuning.BayesianOptimization(build, "val_accuracy", 30, seed=0)     # doctest: +SKIP
        >>> tuner.search(x, y, validation_data=held, epochs=9)                                   # doctest: +SKIP
        >>> model = tuner.get_best_models()[0]                                                   # doctest: +SKIP
    """

    def __init__(
        self,
        hypermodel: Any = None,
        objective: Any = None,
        max_trials: int | None = 10,
        num_initial_points: int | None = None,
        alpha: float | None = None,
        beta: float | None = None,
        seed: int | None = None,
        hyperparameters: Any = None,
        tune_new_entries: bool = True,
        allow_new_entries: bool = True,
        max_retries_per_trial: int = 0,
        max_consecutive_failed_trials: int | None = None,
        sampler: str = "gp",
        max_seconds: float | None = None,
        **kwargs: Any,
    ):
        owner = type(self).__name__
        check_tuner_arguments(owner, kwargs)
        arguments = OracleArguments(
            owner,
            objective,
            seed,
            hyperparameters,
            tune_new_entries,
            allow_new_entries,
            max_retries_per_trial,
            max_consecutive_failed_trials,
            max_trials,
        )
        check_choice(owner, "sampler", sampler, SAMPLERS)
        if num_initial_points is not None:
            check_at_least(owner, "num_initial_points", num_initial_points, 1)
        theirs = {name: value for name, value in (("alpha", alpha), ("beta", beta)) if value is not None}
        for name, value in theirs.items():
            check_positive(owner, name, value)
        proposer = _proposer(owner, sampler, num_initial_points or _initial_points(sampler, max_trials), theirs)
        super().__init__(SearchOracle(proposer, arguments), hypermodel, max_seconds, **kwargs)


def _initial_points(sampler, max_trials):
    """A quarter of the trials, so that a short search is not all chance; keras-tuner's process has its own rule."""
    return None if sampler == "keras_tuner" else min(10, max(3, (max_trials or 40) // 4))


def _proposer(owner, sampler, initial_points, theirs):
    if sampler == "keras_tuner":
        return functools.partial(keras_tuner_point, initial_points=initial_points, **theirs)
    if theirs:
        warnings.warn(
            f"{owner}: {' and '.join(theirs)} are arguments of keras-tuner's process; sampler={sampler!r} finds the "
            'noise from the trials and needs no such number. Leave them out, or give sampler="keras_tuner".',
            NoEffectWarning,
            stacklevel=4,
        )
    point = tree_parzen_point if sampler == "tpe" else gaussian_process_point
    return functools.partial(point, initial_points=initial_points)
