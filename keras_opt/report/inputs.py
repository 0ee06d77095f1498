"""What a report is made of: frozen plain data, already rounded and worded by the caller."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from keras_opt.core.errors import argument_error, check_at_least, check_fraction, is_number
from keras_opt.report.scores import check_counts


@dataclass(frozen=True)
class KeyNumber:
    """One figure of the headline.

    Args:
        value: The figure as it is read, with its unit: `"3.5×"`, `"91.2 %"`.
        label: What it is, two to four words.
        note: What it is compared with, one short line.

    Example:
        >>> KeyNumber("29 kB", "int8 file", "3.5 times smaller than float32").label
        'int8 file'
    """

    value: str
    label: str
    note: str = ""


@dataclass(frozen=True)
class Table:
    """A table of formatted text; the first column labels the row.

    Args:
        title: Its heading.
        columns: Column headings; the first one heads the row labels and may be empty.
        rows: One sequence of cells a row, as many as there are columns.
        note: A line below the table.

    Raises:
        InputError: A row has more or fewer cells than there are columns.

    Example:
        >>> Table("Result", ("", "plain", "optimised"), [("accuracy", "0.895", "0.903")]).rows[0][2]
        '0.903'
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""

    def __post_init__(self):
        for row in self.rows:
            if len(row) != len(self.columns):
                cure = f"Row {row[:1]!r} of table {self.title!r} has {len(row)} cells."
                must_be = f"rows of {len(self.columns)} cells, one a column"
                raise argument_error("Table", "rows", row, must_be, cure)


@dataclass(frozen=True)
class Line:
    """One line of a curve.

    Args:
        label: Its name in the legend.
        x: Positions, ascending.
        y: Values; those that are not finite leave a gap, and the page says how many.
        series: Index of its colour, so that one run keeps its colour in every plot; `None` takes its position.
        dashed: Draws it dashed, for example training beside validation.

    Raises:
        InputError: `x` and `y` differ in length, or `series` is negative.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    series: int | None = None
    dashed: bool = False

    def __post_init__(self):
        if len(self.x) != len(self.y):
            must_be = f"as long as x ({len(self.x)} values)"
            raise argument_error("Line", "y", len(self.y), must_be, f"Line {self.label!r} needs one y for each x.")
        if self.series is not None:
            check_at_least("Line", "series", self.series, 0)


@dataclass(frozen=True)
class Curve:
    """A plot of lines over a common x axis.

    Args:
        title: Its heading.
        xlabel: Name and unit of the x axis.
        ylabel: Name and unit of the y axis.
        lines: The lines, drawn in this order.
        log_y: Logarithmic y axis; values of 0 and below leave a gap.
        note: A line below the plot.
    """

    title: str
    xlabel: str
    ylabel: str
    lines: Sequence[Line]
    log_y: bool = False
    note: str = ""


@dataclass(frozen=True)
class Bar:
    """One bar of a chart.

    Args:
        label: Its name.
        value: Its length, from 0 up.
        text: The value as it is read, with its unit.
        highlight: Draws it in the accent colour, for what is shipped.

    Raises:
        InputError: `value` is negative or not finite.
    """

    label: str
    value: float
    text: str
    highlight: bool = False

    def __post_init__(self):
        if not is_number(self.value) or self.value < 0:
            cure = "Leave the bar out where nothing was measured."
            raise argument_error("Bar", "value", self.value, "a finite number of at least 0", cure)


@dataclass(frozen=True)
class Chart:
    """Horizontal bars that start at zero, such as file sizes.

    Args:
        title: Its heading.
        bars: The bars, from top to bottom.
        note: A line below, for example which direction is better.
    """

    title: str
    bars: Sequence[Bar]
    note: str = ""


@dataclass(frozen=True, eq=False)
class ConfusionMatrix:
    """How often each true class (row) was given each predicted class (column).

    The page draws the matrix, precision, recall and F1 by class, and the most frequent confusions from it.

    Args:
        class_names: At least two names, in the order of the rows.
        counts: Integers `(classes, classes)`, at least 0.

    Raises:
        InputError: `counts` is not a square of counts, or not one row for each name.
    """

    class_names: Sequence[str]
    counts: np.ndarray

    def __post_init__(self):
        counts = check_counts("ConfusionMatrix", self.counts)
        object.__setattr__(self, "counts", counts)
        if len(self.class_names) != len(counts):
            must_be = f"{len(counts)} names, one for each row of counts"
            cure = "Give one name a class, in the order of the rows."
            raise argument_error("ConfusionMatrix", "class_names", list(self.class_names), must_be, cure)


@dataclass(frozen=True, eq=False)
class Mistake:
    """One wrongly classified image.

    Args:
        image: uint8 `(height, width, 1 or 3)`.
        true_class: Name of the right class.
        predicted_class: Name of the class that the model gave.
        probability: What the model gave to that class, in [0, 1].
        source: File name or index of the image.

    Raises:
        InputError: `image` has another shape or type, or `probability` is no fraction.
    """

    image: np.ndarray
    true_class: str
    predicted_class: str
    probability: float
    source: str = ""

    def __post_init__(self):
        check_fraction("Mistake", "probability", self.probability, one_allowed=True)
        shape, kind = np.shape(self.image), np.asarray(self.image).dtype
        if len(shape) != 3 or shape[2] not in (1, 3) or 0 in shape or kind != np.uint8:
            cure = "Scale it to 0..255, round, and cast to uint8."
            raise argument_error("Mistake", "image", f"{kind} {shape}", "uint8 (height, width, 1 or 3)", cure)


@dataclass(frozen=True)
class Report:
    """Everything a report page shows; whatever is left empty has no section.

    Args:
        title: The page's heading.
        summary: One or two sentences below it: what was run, on what, with what result.
        headline: Three or four key numbers.
        comparison: The main table, for example plain beside optimised.
        skipped: Files that were left out, with the reason of each.
        charts: Bars of size, latency, accuracy.
        curves: Loss, accuracy, learning rate, gradient norm.
        confusion: Test predictions by class.
        mistakes: The worst mistakes, worst first.
        details: Tables that close the page: settings, versions, files.
        footer: Last line, for example the command, the version and the date.
    """

    title: str
    summary: str = ""
    headline: Sequence[KeyNumber] = ()
    comparison: Table | None = None
    skipped: Table | None = None
    charts: Sequence[Chart] = ()
    curves: Sequence[Curve] = ()
    confusion: ConfusionMatrix | None = None
    mistakes: Sequence[Mistake] = ()
    details: Sequence[Table] = ()
    footer: str = ""
