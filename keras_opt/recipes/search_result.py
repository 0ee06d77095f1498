"""What a search found, and its files."""

import csv
import dataclasses
import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_opt.core.files import write_atomic
from keras_opt.core.optional import require
from keras_opt.recipes.recipe import Recipe
from keras_opt.recipes.search_folder import Plan
from keras_opt.recipes.search_trial import OBJECTIVE
from keras_opt.report.inputs import Bar, Chart, Curve, KeyNumber, Line, Table
from keras_opt.report.parallel import Coordinate, ParallelCoordinates
from keras_opt.report.search_page import SearchReport, write_search_report
from keras_opt.tuning.trial_store import TrialStore

STATES = {"COMPLETE": "completed", "PRUNED": "stopped early", "FAIL": "failed", "RUNNING": "cut off"}
# With fewer completed trials nothing can be said of what matters.
LEAST_FOR_IMPORTANCE = 4


@dataclass(frozen=True)
class TrialRecord:
    """One trial.

    Attributes:
        number: From 0, in the order in which they were begun.
        state: `"completed"`, `"stopped early"`, `"failed"` or `"cut off"`.
        value: The validation accuracy of its best epoch, of a trial that was stopped early of its last; `None` if it
            failed.
        settings: What was searched.
        epochs: How many were trained.
        seconds: How long that took.
        error: Why it failed.
    """

    number: int
    state: str
    value: float | None
    settings: dict[str, Any]
    epochs: int
    seconds: float
    error: str


@dataclass(frozen=True)
class SearchResult:
    """What `tune` found.

    Attributes:
        recipe: The best trial's; its `recipe.yaml` is in the folder.
        value: Its validation accuracy.
        trials: All of them.
        importance: Of each setting, how much of the variance of the completed trials it explains; empty with too few.
        folder: Where everything lies.
    """

    recipe: Recipe
    value: float
    trials: tuple[TrialRecord, ...]
    importance: dict[str, float]
    folder: Path

    @property
    def table(self) -> Table:
        """The best trials."""
        return _table(self, "The best trials", 10)


def search_result(plan: Plan, store: TrialStore, folder: Path) -> SearchResult:
    """Gather what was found, and write the files of a finished search.

    Raises:
        RuntimeError: Every trial failed.
    """
    trials = tuple(_record(trial) for trial in store.trials())
    completed = [trial for trial in trials if trial.state == "completed"]
    if not completed:
        errors = sorted({trial.error for trial in trials if trial.error}) or ["no trial was finished in time"]
        raise RuntimeError(f"tune: no trial was completed, of {len(trials)}: {'; '.join(errors[:3])}")
    best = max(completed, key=lambda trial: trial.value)
    result = SearchResult(
        recipe=dataclasses.replace(plan.recipe, **best.settings),
        value=best.value,
        trials=trials,
        importance=_importance(store, len(completed)),
        folder=folder,
    )
    result.recipe.save(folder / "recipe.yaml")
    write_atomic(folder / "trials.csv", _csv(result))
    write_search_report(folder / "report.html", _report(result, best, plan))
    return result


def _record(trial: Any) -> TrialRecord:
    values = trial.intermediate_values
    last = values[max(values)] if values and trial.state.name == "PRUNED" else None
    return TrialRecord(
        number=trial.number,
        state=STATES[trial.state.name],
        value=trial.value if trial.state.name == "COMPLETE" else last,
        settings=trial.params,
        epochs=trial.user_attrs.get("epochs", 0),
        seconds=trial.user_attrs.get("seconds", 0.0),
        error=trial.user_attrs.get("error", ""),
    )


def _importance(store: TrialStore, completed: int) -> dict[str, float]:
    if completed < LEAST_FOR_IMPORTANCE:
        return {}
    importance = require("optuna").importance
    with warnings.catch_warnings(action="ignore"):
        try:
            return dict(
                importance.get_param_importances(store.study, evaluator=importance.FanovaImportanceEvaluator(seed=0))
            )
        except (RuntimeError, ValueError):  # all values are the same: nothing is to be explained
            return {}


def _csv(result: SearchResult) -> str:
    names = list(result.trials[0].settings)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["number", "state", OBJECTIVE, *names, "epochs", "seconds", "error"])
    for trial in result.trials:
        settings = [trial.settings[name] for name in names]
        writer.writerow([trial.number, trial.state, trial.value, *settings, trial.epochs, trial.seconds, trial.error])
    return text.getvalue()


def _table(result: SearchResult, title: str, most: int | None = None) -> Table:
    """The trials, best first."""
    names = list(result.trials[0].settings)
    ranked = sorted(result.trials, key=_rank)[:most]
    rows = [
        (
            str(trial.number),
            "-" if trial.value is None else f"{100 * trial.value:.2f} %",
            trial.state,
            *(_text(trial.settings[name]) for name in names),
            str(trial.epochs),
            f"{trial.seconds:.1f} s",
        )
        for trial in ranked
    ]
    note = "Accuracy is that of the validation images, in the best epoch; of a trial stopped early, in its last."
    return Table(title, ("trial", "accuracy", "state", *names, "epochs", "time"), rows, note)


def _rank(trial: TrialRecord) -> tuple[bool, float]:
    return trial.state != "completed", -(trial.value or 0.0)


def _text(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.3g}"


def _report(result: SearchResult, best: TrialRecord, plan: Plan) -> SearchReport:
    shown = [trial for trial in result.trials if trial.value is not None]
    failed = [trial for trial in result.trials if trial.state == "failed"]
    axes = [
        Coordinate(each.name, [float(trial.settings[each.name]) for trial in shown], each.log, each.whole)
        for each in plan.parameters
    ]
    axes.append(Coordinate("validation accuracy", [trial.value for trial in shown]))
    parallel = ParallelCoordinates(
        "Settings and accuracy",
        axes,
        [f"trial {trial.number}, {trial.state}" for trial in shown],
        best=shown.index(best),
        note="One line a trial, the darker the better; the best one is in colour.",
    )
    bars = [
        Bar(name, share, f"{100 * share:.0f} %", highlight=not place)
        for place, (name, share) in enumerate(result.importance.items())
    ]
    note = "Share of the variance of the completed trials (fANOVA)."
    settings = [(name, _text(value)) for name, value in best.settings.items()]
    return SearchReport(
        title=f"{result.folder.name}: a search for the recipe",
        summary=f"{len(result.trials)} trials; the best, number {best.number}, has a validation accuracy of "
        f"{100 * result.value:.2f} %. The test images were not read.",
        headline=[
            KeyNumber(f"{100 * result.value:.2f} %", "validation accuracy", f"trial {best.number}"),
            KeyNumber(str(len(result.trials)), "trials", _counts(result)),
            KeyNumber(f"{sum(trial.seconds for trial in result.trials):.0f} s", "training", "all trials together"),
        ],
        trials=_table(result, "Trials"),
        failures=Table("Failed trials", ("trial", "why"), [(str(each.number), each.error) for each in failed])
        if failed
        else None,
        parallel=parallel,
        importance=Chart("What mattered", bars, note) if bars else None,
        progress=_best_so_far(result),
        best=Table("The best recipe", ("setting", "value"), settings, "All settings are in recipe.yaml."),
        footer=f"Train it with: keras-opt train --recipe {result.folder / 'recipe.yaml'}",
    )


def _counts(result: SearchResult) -> str:
    states = [trial.state for trial in result.trials]
    return ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(STATES.values()) if state in states)


def _best_so_far(result: SearchResult) -> Curve:
    completed = [trial for trial in result.trials if trial.state == "completed"]
    best = [max(trial.value for trial in completed[: place + 1]) for place in range(len(completed))]
    line = Line("best", [trial.number for trial in completed], best)
    return Curve("Best so far", "trial", "validation accuracy", [line])
