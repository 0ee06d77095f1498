"""The report page of a search: its trials, what mattered, the best."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from keras_opt.core.files import write_atomic
from keras_opt.report.charts import draw_chart, draw_curve
from keras_opt.report.inputs import Chart, Curve, KeyNumber, Table
from keras_opt.report.markup import Html
from keras_opt.report.page import grid, page, section
from keras_opt.report.parallel import ParallelCoordinates, draw_parallel
from keras_opt.report.tables import draw_table


@dataclass(frozen=True)
class SearchReport:
    """Everything the page of a search shows.

    Args:
        title: The page's heading.
        summary: One or two sentences below it.
        headline: Three or four key numbers.
        trials: One row a trial, the best first.
        parallel: Their settings and scores.
        progress: The best score after each trial.
        best: The settings of the best trial.
        importance: How much each setting mattered; `None` where that cannot be said.
        failures: The trials that failed, with their errors.
        footer: Last line.
    """

    title: str
    summary: str
    headline: Sequence[KeyNumber]
    trials: Table
    parallel: ParallelCoordinates
    progress: Curve
    best: Table
    importance: Chart | None = None
    failures: Table | None = None
    footer: str = ""


def write_search_report(path: str | os.PathLike, report: SearchReport) -> None:
    """Write the report of a search as one HTML file, whole or not at all; as `write_report` in all else.

    Args:
        path: Where to write; its folder must exist.
        report: What to show. Every text in it is escaped.
    """
    sections = [
        section(report.best.title, draw_table(report.best)),
        section("What was tried", draw_parallel(report.parallel)),
        section("How it went", grid("halves", _plots(report))),
        section(report.trials.title, draw_table(report.trials)),
        section(report.failures.title, draw_table(report.failures)) if report.failures else None,
    ]
    write_atomic(path, page(report.title, report.summary, report.headline, sections, report.footer))


def _plots(report: SearchReport) -> list[Html]:
    importance = [draw_chart(report.importance)] if report.importance else []
    return [draw_curve(report.progress), *importance]
