"""Hyperband: many short trainings, of which the best go on."""

from pathlib import Path
from typing import Any

import keras

from keras_opt.core.errors import check_at_least
from keras_opt.tuning.hyperband_oracle import HyperbandOracle
from keras_opt.tuning.search_arguments import OracleArguments, check_tuner_arguments
from keras_opt.tuning.search_tuner import SearchTuner, without_optimizer


class Hyperband(SearchTuner):
    """Searches hyperparameters by many short trainings, of which the best go on for longer.

    When: a few epochs tell good from bad. When not: what is slow at first is best in the end, as with small learning
    rates; the first rounds drop it.

    With s = log(max_epochs) / log(factor), brackets b = floor(s), ..., 0 begin with ceil(ceil(1 + s) / (b + 1)
    factor^b) trials of ceil(max_epochs / factor^b) epochs; each further round keeps one in `factor` and trains it
    `factor` times as long, from its best weights on (the optimizer begins anew). `fit` is given `epochs` and
    `initial_epoch`. A trial that fails is not promoted, and the rounds after it are run all the same; keras-tuner's
    leaves them out.

    The arguments are keras-tuner's. A trial that crashes, or whose objective is NaN or infinite, fails with its error
    and the search goes on; no point is tried twice, and a finished space ends the search; what has ended is on disk,
    so that the same call goes on after Ctrl-C or a kill, and runs the trial again that was cut off.

    Args:
        hypermodel: Function of HyperParameters that gives a compiled model, or a HyperModel. `None` where a subclass
            overrides `run_trial`.
        objective: Name of a metric, a `keras_tuner.Objective`, or a list of these, whose sum counts. Take a validation
            metric, such as "val_accuracy"; its name tells the direction. `None` where a trial returns one number to
            minimise.
        max_epochs: Int of at least 1, the most epochs of a trial. Default 100.
        factor: Int of at least 2, how many times fewer trials, and more epochs, each round has. Default 3.
        hyperband_iterations: Int of at least 1, how often all brackets are gone through. Default 1.
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
            seed, or with other ranges or rounds.
        TypeError: An argument is of the wrong kind, or there is none of that name.
        RuntimeError: From `search`: every trial failed, or too many in a row; another process searches in the folder.

    Warns:
        UserWarning: Trials failed, with their errors; the objective is measured on training data; a file of the search
            is damaged.

    Cost: about max_epochs (s + 1)^2 epochs in all for each iteration.

    Source: L. Li et al., 2018, "Hyperband: A Novel Bandit-Based Approach to Hyperparameter Optimization", algorithm 1,
        with keras-tuner's sizes.

    Example:
        >>> import keras_opt                                                                     # doctest: +SKIP
        >>> tuner = keras_opt.tuning.Hyperband(build, "val_accuracy", max_epochs=27)             # doctest: +SKIP
        >>> tuner.search(x, y, validation_data=held, epochs=9)                                   # doctest: +SKIP
        >>> model = tuner.get_best_models()[0]                                                   # doctest: +SKIP
    """

    def __init__(
        self,
        hypermodel: Any = None,
        objective: Any = None,
        max_epochs: int = 100,
        factor: int = 3,
        hyperband_iterations: int = 1,
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
        )
        check_at_least(owner, "max_epochs", max_epochs, 1)
        check_at_least(owner, "factor", factor, 2)
        check_at_least(owner, "hyperband_iterations", hyperband_iterations, 1)
        oracle = HyperbandOracle(max_epochs, factor, hyperband_iterations, arguments)
        super().__init__(oracle, hypermodel, max_seconds, **kwargs)

    def run_trial(self, trial: Any, *args: Any, **kwargs: Any) -> Any:
        """Fits the model of a trial from the epoch where its parent ended to that of its round."""
        values = trial.hyperparameters.values
        kwargs["epochs"], kwargs["initial_epoch"] = values["tuner/epochs"], values["tuner/initial_epoch"]
        if "tuner/trial_id" in values:
            weights = Path(self.get_trial_dir(values["tuner/trial_id"])) / "checkpoint.weights.h5"
            kwargs["callbacks"] = [_StartFrom(weights), *kwargs.get("callbacks", ())]
        return super().run_trial(trial, *args, **kwargs)


class _StartFrom(keras.callbacks.Callback):
    """Begins a fit with the weights of a file."""

    def __init__(self, path: Path):
        super().__init__()
        self.path = path

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        with without_optimizer():
            self.model.load_weights(self.path)
