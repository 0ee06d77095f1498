"""Optuna's samplers and pruners behind keras-tuner's Oracle."""

import functools
import os
import warnings
from pathlib import Path
from typing import Any

from keras_opt.core.errors import NoEffectWarning, check_at_least, check_path
from keras_opt.core.optional import require
from keras_opt.tuning.evidence import random_point
from keras_opt.tuning.optuna_parts import check_pruner, check_sampler
from keras_opt.tuning.optuna_space import drawn_from, fill_point
from keras_opt.tuning.pruning_callback import PruningCallback
from keras_opt.tuning.search_arguments import OracleArguments
from keras_opt.tuning.search_oracle import SearchOracle
from keras_opt.tuning.trial_metrics import missing_objective
from keras_opt.tuning.trial_store import TrialStore

keras_tuner = require("keras_tuner")
_FatalValueError = require("keras_tuner.errors").FatalValueError
Status = require("keras_tuner.engine.trial").TrialStatus

STORAGE_NAME = "study.db"
_OWNER = "OptunaOracle"


class OptunaOracle(SearchOracle):
    """Chooses the trials of a keras-tuner search by Optuna, and keeps them in a file that `optuna-dashboard` opens.

    When: the space has conditions, a search has more than some hundred trials, trials should be stopped early, or there
    are several objectives. When not: for up to a hundred trials over a few numbers
    `BayesianOptimization(sampler="gp")` finds better points than "tpe" and "cmaes", and needs no torch.

    It goes to any tuner: `keras_tuner.Tuner(oracle=OptunaOracle(...), hypermodel=build)`. A trial whose objective is
    NaN or infinite, or that crashes, fails with its message and does not end the search; no point is tried twice, and
    a finished space ends the search; a seed gives the same points and trainings, also after a search that was killed:
    the next one with the same folder goes on, and runs the trial that was cut off again.

    To stop trials early, give `search` the callback that reports each epoch: `callbacks=[oracle.pruning_callback()]`.
    A stopped trial counts as completed for keras-tuner, with the best score it had, and as pruned for Optuna.

    With a list of objectives Optuna looks for the points of which no other is better in all (the Pareto front, see
    `pareto_front`). What is not among the metrics of an epoch, such as the multiply-accumulates of the model, is put
    into what the trial returns: see the second example.

    Args:
        objective: Name of a metric, a `keras_tuner.Objective`, or a list of these. Take a validation metric. Of several
            the first decides which epoch of a trial counts, and is its score for keras-tuner.
        max_trials: Int of at least 1, or `None` for no limit. Default 10.
        sampler: `"tpe"`, the tree-structured Parzen estimator, drawn together for what is active together; `"gp"`, a
            Gaussian process (needs torch); `"cmaes"`, an evolution strategy for numbers without conditions.
        pruner: `"asha"`, asynchronous successive halving: at `min_epochs` and every threefold of it a trial goes on if
            it is among the best third; `"median"`: it goes on if its best epoch is better than the median of the
            others at that epoch, from the sixth trial on; `None` stops none. `None` with several objectives.
        min_epochs: Int of at least 1, the epochs that every trial is given.
        storage: Path of Optuna's SQLite file, made where there is none. Default `None`: `study.db` in the folder of the
            search. Searches that share one, each in a folder of its own, learn from one another.
        hyperparameters: The space, or a part of it.
        seed: Int of at least 0: the same seed gives the same trials, each of which seeds Keras, NumPy and Python;
            `None` draws one, and seeds nothing.
        tune_new_entries: As keras-tuner's.
        allow_new_entries: As keras-tuner's.
        max_retries_per_trial: How often a trial that crashed runs again. Default 0.
        max_consecutive_failed_trials: Failures in a row that end the search; `None`, the default, for no limit.

    Raises:
        ValueError: An argument is out of its range, or the objective is not among the names that trials report.
        ImportError: `sampler="gp"` without torch.

    Warns:
        UserWarning: The storage was damaged; says what is left. What keras-tuner's files hold is put back into it.
        NoEffectWarning: A pruner was given and no epoch was reported.

    Cost: the sampler and some ten writes a trial and one an epoch to SQLite, some milliseconds each.

    Source: T. Akiba et al., 2019, "Optuna: A Next-generation Hyperparameter Optimization Framework"; S. Watanabe, 2023,
        "Tree-Structured Parzen Estimator"; L. Li et al., 2020, "A System for Massively Parallel Hyperparameter Tuning"
        (ASHA); N. Hansen, 2016, "The CMA Evolution Strategy: A Tutorial".

    Example:
        >>> import keras_opt, keras_tuner                                                       # doctest: +SKIP
        >>> oracle = keras_opt.tuning.OptunaOracle("val_accuracy", 30, pruner="asha")           # doctest: +SKIP
        >>> tuner = keras_tuner.Tuner(oracle, build, directory="runs", project_name="photos")   # doctest: +SKIP
        >>> tuner.search(                                                                       # doctest: +SKIP
        ...     x, y, validation_data=held, epochs=9, callbacks=[oracle.pruning_callback()]
        ... )

        >>> class Small(keras_tuner.HyperModel):                                                # doctest: +SKIP
        ...     def fit(self, hp, model, *args, **kwargs):
        ...         history = model.fit(*args, **kwargs)
        ...         history.history["macs"] = [keras_opt.models.macs(model)] * len(history.epoch)
        ...         return history
        >>> macs = keras_tuner.Objective("macs", "min")                                         # doctest: +SKIP
        >>> oracle = keras_opt.tuning.OptunaOracle(["val_accuracy", macs], 30, pruner=None)     # doctest: +SKIP
    """

    def __init__(
        self,
        objective: Any = None,
        max_trials: int | None = 10,
        sampler: str = "tpe",
        pruner: str | None = "asha",
        min_epochs: int = 2,
        storage: str | os.PathLike | None = None,
        hyperparameters: Any = None,
        seed: int | None = None,
        tune_new_entries: bool = True,
        allow_new_entries: bool = True,
        max_retries_per_trial: int = 0,
        max_consecutive_failed_trials: int | None = None,
    ):
        arguments = OracleArguments(
            _OWNER,
            objective,
            seed,
            hyperparameters,
            tune_new_entries,
            allow_new_entries,
            max_retries_per_trial,
            max_consecutive_failed_trials,
            max_trials,
        )
        check_at_least(_OWNER, "min_epochs", min_epochs, 1)
        if storage is not None:
            check_path(_OWNER, "storage", storage)
        super().__init__(random_point, arguments)
        self.objectives = getattr(self.objective, "objectives", [self.objective])
        check_sampler(_OWNER, sampler, len(self.objectives))
        check_pruner(_OWNER, pruner, len(self.objectives))
        # keras-tuner scores a trial by one number: the first objective, by which it also chooses the best epoch.
        self.objective = _Named(self.objectives[0].name, self.objectives[0].direction)
        self.required = tuple(each.name for each in self.objectives)
        self.sampler = sampler
        self.pruner = pruner
        self.min_epochs = min_epochs
        self.storage = storage
        self._store: TrialStore | None = None
        self._numbers: dict[str, int] = {}  # Optuna's, by keras-tuner's id
        self._epochs: dict[str, int] = {}  # the last that was reported
        self._stopped: set[str] = set()
        self._is_warned = False

    @property
    def study(self) -> Any:
        """Optuna's study, for its plots and its `optuna.importance`."""
        return self.store.study

    @property
    def store(self) -> TrialStore:
        """The trials as Optuna has them; opened where they are first asked for."""
        if self._store is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            path = Path(self.storage) if self.storage is not None else self.folder / STORAGE_NAME
            directions = ["maximize" if each.direction == "max" else "minimize" for each in self.objectives]
            self._store = TrialStore(path, directions, self.pruner, self.min_epochs)
        return self._store

    def pruning_callback(self) -> PruningCallback:
        """The callback for `search`, without which no trial is stopped early."""
        return PruningCallback(self)

    def pareto_front(self) -> list[Any]:
        """The completed trials of which no other is at least as good in all objectives and better in one.

        With one objective the best trials.
        """
        completed = [trial for trial in self.trials.values() if trial.status == Status.COMPLETED]
        losses = {trial.trial_id: self._losses(trial) for trial in completed}
        front = [
            trial
            for trial in completed
            if not any(_dominates(losses[other.trial_id], losses[trial.trial_id]) for other in completed)
        ]
        return sorted(front, key=lambda trial: losses[trial.trial_id])

    def get_best_trials(self, num_trials: int = 1) -> list[Any]:
        """The best completed trials; with several objectives the Pareto front, best in the first objective first."""
        if len(self.objectives) == 1:
            return super().get_best_trials(num_trials)
        return self.pareto_front()[:num_trials]

    @property
    def identity(self) -> dict[str, Any]:
        """What must not change where a search goes on."""
        return {"objective": "; ".join(map(str, self.objectives))}

    # --- the life of a trial

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """keras-tuner's hook: the point that Optuna proposes, or the end of the search."""
        space = self.hyperparameters.space
        found = self._cut_off_proposal()
        if found is None:
            attributes = {"search": self._name, "trial_id": trial_id}
            found = self.store.propose(self.sampler, self.seed, lambda draw: fill_point(space, draw), attributes)
        if found is None:
            return {"status": Status.STOPPED}
        number, point = found
        self._numbers[trial_id] = number
        return {"status": Status.RUNNING, "values": point}

    def _begin(self, tuner_id: str, trial: Any) -> Any:
        self._epochs.pop(trial.trial_id, None)  # of an attempt before
        self._stopped.discard(trial.trial_id)
        return super()._begin(tuner_id, trial)

    def trial_in_hand(self) -> str | None:
        """The id of the trial that is trained in this process."""
        return next((trial.trial_id for trial in reversed(self.ongoing_trials.values())), None)

    def report(self, trial_id: str, epoch: int, logs: dict[str, float]) -> bool:
        """Takes the objective of an epoch (from 1 up); says whether the trial is to be stopped.

        Of several executions the first is judged.
        """
        value = logs.get(self.objective.name)
        if value is None or len(self.objectives) > 1:
            return False
        if epoch > self._epochs.get(trial_id, 0):
            self._epochs[trial_id] = epoch
            if self.store.report(self._numbers[trial_id], epoch, float(value)):
                self._stopped.add(trial_id)
        return trial_id in self._stopped

    def update_trial(self, trial_id: str, metrics: dict[str, float], step: int = 0) -> Any:
        """Takes what a trial measured.

        Raises:
            FatalValueError: An objective is not among it.
        """
        for name in self.required:
            if name not in metrics and not self.trials[trial_id].metrics.exists(name):
                raise _FatalValueError(missing_objective(name, metrics, "the trial"))
        return super().update_trial(trial_id, metrics, step)

    def end_trial(self, trial: Any) -> None:
        """Scores a trial that ended, or records why it failed, in both books."""
        try:
            super().end_trial(trial)
        finally:
            self._tell(self.trials[trial.trial_id])

    def _tell(self, trial: Any) -> None:
        """Put what became of a trial into Optuna's book; one that runs again stays open there."""
        if trial.status not in (Status.COMPLETED, Status.FAILED):
            return
        number = self._numbers[trial.trial_id]
        self.store.extend(number, drawn_from(self.hyperparameters.space, trial.hyperparameters.values))
        if trial.status == Status.FAILED:
            self.store.fail(number, trial.message or "no message")
        elif trial.trial_id in self._stopped:
            self.store.stop(number)
        else:
            self.store.complete(number, self._values(trial))
            self._check_reports(trial)

    def _check_reports(self, trial: Any) -> None:
        if self.pruner is not None and trial.trial_id not in self._epochs and not self._is_warned:
            self._is_warned = True
            warnings.warn(
                f"{_OWNER}: pruner={self.pruner!r} has nothing to judge: trial {trial.trial_id} ended and reported no "
                "epoch. Give `search` callbacks=[oracle.pruning_callback()], or pruner=None.",
                NoEffectWarning,
                stacklevel=2,
            )

    def _values(self, trial: Any) -> list[float]:
        return [float(trial.metrics.get_best_value(each.name)) for each in self.objectives]

    def _losses(self, trial: Any) -> list[float]:
        signs = [-1.0 if each.direction == "max" else 1.0 for each in self.objectives]
        return [sign * value for sign, value in zip(signs, self._values(trial), strict=True)]

    # --- a search that goes on

    def reload(self) -> None:
        """Reads a search back, and makes the two books agree: keras-tuner's files say what came of each trial."""
        super().reload()
        found = {trial.user_attrs["trial_id"]: trial for trial in self._own_trials()}
        self._numbers = {trial_id: trial.number for trial_id, trial in found.items()}
        for trial_id, trial in self.trials.items():
            if trial_id not in found:
                drawn = drawn_from(self.hyperparameters.space, trial.hyperparameters.values)
                attributes = {"search": self._name, "trial_id": trial_id}
                self._numbers[trial_id] = self.store.add("RUNNING", drawn, attributes)
            elif found[trial_id].state.is_finished():
                continue
            self._epochs[trial_id] = 0  # what was reported is not known any more: no warning
            self._tell(trial)
            del self._epochs[trial_id]

    def _own_trials(self) -> list[Any]:
        return [trial for trial in self.store.trials() if trial.user_attrs.get("search") == self._name]

    @property
    def _name(self) -> str:
        """That of this search among those that share a storage; in a folder of its own it may move with it."""
        return self._project_name if self.storage is None else str(self.folder.resolve())

    def _cut_off_proposal(self) -> tuple[int, dict[str, Any]] | None:
        """A trial that Optuna has proposed and keras-tuner's files do not know: the search was killed between."""
        for trial in self._own_trials():
            if trial.state.name == "RUNNING" and trial.user_attrs["trial_id"] not in self.trials:
                return trial.number, fill_point(self.hyperparameters.space, functools.partial(_known, trial.params))
        return None


class _Named(keras_tuner.Objective):
    """An objective that, where it is missing, says what was there; keras-tuner's raises a bare KeyError."""

    def get_value(self, logs: dict[str, float]) -> float:
        if self.name not in logs:
            raise _FatalValueError(missing_objective(self.name, logs, "the trial"))
        return logs[self.name]


def _known(values: dict[str, Any], name: str, distribution: Any) -> Any:
    return values[name]


def _dominates(one: list[float], other: list[float]) -> bool:
    """Whether `one` is at least as good in all and better in one; lower is better."""
    return all(a <= b for a, b in zip(one, other, strict=True)) and one != other
