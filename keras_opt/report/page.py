"""The report page: one HTML file with no script and no request to anywhere."""

import os
from collections.abc import Iterable, Sequence
from importlib import resources

from keras_opt.core.files import write_atomic
from keras_opt.report.charts import draw_chart, draw_curve
from keras_opt.report.classes import draw_class_scores, draw_confusion, draw_most_confused
from keras_opt.report.inputs import ConfusionMatrix, KeyNumber, Report, Table
from keras_opt.report.markup import Html, element
from keras_opt.report.tables import draw_table
from keras_opt.report.thumbnails import draw_mistake

# The browser itself refuses whatever the page does not hold.
CONTENT_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
MOST_OPEN_ROWS = 8


def write_report(path: str | os.PathLike, report: Report) -> None:
    """Write the report as one HTML file, whole or not at all.

    The file needs no network, no script and no other file; the same report gives the same bytes.

    Args:
        path: Where to write, for example `runs/demo/report.html`; its folder must exist.
        report: What to show. Every text in it is escaped.

    Cost: some 10 kB for each curve, 1 kB for each small thumbnail, and 100 kB for a matrix of 40 classes;
    of more than 100 classes the matrix shows those with the most mistakes.

    Example:
        >>> write_report("report.html", Report("Fashion-MNIST", "Ten kinds of clothes."))  # doctest: +SKIP
    """
    write_atomic(path, render(report))


def render(report: Report) -> str:
    """The page as text."""
    return page(report.title, report.summary, report.headline, _sections(report), report.footer)


def page(title: str, summary: str, headline: Sequence[KeyNumber], sections: Iterable[Html | None], footer: str) -> str:
    """A page of sections below a heading; what is empty is left out."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", http_equiv="Content-Security-Policy", content=CONTENT_POLICY),
        element("title", title),
        element("link", rel="icon", href="data:,"),
        element("style", Html(resources.files(__package__).joinpath("style.css").read_text("utf-8"))),
    )
    header = element(
        "header",
        element("h1", title),
        element("p", summary, class_="summary") if summary else None,
        element("dl", *[_key_number(number) for number in headline], class_="headline") if headline else None,
    )
    last = element("footer", element("p", footer)) if footer else None
    body = element("body", header, element("main", *filter(None, sections)), last)
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


def _sections(report: Report) -> list[Html | None]:
    comparison, skipped, confusion = report.comparison, report.skipped, report.confusion
    return [
        section(comparison.title, draw_table(comparison)) if comparison else None,
        section(skipped.title, _foldable(skipped)) if skipped else None,
        section("Size, speed, accuracy", grid("thirds", map(draw_chart, report.charts))) if report.charts else None,
        section("Training", grid("halves", map(draw_curve, report.curves))) if report.curves else None,
        section("Results by class", *_classes(confusion)) if confusion else None,
        section("Worst mistakes", grid("thumbnails", map(draw_mistake, report.mistakes))) if report.mistakes else None,
        section("How it was made", grid("halves", map(_detail, report.details))) if report.details else None,
    ]


def section(title: str, *content: Html) -> Html:
    """A section with its heading."""
    return element("section", element("h2", title), *content)


def grid(kind: str, cells: Iterable[Html]) -> Html:
    """Cells beside one another, in `"halves"` or `"thirds"` of the width."""
    return element("div", *cells, class_=f"grid {kind}")


def _key_number(number: KeyNumber) -> Html:
    note = element("dd", number.note, class_="note") if number.note else None
    return element("div", element("dt", number.label), element("dd", number.value), note)


def _foldable(table: Table) -> Html:
    count = len(table.rows)
    summary = element("summary", f"{count} file{'s' * (count != 1)} left out")
    return element("details", summary, draw_table(table), open=count <= MOST_OPEN_ROWS)


def _classes(confusion: ConfusionMatrix) -> list[Html]:
    scores, matrix = draw_class_scores(confusion), draw_confusion(confusion)
    return [element("div", scores, matrix, class_="beside"), draw_most_confused(confusion)]


def _detail(table: Table) -> Html:
    return element("div", element("h3", table.title), draw_table(table), class_="detail")
