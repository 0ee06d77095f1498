"""Results by class: the scores, the confusion matrix, and the pairs that are confused most."""

import math

import numpy as np

from keras_opt.report.inputs import ConfusionMatrix
from keras_opt.report.markup import Html, element
from keras_opt.report.scores import class_scores, most_confused
from keras_opt.report.tables import scroll_box

MOST_UPRIGHT_CLASSES = 6
MOST_ROOMY_CLASSES = 14
MOST_DRAWN_CLASSES = 100


def draw_class_scores(confusion: ConfusionMatrix) -> Html:
    """Draw precision, recall and F1 of each class, with the mean over classes."""
    scores = class_scores(confusion.counts)
    columns = np.column_stack([scores.precision, scores.recall, scores.f1])
    names = ("class", "precision", "recall", "F1", "images")
    heading = [element("th", name, scope="col", class_="number" if name != "class" else None) for name in names]
    rows = [
        _score_row(name, values, int(images))
        for name, values, images in zip(confusion.class_names, columns, scores.support, strict=True)
    ]
    content = element(
        "table",
        element("thead", element("tr", *heading)),
        element("tbody", *rows),
        element("tfoot", _score_row("mean, total", columns.mean(axis=0), int(scores.support.sum()))),
        class_="scores",
    )
    return element(
        "div",
        element("h3", "Precision, recall and F1"),
        scroll_box(content, "Precision, recall and F1 by class"),
        *[element("p", note, class_="note") for note in _score_notes(confusion, scores.predicted, scores.support)],
    )


def draw_confusion(confusion: ConfusionMatrix) -> Html:
    """Draw the matrix as a table: shades show each count's share of its row, blue where right and red where wrong."""
    names, counts = confusion.class_names, confusion.counts
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    drawn = _classes_to_draw(counts)
    heading = [element("th", element("span", names[each]), scope="col", title=names[each]) for each in drawn]
    rows = [
        element(
            "tr",
            element("th", names[row], scope="row", title=names[row]),
            *[_cell(names, counts, shares, row, column) for column in drawn],
        )
        for row in drawn
    ]
    kinds = ["matrix"]
    kinds += ["upright"] if len(drawn) <= MOST_UPRIGHT_CLASSES else []
    kinds += ["dense"] if len(drawn) > MOST_ROOMY_CLASSES else []
    content = element(
        "table",
        element("thead", element("tr", element("th", "true \\ predicted", scope="col"), *heading)),
        element("tbody", *rows),
        class_=" ".join(kinds),
    )
    legend = (
        "Rows are true classes, columns predicted ones. Shade: share of the row, blue where right, red where wrong."
    )
    if len(drawn) < len(names):
        legend += f" Drawn are the {len(drawn)} classes with the most mistakes, of {len(names):,}."
    return element(
        "div",
        element("h3", "Confusion matrix"),
        scroll_box(content, "Confusion matrix"),
        element("p", legend, class_="note"),
    )


def draw_most_confused(confusion: ConfusionMatrix) -> Html | None:
    """Draw the most frequent confusions as sentences; `None` where there are none."""
    names, images = confusion.class_names, confusion.counts.sum(axis=1)
    items = [
        element(
            "li",
            element("b", names[true]),
            " taken for ",
            element("b", names[predicted]),
            element("span", f"{count:,} of {images[true]:,}", class_="value"),
        )
        for true, predicted, count in most_confused(confusion.counts)
    ]
    if not items:
        return None
    return element("div", element("h3", "Most frequent confusions"), element("ol", *items, class_="confusions"))


def _score_row(name: str, values: np.ndarray, images: int) -> Html:
    cells = [element("td", f"{value:.3f}", class_="number") for value in values[:-1]]
    f1 = element("td", f"{values[-1]:.3f}", class_="number meter", style=f"--share:{values[-1]:.3f}")
    return element("tr", element("th", name, scope="row"), *cells, f1, element("td", f"{images:,}", class_="number"))


def _score_notes(confusion: ConfusionMatrix, predicted: np.ndarray, support: np.ndarray) -> list[str]:
    never = [name for name, count in zip(confusion.class_names, predicted, strict=True) if count == 0]
    without = [name for name, count in zip(confusion.class_names, support, strict=True) if count == 0]
    notes = [f"Never predicted, so precision counts as 0: {', '.join(never)}."] if never else []
    return notes + ([f"No images, so recall counts as 0: {', '.join(without)}."] if without else [])


def _classes_to_draw(counts: np.ndarray) -> list[int]:
    """The classes in their order; where they are too many to look at, those with the most mistakes."""
    mistakes = counts.sum(axis=0) + counts.sum(axis=1) - 2 * counts.diagonal()
    return sorted(np.argsort(-mistakes, kind="stable")[:MOST_DRAWN_CLASSES].tolist())


def _cell(names, counts: np.ndarray, shares: np.ndarray, row: int, column: int) -> Html:
    count, share, right = counts[row, column], shares[row, column], row == column
    if count == 0:
        return element("td", class_="right" if right else None)
    # Shares of single mistakes are small: the square root lifts them to where they can be seen.
    shade = share if right else math.sqrt(share)
    return element(
        "td",
        f"{count}",
        class_=("right" if right else "wrong") + (" strong" if shade > 0.55 else ""),
        style=f"--shade:{shade:.3f}",
        title=f"{names[row]} \N{RIGHTWARDS ARROW} {names[column]}: {count} ({100 * share:.1f} %)",
    )
