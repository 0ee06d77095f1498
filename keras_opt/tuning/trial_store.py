"""The trials of a search in Optuna's SQLite file, which `optuna-dashboard` opens."""

import contextlib
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from keras_opt.core.optional import require
from keras_opt.tuning.optuna_parts import make_pruner, make_sampler
from keras_opt.tuning.storage_rescue import LOCK_SECONDS, damage_of, rescue
from keras_opt.tuning.trial_seed import trial_seed

STUDY_NAME = "keras_opt"
# How often the sampler may propose what was tried already, before points are drawn at random, and how often those.
MOST_COLLISIONS = 10
MOST_DRAWS = 5000

# How many parameters a trial has: kept last, when all of them are there.
_PARAMETERS = "parameters"

Values = dict[str, Any]
# Of each name its value and its distribution, as Optuna has them.
Drawn = dict[str, tuple[Any, Any]]
# Given a function that draws the value of a named distribution, fills a point of the space.
Fill = Callable[[Callable[[str, Any], Any]], Values]


class TrialStore:
    """Proposes trials, and keeps what came of them.

    Args:
        path: The SQLite file; made where there is none. One that is damaged is put aside, what is intact in it is kept.
        directions: `"minimize"` or `"maximize"` for each objective.
        pruner: `"asha"`, `"median"` or `None`.
        min_epochs: Epochs that every trial is given.

    Raises:
        InputError: The file holds nothing of Optuna.

    Warns:
        UserWarning: The file was damaged; says what is left.
    """

    def __init__(self, path: Path, directions: Sequence[str], pruner: str | None = None, min_epochs: int = 1):
        optuna = require("optuna")
        found = damage_of(path)
        kept = rescue(path) if found else None
        with quiet_optuna():
            self._storage = _open(path)
            self.study = optuna.create_study(
                study_name=STUDY_NAME, storage=self._storage, directions=list(directions), load_if_exists=True
            )
            for trial in kept.trials if kept else ():
                self.study.add_trial(trial)
            for name, value in (kept.study_attributes if kept else {}).items():
                self.study.set_user_attr(name, value)
        if kept:
            warnings.warn(
                f"The storage {str(path)!r} was damaged ({found}): {len(kept.trials)} finished trials were intact and "
                f"are kept; the damaged file is now {str(kept.damaged)!r}.",
                stacklevel=3,
            )
        self.pruner = make_pruner(pruner, min_epochs)
        self._study_id = self._storage.get_study_id_from_name(STUDY_NAME)

    def trials(self, *states: str) -> list[Any]:
        """Optuna's frozen trials of these states (`"COMPLETE"`, ...) or of all; those without a point never began."""
        wanted = [require("optuna").trial.TrialState[name] for name in states] or None
        found = self.study.get_trials(deepcopy=False, states=wanted)
        return [trial for trial in found if _PARAMETERS in trial.user_attrs]

    def propose(self, sampler: str, seed: int, fill: Fill, attributes: dict[str, Any]) -> tuple[int, Values] | None:
        """Begin a trial at a point that was not tried yet; `None` where the space has no more.

        Args:
            sampler: Its name.
            seed: Of the search.
            fill: Fills a point.
            attributes: What to keep beside the trial, for people and for whoever goes on with the search.

        Returns:
            Its number and its point.
        """
        begun = self.trials()
        tried = {_key(trial.params) for trial in begun}
        trial_id = self._storage.create_new_trial(self._study_id)
        trial = self._storage.get_trial(trial_id)
        for attempt in range(MOST_COLLISIONS + MOST_DRAWS):
            own_seed = trial_seed(seed, len(begun), attempt)
            draw = _Draw(self.study, trial, sampler if attempt < MOST_COLLISIONS else None, own_seed)
            values = fill(draw)
            if _key(draw.values()) not in tried:
                self.extend(trial.number, draw.drawn)
                self.note(trial.number, **attributes, **{_PARAMETERS: len(draw.drawn)})  # last: now it has begun
                return trial.number, values
            if not draw.drawn:
                break
        self._tell(trial.number, "FAIL")
        return None

    def add(self, state: str, drawn: Drawn, attributes: dict[str, Any], values: Sequence[float] | None = None) -> int:
        """Add a trial that was proposed elsewhere, and return its number."""
        optuna = require("optuna")
        trial = optuna.trial.create_trial(
            state=optuna.trial.TrialState[state],
            values=values,
            params={name: value for name, (value, _) in drawn.items()},
            distributions={name: distribution for name, (_, distribution) in drawn.items()},
            user_attrs={**attributes, _PARAMETERS: len(drawn)},
        )
        # As `study.add_trial`, which does not say which number it has: another process may have added one since.
        return self._storage.get_trial(self._storage.create_new_trial(self._study_id, template_trial=trial)).number

    def extend(self, number: int, drawn: Drawn) -> None:
        """Give a trial the parameters that it lacks."""
        trial = self.trial(number)
        new = {name: each for name, each in drawn.items() if name not in trial.params}
        for name, (value, distribution) in new.items():
            self._storage.set_trial_param(self._id(number), name, distribution.to_internal_repr(value), distribution)
        if new and _PARAMETERS in trial.user_attrs:
            self.note(number, **{_PARAMETERS: len(trial.params) + len(new)})

    def report(self, number: int, epoch: int, value: float) -> bool:
        """Keep the value of an epoch (from 1 up); says whether the trial is not worth going on with.

        It is judged by its epochs up to this one: one that was cut off, or that runs again, has later ones in the file.
        """
        trial_id = self._id(number)
        self._storage.set_trial_intermediate_value(trial_id, epoch, value)
        trial = self._storage.get_trial(trial_id)
        trial.intermediate_values = {each: kept for each, kept in trial.intermediate_values.items() if each <= epoch}
        return self.pruner.prune(self.study, trial)

    def note(self, number: int, **attributes: Any) -> None:
        """Keep something beside a trial that is not finished."""
        for name, value in attributes.items():
            self._storage.set_trial_user_attr(self._id(number), name, value)

    def complete(self, number: int, values: Sequence[float]) -> None:
        """End a trial with the value of each objective."""
        self._tell(number, "COMPLETE", list(values))

    def stop(self, number: int) -> None:
        """End a trial that was not worth going on with; its last epoch's value counts."""
        self._tell(number, "PRUNED")

    def fail(self, number: int, error: str) -> None:
        """End a trial that came to nothing."""
        self.note(number, error=error)
        self._tell(number, "FAIL")

    def trial(self, number: int) -> Any:
        """Optuna's frozen trial."""
        return self._storage.get_trial(self._id(number))

    def close(self) -> None:
        """Let go of the file."""
        self._storage.remove_session()
        self._storage.engine.dispose()

    def _tell(self, number: int, state: str, values: list[float] | None = None) -> None:
        with quiet_optuna():
            self.study.tell(number, values, require("optuna").trial.TrialState[state])

    def _id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._study_id, number)


class _Draw:
    """Draws the values of one point, by a sampler or at random, and knows what was drawn."""

    def __init__(self, study: Any, trial: Any, sampler: str | None, seed: int):
        self.drawn: Drawn = {}
        self._study, self._trial = study, trial
        self._sampler = make_sampler(sampler, seed)
        self._together = self._sampler.infer_relative_search_space(study, trial)
        self._values = self._sampler.sample_relative(study, trial, self._together)

    def __call__(self, name: str, distribution: Any) -> Any:
        if distribution.single():
            value = distribution.to_external_repr(0 if hasattr(distribution, "choices") else distribution.low)
        elif name in self._values and self._together[name] == distribution:
            value = self._values[name]
        else:
            value = self._sampler.sample_independent(self._study, self._trial, name, distribution)
        self.drawn[name] = value, distribution
        return value

    def values(self) -> Values:
        return {name: value for name, (value, _) in self.drawn.items()}


@contextlib.contextmanager
def quiet_optuna() -> Iterator[None]:
    """Hold back Optuna's notes, and put its logging back as it was."""
    logging = require("optuna").logging
    before = logging.get_verbosity()
    logging.set_verbosity(logging.WARNING)
    try:
        yield
    finally:
        logging.set_verbosity(before)


def is_value(value: Any) -> bool:
    """Whether an objective can have this value: NaN and infinity say that a trial came to nothing."""
    return value is not None and math.isfinite(value)


def _key(values: Values) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, repr(value)) for name, value in values.items()))


def _open(path: Path) -> Any:
    settings = {"connect_args": {"timeout": LOCK_SECONDS}}
    return require("optuna").storages.RDBStorage(f"sqlite:///{path.resolve()}", engine_kwargs=settings)
