import re

import numpy as np
import pytest

from keras_opt.report import Bar, Chart, Curve, Line
from keras_opt.report.axis import Axis, tick_text
from keras_opt.report.charts import draw_chart, draw_curve


def coordinates(svg):
    """The points of each path."""
    paths = re.findall(r' d="([^"]+)"', svg)
    return [[tuple(map(float, point.split(","))) for point in re.split("[ML]", path) if point] for path in paths]


@pytest.mark.parametrize(
    ("axis", "ticks"),
    [
        (Axis(0, 1, 0, 100), [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (Axis(0.71, 0.93, 0, 100), [0.75, 0.8, 0.85, 0.9]),
        (Axis(1, 3, 0, 100, whole=True), [1, 2, 3]),
        (Axis(1, 1050, 0, 100, whole=True), [250, 500, 750, 1000]),
        (Axis(1e-5, 1e-2, 0, 100, log=True), [1e-5, 1e-4, 1e-3, 1e-2]),
        (Axis(0.3, 8, 0, 100, log=True), [0.5, 1, 2, 5]),
        (Axis(0.31, 0.36, 0, 100, log=True), [0.31, 0.32, 0.33, 0.34, 0.35, 0.36]),
        (Axis(1e-12, 1, 0, 100, log=True), [1e-12, 1e-10, 1e-8, 1e-6, 1e-4, 1e-2, 1]),
    ],
    ids=str,
)
def test_ticks_are_round_and_inside(axis, ticks):
    np.testing.assert_allclose(axis.ticks(), ticks, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("seed", range(50))
def test_any_axis_has_two_to_nine_ticks_inside(seed, log):
    rng = np.random.default_rng(seed)
    values = 10.0 ** rng.uniform(-6, 6) * (1 + rng.random(5) * 10.0 ** rng.uniform(-2, 3))
    axis = Axis.around(values, 0, 100, margin=0.05, log=log)
    ticks = np.array(axis.ticks())
    assert 2 <= len(ticks) <= 9
    places = axis.place(ticks)
    assert (places > -1e-6).all()
    assert (places < 100 + 1e-6).all()
    assert len({tick_text(tick) for tick in ticks}) == len(ticks)


def test_places_follow_the_scale():
    np.testing.assert_allclose(Axis(0, 10, 100, 0).place(np.array([0, 2.5, 10])), [100, 75, 0])
    np.testing.assert_allclose(Axis(1, 100, 0, 2, log=True).place(np.array([1, 10, 100])), [0, 1, 2])


@pytest.mark.parametrize("value", [0.0, 0.5, -3.0])
def test_a_constant_line_has_an_axis_around_it(value):
    axis = Axis.around(np.array([value, value]), 0, 100)
    assert axis.place(value) == pytest.approx(50)


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("values", [[2.3025851, 2.3025853], [1e6 + 1, 1e6 + 3], [1e-14, 5e-14], [3e-6, 3e-6]])
def test_marks_of_values_that_hardly_differ_or_are_tiny_have_texts_of_their_own(values, log):
    axis = Axis.around(np.array(values), 0, 100, margin=0.05, log=log)
    ticks = axis.ticks()
    assert len(ticks) > 1
    assert len({tick_text(tick) for tick in ticks}) == len(ticks)
    assert 0 < min(ticks) < max(ticks) < 3 * max(values)


@pytest.mark.parametrize(
    ("value", "text"),
    [(12000, "12,000"), (0.001, "0.001"), (1e-5, "1e−5"), (-2, "−2"), (2e7, "2e7"), (0, "0")],  # noqa: RUF001
)
def test_tick_text(value, text):
    assert tick_text(value) == text


def test_a_curve_draws_every_point_where_it_lies():
    (points,) = coordinates(draw_curve(Curve("T", "epoch", "y", [Line("a", [1, 2, 3], [0.0, 1.0, 0.5])])))
    (x1, y1), (x2, y2), (x3, y3) = points
    assert x2 - x1 == pytest.approx(x3 - x2)
    assert y1 > y3 > y2  # up is smaller in SVG
    assert y3 == pytest.approx((y1 + y2) / 2, abs=0.1)


def test_values_that_are_not_finite_leave_a_gap_and_are_counted():
    svg = draw_curve(Curve("T", "epoch", "y", [Line("a", range(6), [1, np.nan, 2, 3, np.inf, 4])]))
    assert re.search(r' d="(M[^M]+){3}"', svg)
    assert "nan" not in svg
    assert "Not drawn: 2 values not finite." in svg


def test_a_log_axis_leaves_out_zero_and_says_so():
    svg = draw_curve(Curve("T", "step", "y", [Line("a", [0, 1, 2], [0.0, 1e-3, 1.0])], log_y=True))
    assert "Not drawn: 1 value not finite, or not above 0 as the log axis needs." in svg


@pytest.mark.parametrize("lines", [[], [Line("a", [], [])], [Line("a", [1], [np.nan])]], ids=["none", "empty", "nan"])
def test_nothing_to_draw_says_so(lines):
    assert "No values to draw." in draw_curve(Curve("T", "epoch", "y", lines))


def test_a_long_line_is_thinned_but_keeps_every_extreme():
    values = np.sin(np.arange(20_000) / 50)
    values[12_345], values[777] = 9.0, -9.0
    svg = draw_curve(Curve("T", "step", "y", [Line("a", np.arange(20_000), values)]))
    (points,) = coordinates(svg)
    (whole,) = coordinates(draw_curve(Curve("T", "step", "y", [Line("a", [777, 12_345], [-9.0, 9.0])])))
    assert len(points) <= 602
    heights = [y for _, y in points]
    assert {min(heights), max(heights)} == {y for _, y in whole}
    assert points[0][0] == 50
    assert points[-1][0] == 448


def test_colours_follow_the_series_and_dashes_the_line():
    lines = [Line("a", [1, 2], [1, 2]), Line("b", [1, 2], [2, 1], series=0, dashed=True)]
    svg = draw_curve(Curve("T", "epoch", "y", lines))
    assert svg.count('class="line series-0"') == 2  # legend and plot
    assert svg.count('class="line series-0 dashed"') == 2


def test_bars_start_at_zero_and_the_longest_fills():
    html = draw_chart(Chart("Size", [Bar("plain", 200, "200 kB"), Bar("int8", 50, "50 kB", highlight=True)]))
    assert re.findall(r"width:([\d.]+)%", html) == ["100.00", "25.00"]
    assert '<li class="highlight"><span>int8</span>' in html


def test_bars_of_zero_length_are_drawn():
    assert re.findall(r"width:([\d.]+)%", draw_chart(Chart("T", [Bar("a", 0, "0")]))) == ["0.00"]
