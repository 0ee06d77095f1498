"""The model card: what a model is, how it was made, and what it must not be used for, in Markdown."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from keras_opt.core.files import write_atomic
from keras_opt.report.inputs import Table

# What Markdown would read as markup; an underscore inside a word is none. At the beginning of a text it is a list too,
# a quotation or a rule; the dot of a numbered list is escaped by itself.
MARKUP = re.compile(r"[\\`*\[<|~#]|&(?=#?\w+;)|(?<![^\W_])_|_(?![^\W_])|^(?:>|[-+](?=[ -]|$))")
NUMBERED = re.compile(r"^(\d+)([.)](?= |$))")


@dataclass(frozen=True)
class ModelCard:
    """What a model card says. Texts are plain text: the writer escapes what Markdown would take for markup.

    Args:
        name: Name of the model.
        purpose: What it is for, one or two sentences.
        intended_use: Where it may be used.
        limits: Where it may not, and what is known to fail; one sentence each.
        data_source: Where the images come from.
        data_licence: Their licence.
        split: How they were split into training, validation and test images.
        class_counts: Images of each class in each part.
        metrics: Measured results, with the data they were measured on.
        command: The command that makes the model again.
        seed: Its random seed.
        settings: Every setting of the run.
        versions: Python, packages, machine.
        files: Files beside the card, with what each is for.
        licence: Licence of the model.

    Example:
        >>> write_model_card("model_card.md", card)  # doctest: +SKIP
    """

    name: str
    purpose: str
    intended_use: str
    limits: Sequence[str]
    data_source: str
    data_licence: str
    split: str
    class_counts: Table
    metrics: Table
    command: str
    seed: int
    settings: Table
    versions: Table
    files: Table
    licence: str


def write_model_card(path: str | os.PathLike, card: ModelCard) -> None:
    """Write the card as Markdown (CommonMark with GitHub's tables), whole or not at all.

    Args:
        path: Where to write, for example `runs/demo/model_card.md`; its folder must exist.
        card: What to say.
    """
    write_atomic(path, render(card))


def render(card: ModelCard) -> str:
    """The card as text."""
    blocks = [
        f"# {_text(card.name)}",
        _text(card.purpose),
        "## Intended use",
        _text(card.intended_use),
        "## Limits",
        "\n".join(f"- {_text(limit)}" for limit in card.limits),
        "## Metrics",
        _table(card.metrics),
        "## Data",
        f"- Source: {_text(card.data_source)}\n- Licence: {_text(card.data_licence)}\n- Split: {_text(card.split)}",
        _table(card.class_counts),
        "## How it was made",
        "\n".join(f"    {line}" for line in _encodable(card.command).splitlines()),
        f"Seed: {card.seed}",
        "### Settings",
        _table(card.settings),
        "### Versions",
        _table(card.versions),
        "## Files",
        _table(card.files),
        "## Licence",
        _text(card.licence),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _table(table: Table) -> str:
    heading, *rows = [_row([_text(cell) for cell in row]) for row in (table.columns, *table.rows)]
    lines = "\n".join([heading, _row(["---"] * len(table.columns)), *rows])
    return f"{lines}\n\n{_text(table.note)}" if table.note else lines


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _text(text: str) -> str:
    """`text` on one line, so that Markdown shows it as it is."""
    escaped = MARKUP.sub(lambda found: "\\" + found[0], " ".join(_encodable(text).split()))
    return NUMBERED.sub(r"\1\\\2", escaped)


def _encodable(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()
