"""Tables as HTML, each in a box of its own that scrolls sideways where the window is narrow."""

import re

from keras_opt.report.inputs import Table
from keras_opt.report.markup import Html, element

NUMBER = re.compile(r"[-+\N{MINUS SIGN}±~<>≤≥]?\s?\d")
NO_NUMBER = frozenset({"", "-", "\N{EN DASH}", "\N{EM DASH}"})


def draw_table(table: Table) -> Html:
    """Draw a table and its note; columns that hold only numbers are aligned on the right."""
    sides = ["number" if _holds_numbers(column) else None for column in zip(*table.rows, strict=True)]
    sides = [None, *sides[1:]] if sides else [None] * len(table.columns)
    heading = [element("th", name, scope="col", class_=side) for name, side in zip(table.columns, sides, strict=True)]
    rows = [
        element(
            "tr",
            element("th", row[0], scope="row"),
            *[element("td", cell, class_=side) for cell, side in zip(row[1:], sides[1:], strict=True)],
        )
        for row in table.rows
    ]
    content = element("table", element("thead", element("tr", *heading)), element("tbody", *rows))
    note = element("p", table.note, class_="note") if table.note else None
    return element("div", scroll_box(content, table.title), note)


def scroll_box(content: Html, label: str) -> Html:
    """A box that scrolls sideways on its own, with the keyboard too."""
    return element("div", content, class_="scroll", role="region", aria_label=label, tabindex=0)


def _holds_numbers(cells: tuple[str, ...]) -> bool:
    return all(cell in NO_NUMBER or NUMBER.match(cell) for cell in cells) and not set(cells) <= NO_NUMBER
