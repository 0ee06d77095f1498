import dataclasses
import itertools

import pytest
from markdown_it import MarkdownIt
from report_samples import HOSTILE, make_card

from keras_opt.report import Table, write_model_card


@pytest.fixture
def card():
    return make_card()


@pytest.fixture
def tokens(card, tmp_path):
    write_model_card(tmp_path / "model_card.md", card)
    return read(tmp_path / "model_card.md")


def read(path):
    return MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(path.read_text("utf-8"))


def texts(tokens, opening):
    """What a reader sees in each block that `opening` opens; any markup inside fails."""
    shown = []
    for before, token in itertools.pairwise(tokens):
        if before.type == opening:
            assert {part.type for part in token.children} <= {"text", "text_special"}
            shown.append("".join(part.content for part in token.children))
    return shown


def test_every_part_is_there_in_order(tokens, card):
    headings = [
        "Intended use",
        "Limits",
        "Metrics",
        "Data",
        "How it was made",
        "Settings",
        "Versions",
        "Files",
        "Licence",
    ]
    assert texts(tokens, "heading_open") == [card.name, *headings]


def test_a_markdown_reader_sees_the_text_as_it_was_given(tokens, card):
    paragraphs = texts(tokens, "paragraph_open")
    for text in (card.purpose, card.intended_use, *card.limits, card.licence, "Read once.", "Seed: 0"):
        assert text in paragraphs
    assert f"Source: {card.data_source}" in paragraphs
    assert f"Split: {card.split}" in paragraphs


@pytest.mark.parametrize("text", ["1. one", "2) two", "- dash", "+ plus", "> quote", "---", "-", "1.", "-5 and 3.5"])
def test_a_text_that_begins_as_a_list_a_quotation_or_a_rule(card, tmp_path, text):
    card = dataclasses.replace(card, purpose=text, limits=[text], licence=text)
    write_model_card(tmp_path / "card.md", card)
    assert texts(read(tmp_path / "card.md"), "paragraph_open").count(text) == 3


def test_a_markdown_reader_sees_every_cell_as_it_was_given(tokens, card):
    tables = (card.metrics, card.class_counts, card.settings, card.versions, card.files)
    assert texts(tokens, "th_open") == [name for table in tables for name in table.columns]
    cells = [cell for table in tables for row in table.rows for cell in row]
    assert texts(tokens, "td_open") == [" ".join(cell.split()) for cell in cells]
    assert HOSTILE in cells


def test_the_command_is_code_word_for_word(tokens, card):
    (code,) = [token.content for token in tokens if token.type == "code_block"]
    assert code.rstrip("\n") == card.command


def test_plain_words_stay_plain(card, tmp_path):
    write_model_card(tmp_path / "card.md", card)
    text = (tmp_path / "card.md").read_text("utf-8")
    assert "initial_sparsity" in text
    assert "load_fashion_mnist_sample()" in text


def test_file_names_that_are_no_utf8_are_shown(card, tmp_path):
    name = b"a\xff.png".decode(errors="surrogateescape")
    files = Table("Files", ("file", "what for"), [(name, "x")])
    write_model_card(tmp_path / "card.md", dataclasses.replace(card, files=files))
    assert texts(read(tmp_path / "card.md"), "td_open")[-2] == "a\\udcff.png"
