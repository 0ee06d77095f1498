"""Progress on a terminal, elsewhere, and not at all."""

import io

import pytest

from keras_opt.core import progress as progress_module
from keras_opt.core.errors import InputError
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


def test_names_with_brackets_are_shown_as_they_are():
    stream = Terminal()
    with Progress(stream).stage("read [red]", total=1) as stage:
        stage.advance(note="[/loss]")
    assert "read [red]" in stream.getvalue()
    assert "[/loss]" in stream.getvalue()


def test_a_process_without_standard_error_shows_nothing(monkeypatch, capsys):
    monkeypatch.setattr(progress_module.sys, "stderr", None)
    Progress().say("hello")
    work(Progress(), units=1, total=1)
    assert capsys.readouterr() == ("", "")


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


def test_verbose_has_the_values_of_keras(monkeypatch):
    stream = Terminal()
    monkeypatch.setattr(progress_module.sys, "stderr", stream)
    for verbose, shows in ((0, ""), (2, "decode: 1/1 in 0.0 s (unit 0)\n")):
        stream.truncate(0)
        stream.seek(0)
        progress = Progress.of("call", verbose)
        work(progress, units=1, total=1)
        assert stream.getvalue() == shows
        assert Progress.of("call", progress.verbose).verbose == verbose
    work(Progress.of("call", "auto"), units=1, total=1)
    assert "100%" in stream.getvalue()
    with pytest.raises(InputError, match="call: argument `verbose` must be one of 'auto', 0, 1, 2"):
        Progress.of("call", None)


def test_say_prints_one_line_to_standard_error(capsys):
    Progress().say("hello")
    assert capsys.readouterr() == ("", "hello\n")
