"""keras-tuner's Oracle with a book of trials that survives: failures, repeats, kills, seeds."""

import math
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_opt.core.errors import InputError
from keras_opt.core.optional import require
from keras_opt.tuning.evidence import Evidence, Proposer
from keras_opt.tuning.search_arguments import OracleArguments
from keras_opt.tuning.search_files import read_json, read_trials, write_json, write_trial
from keras_opt.tuning.space import Space, other_ranges
from keras_opt.tuning.trial_seed import trial_seed

keras_tuner = require("keras_tuner")
_trials = require("keras_tuner.engine.trial")
Trial, Status = _trials.Trial, _trials.TrialStatus

ENDED = (Status.COMPLETED, Status.FAILED)


class SearchOracle(keras_tuner.Oracle):
    """Keeps the book of a search in one process, and asks `proposer` for the next point.

    Beside keras-tuner's: a trial whose score is NaN or infinite fails with a message; no failure ends the search unless
    `max_consecutive_failed_trials` says so; every point is new; a seed, 0 too, gives the same points and the same
    trainings (each trial begins with `keras.utils.set_random_seed`), also after a resume; files are whole or not there,
    and a trial that was cut off is given out again.

    Args:
        proposer: Chooses the next point from the `Evidence`; `None` from it ends the search.
        arguments: Those of keras-tuner's.
    """

    def __init__(self, proposer: Proposer, arguments: OracleArguments):
        super().__init__(**vars(arguments))
        self.is_seeded = arguments.seed is not None
        self.seed = arguments.seed if self.is_seeded else self.seed  # keras-tuner takes 0 for none
        self.proposer = proposer
        self.given_space = self.hyperparameters.copy()
        self.required = (self.objective.name,)  # metrics without which a trial fails
        self.unfinished: list[str] = []
        self.run_times: dict[str, int] = {}

    @property
    def expected_trials(self) -> int:
        """How many trials the search has at most; 0 where nothing but the space limits them."""
        return self.max_trials or 0

    @property
    def folder(self) -> Path:
        """Where the search is kept."""
        return Path(self._project_dir)

    # --- the life of a trial

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """keras-tuner's hook: the values of the next trial, or the end of the search."""
        point = self.proposer(self.evidence())
        return {"status": Status.STOPPED} if point is None else {"status": Status.RUNNING, "values": point}

    def create_trial(self, tuner_id: str) -> Any:
        """The trial in hand, one that was cut off or is to be retried, or a new one; STOPPED ends the search."""
        if tuner_id in self.ongoing_trials:
            return self.ongoing_trials[tuner_id]
        if self.unfinished:
            cut_off = self.trials[self.unfinished.pop(0)]
            return self._begin(tuner_id, Trial(cut_off.hyperparameters, cut_off.trial_id))
        number = 1 + max(map(int, self.trials), default=-1)
        trial_id = f"{number:04d}"
        if self.max_trials is not None and len(self.trials) >= self.max_trials:
            return Trial(self.get_space(), trial_id, Status.STOPPED)
        answer = self.populate_space(trial_id)
        space = self.get_space()
        space.values = answer.get("values") or {}
        trial = Trial(space, trial_id, answer["status"])
        return self._begin(tuner_id, trial) if trial.status == Status.RUNNING else trial

    def _begin(self, tuner_id, trial):
        self.trials[trial.trial_id] = self.ongoing_trials[tuner_id] = trial
        if trial.trial_id not in self.start_order:
            self.start_order.append(trial.trial_id)
        write_trial(self.folder, trial)
        if self.is_seeded:
            attempt = self.run_times.get(trial.trial_id, 0)  # the same seed would fail the same way
            keras.utils.set_random_seed(trial_seed(self.seed, int(trial.trial_id), attempt))
        return trial

    def update_trial(self, trial_id: str, metrics: dict[str, float], step: int = 0) -> Any:
        """Takes what a trial measured; what is NaN or infinite is left out, and said where it is the objective."""
        trial = self.trials[trial_id]
        for name, value in metrics.items():
            if not math.isfinite(value):
                trial.message = f"{name} is {value}" if name in self.required else trial.message
                continue
            if not trial.metrics.exists(name):
                direction = self.objective.direction if name == self.objective.name else None
                trial.metrics.register(name, direction)
            trial.metrics.update(name, value, step=step)
        return trial

    def end_trial(self, trial: Any) -> None:
        """Scores a trial that ended, or records why it failed.

        Raises:
            RuntimeError: So many trials in a row failed as `max_consecutive_failed_trials` allows.
        """
        known = self.trials[trial.trial_id]
        known.hyperparameters, known.status = trial.hyperparameters, trial.status
        known.message = trial.message or known.message
        self.update_space(known.hyperparameters)
        if known.status == Status.COMPLETED:
            if all(map(known.metrics.exists, self.required)):
                self.score_trial(known)
            else:
                known.status = Status.INVALID
        self.ongoing_trials = {name: each for name, each in self.ongoing_trials.items() if each is not known}
        self.run_times[known.trial_id] = self.run_times.get(known.trial_id, 0) + 1
        if known.status == Status.INVALID and self.run_times[known.trial_id] <= self.max_retries_per_trial:
            self.unfinished.append(known.trial_id)
        else:
            known.status = Status.FAILED if known.status == Status.INVALID else known.status
            self.end_order.append(known.trial_id)
        write_trial(self.folder, known)
        self.save()
        self._check_failures(known)

    def _check_failures(self, trial):
        limit = self.max_consecutive_failed_trials
        if limit is None or len(self.end_order) < limit:
            return
        if all(self.trials[trial_id].status == Status.FAILED for trial_id in self.end_order[-limit:]):
            raise RuntimeError(
                f"{limit} trials in a row failed, which is as many as `max_consecutive_failed_trials` allows. "
                f"The last one: {trial.message}"
            )

    # --- what is known

    def evidence(self) -> Evidence:
        """What the next choice rests on."""
        ended = [trial for trial in self.trials.values() if trial.status in ENDED]
        sign = -1.0 if self.objective.direction == "max" else 1.0
        return Evidence(
            space=self.hyperparameters.space,
            points=[trial.hyperparameters.values for trial in ended],
            losses=np.array([math.nan if trial.score is None else sign * trial.score for trial in ended]),
            running=[trial.hyperparameters.values for trial in self.trials.values() if trial.status not in ENDED],
            generator=np.random.default_rng([self.seed, len(self.trials)]),
        )

    def get_best_trials(self, num_trials: int = 1) -> list[Any]:
        """The best completed trials, best first; keras-tuner fills up with failed ones."""
        completed = [trial for trial in self.trials.values() if trial.status == Status.COMPLETED]
        return sorted(completed, key=lambda trial: trial.score, reverse=self.objective.direction == "max")[:num_trials]

    # --- files

    @property
    def identity(self) -> dict[str, Any]:
        """What must not change where a search goes on."""
        return {"objective": str(self.objective)}

    def get_state(self) -> dict[str, Any]:
        """What the files of the trials do not hold."""
        return {
            **self.identity,
            "seed": self.seed,
            "hyperparameters": self.hyperparameters.get_config(),
            "end_order": self.end_order,
            "run_times": self.run_times,
        }

    def save(self) -> None:
        """Writes the file of the search."""
        write_json(self.folder / "oracle.json", self.get_state())

    def reload(self) -> None:
        """Reads a search back: its intact trials, with those that were cut off or wait for a retry to be run again.

        Raises:
            ValueError: The search in this folder had another objective or seed, or another range of a parameter.
        """
        self.trials = read_trials(self.folder)
        state = read_json(self.folder / "oracle.json") or {}
        for name, value in self.identity.items():
            self.check_same(name, state.get(name, value), value)
        if self.is_seeded:
            self.check_same("seed", state.get("seed", self.seed), self.seed)
        if "hyperparameters" in state:
            self.hyperparameters = keras_tuner.HyperParameters.from_config(state["hyperparameters"])
        self.check_ranges(self.given_space.space)
        for trial in self.trials.values():
            self.update_space(trial.hyperparameters)
        self.seed = state.get("seed", self.seed)
        self.run_times = {name: times for name, times in state.get("run_times", {}).items() if name in self.trials}
        ended = [name for name, trial in self.trials.items() if trial.status in ENDED]
        self.end_order = sorted(ended, key=_rank(state.get("end_order", [])))
        self.start_order = list(self.trials)
        self.ongoing_trials = {}
        self.unfinished = [name for name in self.trials if name not in ended]

    def check_ranges(self, space: Space) -> None:
        """Raise if a parameter of `space` has another range in the search: keras-tuner goes on with the old one."""
        for now, before in other_ranges(space, self.hyperparameters.space):
            self.check_same(now.name, str(before), str(now))

    def check_same(self, name: str, before: Any, now: Any) -> None:
        """Raise if a setting of the search in the folder has changed."""
        if before != now:
            raise InputError(
                f"The search in {str(self.folder)!r} was for {name}={before}, not for {now}. Give another "
                "`project_name`, or `overwrite=True` to begin anew."
            )


def _rank(order):
    return lambda name: (order.index(name) if name in order else len(order), name)
