"""Parallel coordinates as inline SVG: one axis a setting, one line a trial."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from keras_opt.core.errors import argument_error
from keras_opt.report.axis import Axis, tick_text
from keras_opt.report.markup import Html, element

STEP, TOP, HEIGHT, BOTTOM, SIDE = 150, 34, 300, 20, 70
FAINTEST, DARKEST = 0.12, 0.6


@dataclass(frozen=True)
class Coordinate:
    """One axis.

    Args:
        label: Its name.
        values: One a line.
        log: Logarithmic; all values must be above 0.
        whole: Marks whole numbers only.
    """

    label: str
    values: Sequence[float]
    log: bool = False
    whole: bool = False


@dataclass(frozen=True)
class ParallelCoordinates:
    """Lines over several axes; the last axis is what the lines are judged by, upwards is better.

    Args:
        title: Its heading.
        coordinates: The axes, from left to right, at least two.
        labels: One a line, for its tooltip.
        best: Index of the line that is drawn in colour, on top.
        note: A line below the plot.

    Raises:
        InputError: An axis has more or fewer values than there are lines.
    """

    title: str
    coordinates: Sequence[Coordinate]
    labels: Sequence[str]
    best: int
    note: str = ""

    def __post_init__(self):
        for axis in self.coordinates:
            if len(axis.values) != len(self.labels):
                must_be = f"{len(self.labels)} on each axis, one a line"
                cure = f"Axis {axis.label!r} has another number."
                raise argument_error("ParallelCoordinates", "values", len(axis.values), must_be, cure)


def draw_parallel(plot: ParallelCoordinates) -> Html:
    """Draw the plot as a figure."""
    width = 2 * SIDE + STEP * (len(plot.coordinates) - 1)
    axes = [_axis(each) for each in plot.coordinates]
    heights = np.column_stack([axis.place(each.values) for axis, each in zip(axes, plot.coordinates, strict=True)])
    worst_first = np.argsort(plot.coordinates[-1].values, kind="stable")
    order = [*(line for line in worst_first if line != plot.best), plot.best]
    shades = np.linspace(FAINTEST, DARKEST, len(order))
    lines = [
        _line(plot, int(line), heights[line], shade, is_best=line == plot.best)
        for line, shade in zip(order, shades, strict=True)
    ]
    marks = [
        _mark(each, axis, SIDE + STEP * place)
        for place, (each, axis) in enumerate(zip(plot.coordinates, axes, strict=True))
    ]
    svg = element(
        "svg",
        *marks,
        *lines,
        viewBox=f"0 0 {width} {HEIGHT + BOTTOM}",
        role="img",
        aria_label=f"{plot.title}: {len(order)} lines over {', '.join(each.label for each in plot.coordinates)}.",
        class_="plot",
    )
    note = element("p", plot.note, class_="note") if plot.note else None
    return element("figure", element("h3", plot.title), svg, note)


def _axis(each: Coordinate) -> Axis:
    return Axis.around(np.asarray(each.values, float), HEIGHT, TOP, log=each.log, whole=each.whole)


def _line(plot: ParallelCoordinates, line: int, heights: np.ndarray, shade: float, *, is_best: bool) -> Html:
    corners = "L".join(f"{SIDE + STEP * place},{y:.1f}" for place, y in enumerate(heights))
    told = "; ".join(f"{each.label} {each.values[line]:.4g}" for each in plot.coordinates)
    return element(
        "path",
        element("title", f"{plot.labels[line]}: {told}"),
        d=f"M{corners}",
        class_=f"line series-{1 if is_best else 0}",
        stroke_opacity="1" if is_best else f"{shade:.2f}",
    )


def _mark(each: Coordinate, axis: Axis, x: int) -> Html:
    rule = element("line", x1=x, x2=x, y1=TOP, y2=HEIGHT, class_="rule")
    ticks = [
        element("text", tick_text(tick), x=x - 6, y=f"{float(axis.place(tick)) + 4:.1f}", text_anchor="end")
        for tick in axis.ticks()
    ]
    return element("g", rule, element("text", each.label, x=x, y=16, text_anchor="middle"), *ticks)
