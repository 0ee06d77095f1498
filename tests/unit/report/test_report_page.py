import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from report_samples import HOSTILE, make_report

from keras_opt.report import ConfusionMatrix, Mistake, Report, Table, write_report
from keras_opt.report.page import render

VOID = {"meta", "link", "img", "br"}


class Page(HTMLParser):
    """Reads a page; fails on an element that is closed out of order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.text.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def report():
    return make_report()


@pytest.fixture(scope="module")
def page(report):
    return Page(render(report))


def test_the_page_shows_every_part(page, report):
    text = "\n".join(page.text)
    for part in ("90.3 %", "int8 file", "Plain beside optimised", "3 files left out", "truncated image", "143.2 kB"):
        assert part in text
    for part in ("Gradient norm", "Before clipping.", "mean, total", "Confusion matrix", "Worst mistakes", "Settings"):
        assert part in text
    assert "keras-opt demo · keras_opt 0.1.0" in text
    assert [level for level, _ in page.tags if level == "h1"] == ["h1"]
    assert len(page.all("img")) == 12


def test_names_are_text_and_never_markup(page):
    assert HOSTILE in "".join(page.text)
    assert page.all("script") == []
    assert not [key for _, attributes in page.tags for key in attributes if key.startswith("on")]


def test_the_confusion_matrix_holds_each_count_in_its_cell(page, report):
    titles = {cell["title"] for cell in page.all("td") if "title" in cell}
    names, counts = report.confusion.class_names, report.confusion.counts
    shown = {title.rsplit(" (", 1)[0] for title in titles}
    expected = {f"{names[i]} → {names[j]}: {counts[i, j]}" for i, j in np.argwhere(counts)}
    assert shown == expected


def test_nothing_on_the_page_points_outside(page, report):
    references = [value for _, attributes in page.tags for key, value in attributes.items() if key in ("src", "href")]
    assert references
    assert all(reference.startswith("data:") for reference in references)
    assert not re.search(r"url\(|@import|https?:", render(report))
    policy = next(meta["content"] for meta in page.all("meta") if "http-equiv" in meta)
    assert policy.startswith("default-src 'none'")


def test_every_image_and_plot_says_what_it_shows(page):
    assert page.all("img")[0]["alt"] == "T-shirt, taken for Trouser with 99 %"
    assert all(image["alt"] for image in page.all("img"))
    plots = [svg for svg in page.all("svg") if svg.get("aria-hidden") != "true"]
    assert len(plots) == 4
    assert all(plot["role"] == "img" and plot["aria-label"] for plot in plots)
    assert plots[1]["aria-label"].startswith("Validation accuracy: accuracy against CPU seconds; plain ends at 0.89")


def test_ids_cannot_clash(page):
    assert not [attributes for _, attributes in page.tags if "id" in attributes]


def test_thumbnails_hold_the_pixels(page, report):
    data = page.all("img")[3]["src"].removeprefix("data:image/png;base64,")
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
    np.testing.assert_array_equal(pixels, report.mistakes[3].image[..., 0])
    assert page.all("img")[3]["class"] == "pixelated"


def test_large_images_become_small_smooth_thumbnails():
    image = np.random.default_rng(0).integers(0, 256, (300, 600, 3), dtype=np.uint8)
    shown = Page(render(Report("T", mistakes=[Mistake(image, "a", "b", 1.0)]))).all("img")[0]
    assert (shown["width"], shown["height"]) == ("192", "96")
    assert "class" not in shown


def test_the_same_report_gives_the_same_bytes(tmp_path):
    names = ["a", "b", "c"]
    for name in ("one", "two"):
        write_report(tmp_path / f"{name}.html", make_report(names))
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()


def test_an_empty_report_has_no_sections():
    page = Page(render(Report("Only a title")))
    assert page.all("section") == []
    assert page.all("h1") == [{}]


def test_classes_that_were_never_predicted_are_named():
    confusion = ConfusionMatrix(["a", "b", "c"], [[5, 0, 1], [3, 0, 1], [0, 0, 0]])
    text = "".join(Page(render(Report("T", confusion=confusion))).text)
    assert "Never predicted, so precision counts as 0: b." in text
    assert "No images, so recall counts as 0: c." in text


def test_of_very_many_classes_the_matrix_shows_those_with_the_most_mistakes():
    counts = np.eye(300, dtype=int) * 50
    counts[299, 0] = 7
    text = render(Report("T", confusion=ConfusionMatrix([f"c{i}" for i in range(300)], counts)))
    page = Page(text)
    assert sum(cell.get("scope") == "row" and "title" in cell for cell in page.all("th")) == 100
    assert "c299 → c0: 7 (12.3 %)" in {cell.get("title") for cell in page.all("td")}
    assert "Drawn are the 100 classes with the most mistakes, of 300." in "".join(page.text)
    assert len(text) < 1_000_000


def test_many_skipped_files_are_folded_away():
    def folded(count):
        table = Table("Skipped files", ("file", "reason"), [(f"{i}.png", "truncated") for i in range(count)])
        return "open" not in Page(render(Report("T", skipped=table))).all("details")[0]

    assert not folded(8)
    assert folded(9)


def test_columns_of_numbers_are_aligned_on_the_right():
    table = Table("T", ("", "size", "name", "gap"), [("a", "1.5 kB", "x", "-"), ("b", "-", "2", "")])
    page = Page(render(Report("T", comparison=table)))
    assert [heading.get("class") for heading in page.all("th")[:4]] == [None, "number", None, None]


def test_an_old_report_stays_when_writing_fails(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    write_report(path, Report("old"))

    def full_disk(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_report(path, Report("new"))
    assert "<h1>old</h1>" in path.read_text("utf-8")
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
