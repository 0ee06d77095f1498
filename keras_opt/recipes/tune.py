"""The search for a recipe's settings as one call."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keras_opt.core.errors import argument_error, check_at_least, check_positive, kind_error
from keras_opt.core.progress import Progress, Stage
from keras_opt.recipes.devices import check_devices, take_turns_on_gpus
from keras_opt.recipes.images import Prepared, prepare
from keras_opt.recipes.networks import check_network
from keras_opt.recipes.recipe import Recipe
from keras_opt.recipes.regularization import settled
from keras_opt.recipes.search_folder import Plan, begin, check_same, claimed, digest, place_of
from keras_opt.recipes.search_result import SearchResult, search_result
from keras_opt.recipes.search_space import check_searched, parameters
from keras_opt.recipes.search_trial import run_trial
from keras_opt.recipes.search_workers import Workers
from keras_opt.recipes.training import Trainer
from keras_opt.tuning.optuna_parts import check_pruner, check_sampler
from keras_opt.tuning.trial_store import TrialStore

# A trial whose process died so often fails: it may be what kills it.
MOST_DEATHS = 3


def tune(
    recipe: Recipe,
    max_trials: int = 30,
    search: Sequence[str] | None = None,
    workers: int = 1,
    max_seconds: float | None = None,
    sampler: str = "tpe",
    pruner: str | None = "asha",
    max_consecutive_failed_trials: int | None = None,
    verbose: str | int = "auto",
) -> SearchResult:
    """Searches the settings of a recipe for the best validation accuracy, and writes the recipe that has it.

    Each trial is the optimised training of `run`, for all its epochs unless its epochs so far are worse than those of
    other trials; the test images stay unread. The peak of the learning rate is looked for around the suggestion of a
    range test, the width of the network and its weight decay by their ratio, and its depth, dropout and the strength of
    its augmentation evenly. When: a training takes minutes, and a point of accuracy is worth thirty of them. When not:
    before the data are as they should be.

    The trials are kept in `study.db`, which `optuna-dashboard` opens. A search that is interrupted or killed loses at
    most what it had in hand of its trials: `Recipe(resume=True)` runs those again and goes on, also for more trials.
    With one worker the same seed gives the same trials, also after a kill.

    Args:
        recipe: The settings of every trial but for those that are searched; its `out` (default `runs/NAME-tune`),
            `overwrite` and `resume` are the search's. `epochs` is what a trial costs at most.
        max_trials: Int of at least 1, of all sessions together. Default 30.
        search: Names out of `"max_learning_rate"`, `"width"`, `"depth"`, `"dropout"`, `"augment_strength"` and
            `"weight_decay"`; `None` searches all, with a backbone all but its width and depth.
        workers: Int of at least 1, processes that train at once, share the cores and take the GPUs in turn. One is
            this process. The trial of one that dies is given to another. With a strategy in the recipe it must be 1,
            and each trial takes all devices of that. Default 1.
        max_seconds: Float above 0: no trial begins after so many seconds. Default `None`, no limit.
        sampler: `"tpe"`, `"gp"` (needs torch) or `"cmaes"`, as in `OptunaOracle`.
        pruner: `"asha"`, `"median"` or `None`, as in `OptunaOracle`.
        max_consecutive_failed_trials: Int of at least 1, failures in a row that end the search; `None` for no limit.
        verbose: 0 is silent, 2 shows plain lines, `"auto"` and 1 a bar with the time left on a terminal and lines
            elsewhere; on standard error.

    Returns:
        A `SearchResult`: the best recipe and all trials. The folder has `recipe.yaml` for `keras-opt train --recipe`,
        `report.html`, `trials.csv` and `study.db`.

    Raises:
        ValueError: A setting, or the folder, cannot be used; another process searches in it.
        RuntimeError: Every trial failed, or too many in a row.

    Warns:
        UserWarning: The storage was damaged; says what is left of it.

    Cost: at most `max_trials` trainings; with `pruner="asha"` about half of their epochs or less.

    Example:
        >>> import keras_opt
        >>> recipe = keras_opt.recipes.Recipe.demo(epochs=8)
        >>> found = keras_opt.recipes.tune(recipe, max_trials=20)       # doctest: +SKIP
        >>> found.recipe.dropout                                        # doctest: +SKIP
        0.31
    """
    if not isinstance(recipe, Recipe):
        raise kind_error("tune", "recipe", recipe, "a Recipe", "Give keras_opt.recipes.Recipe(...).")
    for name, value in (("max_trials", max_trials), ("workers", workers)):
        check_at_least("tune", name, value, 1)
    if max_consecutive_failed_trials is not None:
        check_at_least("tune", "max_consecutive_failed_trials", max_consecutive_failed_trials, 1)
    if max_seconds is not None:
        check_positive("tune", "max_seconds", max_seconds)
    progress = Progress.of("tune", verbose)
    names = check_searched(recipe, search)
    check_sampler("tune", sampler)
    check_pruner("tune", pruner)
    check_devices(recipe)
    if workers > 1 and recipe.strategy is not None:
        cure = "Each process would take all devices: leave one of the two out."
        raise argument_error("tune", "workers", workers, f"1 beside strategy={recipe.strategy!r} of the recipe", cure)
    if workers > 1:
        take_turns_on_gpus(None, recipe.device)
    check_network(recipe)
    folder = place_of(recipe)
    with claimed(folder, recipe):
        images = digest(recipe)
        prepared = None
        if recipe.resume:
            plan = Plan.load(folder)
            given = {**recipe.settings, "sampler": sampler, "pruner": pruner, "search": search and names}
            check_same(plan, given, images)
        else:
            prepared = prepare(recipe, progress)
            plan = _plan(recipe, prepared, names, sampler, pruner, images, progress)
            begin(folder)
            plan.save(folder)
        search_ = _Search(plan, plan.open_store(folder), max_trials, max_seconds, max_consecutive_failed_trials)
        try:
            search_.run(folder, prepared, workers, progress)
        except KeyboardInterrupt as error:
            raise KeyboardInterrupt(search_.kept(folder)) from error
        found = search_result(plan, search_.store, folder)
        search_.store.close()
        return found


def _plan(
    recipe: Recipe,
    prepared: Prepared,
    names: tuple[str, ...],
    sampler: str,
    pruner: str | None,
    images: str,
    progress: Progress,
) -> Plan:
    recipe = settled(recipe, len(prepared.train), progress)
    rate = recipe.max_learning_rate
    if "max_learning_rate" in names:
        rate = Trainer(recipe, prepared, progress).range_test().suggestion or rate
    found = parameters(recipe, names, rate)
    for each in found:
        progress.say(f"searching {each.name} from {each.low:.3g} to {each.high:.3g}")
    return Plan(recipe, found, sampler, pruner, images)


class _Search:
    """Shares out the trials of one session."""

    def __init__(
        self,
        plan: Plan,
        store: TrialStore,
        max_trials: int,
        max_seconds: float | None,
        max_failures: int | None,
    ):
        self.plan = plan
        self.store = store
        self._max_trials, self._max_seconds, self._max_failures = max_trials, max_seconds, max_failures
        self._begin = time.monotonic()
        self._cut_off = [trial.number for trial in store.trials("RUNNING")]
        self._is_exhausted = False
        self._deaths: dict[int, int] = {}
        self._stage = Stage("search", max_trials)

    def run(self, folder: Path, prepared: Prepared | None, workers: int, progress: Progress) -> None:
        """Run trials until there are no more."""
        with progress.stage("search", self._max_trials) as self._stage:
            if done := len(self._ended()):
                self._stage.advance(done, f"{done} were finished")
            if workers > 1:
                with Workers(folder, workers) as several:
                    several.run(self.take, self.is_finished, self.give_back)
                return
            prepared = prepared or prepare(self.plan.recipe, progress)
            while (number := self.take()) is not None:
                run_trial(self.plan.recipe, prepared, self.store, number)
                self.is_finished(number)

    def take(self) -> int | None:
        """The number of the next trial: one that was cut off, or a new one; `None` where there is none."""
        self._check_failures()
        if self._max_seconds is not None and time.monotonic() - self._begin > self._max_seconds:
            return None
        if self._cut_off:
            return self._cut_off.pop(0)
        if self._is_exhausted or len(self.store.trials()) >= self._max_trials:
            return None
        found = self.store.propose(self.plan.sampler, self.plan.recipe.seed, self._fill, {})
        self._is_exhausted = found is None
        return found and found[0]

    def is_finished(self, number: int) -> bool:
        """Whether a trial is; counts it in the bar if so."""
        if not self.store.trial(number).state.is_finished():
            return False
        best = max((trial.value for trial in self.store.trials("COMPLETE")), default=None)
        self._stage.advance(1, "" if best is None else f"best {best:.4f}")
        return True

    def give_back(self, number: int, death: str) -> None:
        """Take the trial of a process that died: another gets it, unless too many died of it."""
        deaths = self._deaths[number] = self._deaths.get(number, 0) + 1
        if deaths < MOST_DEATHS:
            self._cut_off.append(number)
            return
        self.store.fail(number, f"{deaths} processes died of it, the last with {death}")
        self.is_finished(number)

    def kept(self, folder: Path) -> str:
        """What an interrupted search leaves, and how to go on."""
        return f"Kept in {folder}: {len(self._ended())} finished trials. Go on with --out {folder} --resume."

    def _fill(self, draw: Any) -> dict[str, Any]:
        return {each.name: draw(each.name, each.distribution) for each in self.plan.parameters}

    def _ended(self) -> list[Any]:
        return self.store.trials("COMPLETE", "PRUNED", "FAIL")

    def _check_failures(self) -> None:
        limit = self._max_failures
        ended = sorted(self._ended(), key=lambda trial: trial.datetime_complete)[-limit:] if limit else []
        if limit and len(ended) == limit and all(trial.state.name == "FAIL" for trial in ended):
            raise RuntimeError(
                f"tune: {limit} trials in a row failed, as many as `max_consecutive_failed_trials` allows. The last: "
                f"{ended[-1].user_attrs['error']}"
            )
