"""Progress on a terminal, elsewhere, and not at all."""

import io

from keras_opt.core import progress as progress_module
from keras_opt.core.progress import Progress


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


def work(progress, units, total):
    with progress.stage("decode", total=total) as stage:
        for unit in range(units):
            stage.advance(note=f"unit {unit}")


def test_plain_lines_where_there_is_no_terminal(monkeypatch):
    clock = iter([0.0, 4.0, 10.0, 30.0, 31.0])
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: next(clock))
    stream = io.StringIO()
    work(Progress(stream), units=3, total=3)
    # Nothing at 4 s, a line at 10 s (two thirds are done, so half as long again), none for the last unit but the end.
    assert stream.getvalue() == ("decode: 2/3, about 5 s left (unit 1)\ndecode: 3/3 in 31.0 s (unit 2)\n")


def test_a_bar_on_a_terminal_names_the_stage_and_fills_up():
    stream = Terminal()
    work(Progress(stream), units=2, total=4)  # ended early, as early stopping does
    assert "decode" in stream.getvalue()
    assert "100%" in stream.getvalue()


def test_a_bar_that_was_never_closed_gives_the_cursor_back(collect_garbage):
    stream = Terminal()
    stage = Progress(stream).stage("decode", total=4)
    del stage
    collect_garbage()
    hidden, shown = stream.getvalue().rfind("\x1b[?25l"), stream.getvalue().rfind("\x1b[?25h")
    assert shown > hidden


def test_quiet_shows_nothing_and_counts_on():
    stream = Terminal()
    progress = Progress(stream, quiet=True)
    progress.say("hello")
    stage = progress.stage("decode", total=2)
    stage.advance()
    stage.close()
    assert stage.done == 1
    assert stream.getvalue() == ""


def test_say_prints_one_line_to_standard_error(capsys):
    Progress().say("hello")
    assert capsys.readouterr() == ("", "hello\n")
