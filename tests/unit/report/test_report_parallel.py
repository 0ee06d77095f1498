"""Parallel coordinates and the page of a search."""

import re

import pytest

from keras_opt.core.errors import InputError
from keras_opt.report.inputs import Curve, KeyNumber, Line, Table
from keras_opt.report.parallel import Coordinate, ParallelCoordinates, draw_parallel
from keras_opt.report.search_page import SearchReport, write_search_report

PLOT = ParallelCoordinates(
    "Settings",
    [
        Coordinate("rate", [0.001, 0.1, 0.01], log=True),
        Coordinate("depth", [1, 3, 2], whole=True),
        Coordinate("a", [0.5, 0.9, 0.7]),
    ],
    ["one", "two", "<three>"],
    best=1,
)


def test_each_line_goes_through_its_values_and_the_best_is_on_top():
    drawn = draw_parallel(PLOT)
    lines = re.findall(r'<path d="M([^"]*)" class="line series-(\d)"', drawn)
    assert [kind for _, kind in lines] == ["0", "0", "1"]
    heights = [[float(corner.split(",")[1]) for corner in path.split("L")] for path, _ in lines]
    assert heights[0] == [300.0, 300.0, 300.0]  # the worst is lowest on every axis
    assert heights[2] == [34.0, 34.0, 34.0]
    assert heights[1] == [167.0, 167.0, 167.0]  # the rate by its logarithm
    assert "&lt;three&gt;: rate 0.01; depth 2; a 0.7" in drawn


def test_every_axis_has_a_value_for_every_line():
    with pytest.raises(InputError, match="3 on each axis"):
        ParallelCoordinates("Settings", [Coordinate("rate", [1.0])], ["one", "two", "three"], 0)


def test_the_page_of_a_search_holds_all_that_it_is_given(tmp_path):
    report = SearchReport(
        title="photos",
        summary="Three trials.",
        headline=[KeyNumber("90 %", "accuracy")],
        trials=Table("Trials", ("trial", "accuracy"), [("1", "90 %")]),
        parallel=PLOT,
        progress=Curve("Best so far", "trial", "accuracy", [Line("best", [0], [0.9])]),
        best=Table("The best recipe", ("setting", "value"), [("rate", "0.1")]),
        failures=Table("Failed trials", ("trial", "why"), [("2", "<nan>")]),
        footer="Again.",
    )
    write_search_report(tmp_path / "report.html", report)
    page = (tmp_path / "report.html").read_text()
    for text in ("photos", "Three trials.", "90 %", "Best so far", "The best recipe", "&lt;nan&gt;", "Again."):
        assert text in page
    assert "What mattered" not in page
