"""How the commands print tables and end a run."""

from collections.abc import Iterable

from rich import box
from rich.console import Console
from rich.table import Table

from keras_opt.data.image_files import LISTED_FILES
from keras_opt.recipes.documents import comparison
from keras_opt.recipes.result import Result
from keras_opt.report.inputs import Table as Cells

# A narrower terminal, or one that tells no width, wraps the lines itself: nothing is left out.
LEAST_WIDTH = 40
LONGEST_FIGURE = 20


def show_table(cells: Cells) -> None:
    """Print a table on standard output: figures, which stand under headings, to the right."""
    headings = any(cells.columns)
    table = Table(title=cells.title, box=box.SIMPLE_HEAD, title_justify="left", show_header=headings)
    for number, column in enumerate(cells.columns):
        side, least = "right" if number and headings else "left", _unbroken(row[number] for row in cells.rows)
        table.add_column(column, justify=side, overflow="fold", min_width=least)
    for row in cells.rows:
        table.add_row(*row)
    console = Console(highlight=False, markup=False, emoji=False)  # class names may look like markup
    console.width = max(console.width, LEAST_WIDTH)
    console.print(table, crop=False)
    if cells.note:
        console.print(cells.note, style="dim")


def _unbroken(texts: Iterable[str]) -> int:
    """The width at which no figure of a column is broken in two; longer words, such as paths, may be."""
    return min(max((len(word) for text in texts for word in text.split()), default=1), LONGEST_FIGURE)


def show_result(result: Result) -> None:
    """Print what a run ends with: the table, the files left out, where everything lies."""
    show_table(comparison(result))
    if result.skipped:
        print(f"\n{len(result.skipped)} files were left out:")
        for file in result.skipped[:LISTED_FILES]:
            print(f"  {file}")
        if len(result.skipped) > LISTED_FILES:
            print("  and more; result.json and report.html name all")
    print(f"\nEverything is in {result.folder}; open {result.folder / 'report.html'} first.")
