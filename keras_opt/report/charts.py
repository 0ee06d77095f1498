"""Line plots as inline SVG, and bars as HTML; their colours come from the page's style sheet.

Drawn here rather than by Matplotlib: the text stays text, the colours follow the light or dark page, a plot costs a
few kilobytes, and the same data give the same bytes.
"""

from dataclasses import dataclass

import numpy as np

from keras_opt.report.axis import Axis, tick_text
from keras_opt.report.inputs import Bar, Chart, Curve, Line
from keras_opt.report.markup import Html, element

WIDTH, HEIGHT = 460, 250
LEFT, RIGHT, TOP, BOTTOM = 50, 12, 26, 40
SERIES_COLOURS = 6
MOST_POINTS = 600
MOST_DOTS = 40


def draw_curve(curve: Curve) -> Html:
    """Draw a curve as a figure: heading, legend, plot, notes."""
    lines = [_trace(line, position, curve.log_y) for position, line in enumerate(curve.lines)]
    dropped = sum(line.dropped for line in lines)
    undrawable = "not finite, or not above 0 as the log axis needs" if curve.log_y else "not finite"
    warning = f"Not drawn: {dropped} value{'s' * (dropped > 1)} {undrawable}." if dropped else ""
    drawn = [line for line in lines if line.pieces]
    return element(
        "figure",
        element("h3", curve.title),
        element("ul", *[_legend_entry(line) for line in lines], class_="legend") if len(lines) > 1 else None,
        _plot(curve, drawn) if drawn else element("p", "No values to draw.", class_="note"),
        *[element("p", note, class_="note") for note in (curve.note, warning) if note],
    )


def draw_chart(chart: Chart) -> Html:
    """Draw bars that start at zero, each below its label and value."""
    longest = max((bar.value for bar in chart.bars), default=0) or 1
    return element(
        "figure",
        element("h3", chart.title),
        element("ul", *[_bar(bar, bar.value / longest) for bar in chart.bars], class_="bars"),
        element("p", chart.note, class_="note") if chart.note else None,
    )


def _bar(bar: Bar, share: float) -> Html:
    fill = element("span", class_="fill", style=f"width:{100 * share:.2f}%")
    return element(
        "li",
        element("span", bar.label),
        element("span", bar.text, class_="value"),
        element("span", fill, class_="track"),
        class_="highlight" if bar.highlight else None,
    )


@dataclass(frozen=True)
class _Trace:
    """What can be drawn of a line: its finite points, in pieces between the gaps."""

    label: str
    style: str
    pieces: list[np.ndarray]
    dropped: int

    @property
    def points(self) -> np.ndarray:
        return np.concatenate(self.pieces)


def _trace(line: Line, position: int, log_y: bool) -> _Trace:
    points = np.column_stack([np.asarray(line.x, float), np.asarray(line.y, float)])
    fits = np.isfinite(points).all(axis=1) & ((points[:, 1] > 0) | (not log_y))
    between_gaps = np.split(np.arange(len(points)), np.flatnonzero(~fits))
    pieces = [points[part[fits[part]]] for part in between_gaps if fits[part].any()]
    series = position if line.series is None else line.series
    style = f"series-{series % SERIES_COLOURS}" + (" dashed" if line.dashed else "")
    return _Trace(line.label, style, pieces, int((~fits).sum()))


def _legend_entry(line: _Trace) -> Html:
    sample = element("line", x1=1, y1=5, x2=23, y2=5, class_=f"line {line.style}")
    return element("li", element("svg", sample, viewBox="0 0 24 10", aria_hidden="true"), line.label)


def _plot(curve: Curve, lines: list[_Trace]) -> Html:
    points = np.concatenate([line.points for line in lines])
    whole = bool((points[:, 0] == np.round(points[:, 0])).all())
    across = Axis.around(points[:, 0], LEFT, WIDTH - RIGHT, whole=whole)
    up = Axis.around(points[:, 1], HEIGHT - BOTTOM, TOP, margin=0.05, log=curve.log_y)
    ends = "; ".join(f"{line.label} ends at {line.points[-1, 1]:.4g}" for line in lines)
    return element(
        "svg",
        *[_tick_up(float(up.place(tick)), tick_text(tick)) for tick in up.ticks()],
        *[_tick_across(float(across.place(tick)), tick_text(tick)) for tick in across.ticks()],
        element("text", curve.ylabel, x=2, y=12, class_="axis-label"),
        element("text", curve.xlabel, x=WIDTH - RIGHT, y=HEIGHT - 4, class_="axis-label", text_anchor="end"),
        *[_path(line, across, up) for line in lines],
        *[dot for line in lines if len(line.points) <= MOST_DOTS for dot in _dots(line, curve.xlabel, across, up)],
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_label=f"{curve.title}: {curve.ylabel} against {curve.xlabel}; {ends}.",
        class_="plot",
    )


def _tick_up(y: float, text: str) -> Html:
    rule = element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=f"{y:.1f}", y2=f"{y:.1f}", class_="rule")
    label = element("text", text, x=LEFT - 7, y=f"{y + 4:.1f}", text_anchor="end")
    return element("g", rule, label)


def _tick_across(x: float, text: str) -> Html:
    return element("text", text, x=f"{x:.1f}", y=HEIGHT - BOTTOM + 17, text_anchor="middle")


def _path(line: _Trace, across: Axis, up: Axis) -> Html:
    commands = []
    for piece in line.pieces:
        thin = _thinned(piece)
        pairs = zip(across.place(thin[:, 0]), up.place(thin[:, 1]), strict=True)
        corners = [f"{x:.1f},{y:.1f}" for x, y in pairs]
        commands.append("M" + "L".join(corners if len(corners) > 1 else corners * 2))
    return element("path", d="".join(commands), class_=f"line {line.style}")


def _dots(line: _Trace, xlabel: str, across: Axis, up: Axis) -> list[Html]:
    """A dot on each point, whose tooltip gives the value."""
    return [
        element(
            "circle",
            element("title", f"{line.label}, {xlabel} {x:.6g}: {y:.4g}"),
            cx=f"{across.place(x):.1f}",
            cy=f"{up.place(y):.1f}",
            r=2.4,
            class_=f"dot {line.style}",
        )
        for x, y in line.points
    ]


def _thinned(points: np.ndarray) -> np.ndarray:
    """At most about MOST_POINTS points: the lowest and the highest of each stretch, so that every spike stays."""
    if len(points) <= MOST_POINTS:
        return points
    stretches = np.array_split(np.arange(len(points)), MOST_POINTS // 2)
    heights = points[:, 1]
    keep = {0, len(points) - 1}
    for stretch in stretches:
        keep |= {int(stretch[heights[stretch].argmin()]), int(stretch[heights[stretch].argmax()])}
    return points[sorted(keep)]
