"""Random search."""

from typing import Any

from keras_opt.tuning.evidence import random_point
from keras_opt.tuning.search_arguments import OracleArguments, check_tuner_arguments
from keras_opt.tuning.search_oracle import SearchOracle
from keras_opt.tuning.search_tuner import SearchTuner


class RandomSearch(SearchTuner):
    """Searches hyperparameters by points drawn at random.

    When: as a baseline, or where trials run on many machines. When not: with some dozen trials
    `BayesianOptimization` finds better points.

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
        seed: Int of at least 0: the same seed gives the same trials, each of which seeds Keras, NumPy and Python;
            `None` draws one.
        hyperparameters: keras_tuner.HyperParameters, the space or a part of it; is copied. Default `None`.
        tune_new_entries: Whether parameters that are not in `hyperparameters` are searched too. Default `True`.
        allow_new_entries: Whether the hypermodel may ask for such parameters at all. Default `True`.
        max_retries_per_trial: Int of at least 0, how often a trial that failed runs again. Default 0.
        max_consecutive_failed_trials: Int of at least 1, failures in a row that end the search with an error; `None`,
            the default, for no limit.
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

    Cost: some 2 ms of CPU a trial beside the training (benchmarks/results/search_quality.json).

    Source: J. Bergstra and Y. Bengio, 2012, "Random Search for Hyper-Parameter Optimization".

    Example:
        >>> import keras_opt                                                                     # doctest: +SKIP
        >>> tuner = keras_opt.tuning.RandomSearch(build, "val_accuracy", 30, seed=0)             # doctest: +SKIP
        >>> tuner.search(x, y, validation_data=held, epochs=9)                                   # doctest: +SKIP
        >>> model = tuner.get_best_models()[0]                                                   # doctest: +SKIP
    """

    def __init__(
        self,
        hypermodel: Any = None,
        objective: Any = None,
        max_trials: int | None = 10,
        seed: int | None = None,
        hyperparameters: Any = None,
        tune_new_entries: bool = True,
        allow_new_entries: bool = True,
        max_retries_per_trial: int = 0,
        max_consecutive_failed_trials: int | None = None,
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
        super().__init__(SearchOracle(random_point, arguments), hypermodel, max_seconds, **kwargs)
