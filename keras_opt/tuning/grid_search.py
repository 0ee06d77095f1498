"""Grid search."""

import itertools
from typing import Any

from keras_opt.tuning.evidence import grid, grid_point
from keras_opt.tuning.search_arguments import OracleArguments, check_tuner_arguments
from keras_opt.tuning.search_oracle import SearchOracle
from keras_opt.tuning.search_tuner import SearchTuner

_MOST_COUNTED = 100_000


class GridOracle(SearchOracle):
    """Goes through a grid, and knows how long it is."""

    @property
    def expected_trials(self) -> int:
        """As many as the grid has points, or as `max_trials` allows."""
        most = self.max_trials or _MOST_COUNTED
        return sum(1 for _ in itertools.islice(grid(self.hyperparameters.space), most))


class GridSearch(SearchTuner):
    """Searches hyperparameters by going through all points of a grid.

    When: few parameters with few values each, and all are wanted. When not: the number of points is the product of the
    numbers of values; `BayesianOptimization` needs far fewer. A range without a step counts as ten values and its
    default, as in keras-tuner. The defaults come first, then the last parameter changes fastest. A grid search of
    keras-tuner that was killed cannot go on; this one does.

    The arguments are keras-tuner's. A trial that crashes, or whose objective is NaN or infinite, fails with its error
    and the search goes on; no point is tried twice, and a finished space ends the search; what has ended is on disk,
    so that the same call goes on after Ctrl-C or a kill, and runs the trial again that was cut off.

    Args:
        hypermodel: Function of HyperParameters that gives a compiled model, or a HyperModel. `None` where a subclass
            overrides `run_trial`.
        objective: Name of a metric, a `keras_tuner.Objective`, or a list of these, whose sum counts. Take a validation
            metric, such as "val_accuracy"; its name tells the direction. `None` where a trial returns one number to
            minimise.
        max_trials: Int of at least 1, trials at most; `None`, the default, for the whole grid.
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

    Source: none; the order is keras-tuner's.

    Example:
        >>> import keras_opt                                                                     # doctest: +SKIP
        >>> tuner = keras_opt.tuning.GridSearch(build, "val_accuracy", seed=0)                   # doctest: +SKIP
        >>> tuner.search(x, y, validation_data=held, epochs=9)                                   # doctest: +SKIP
        >>> model = tuner.get_best_models()[0]                                                   # doctest: +SKIP
    """

    def __init__(
        self,
        hypermodel: Any = None,
        objective: Any = None,
        max_trials: int | None = None,
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
        super().__init__(GridOracle(grid_point, arguments), hypermodel, max_seconds, **kwargs)
