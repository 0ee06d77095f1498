"""Progress with the time left: a rich bar on a terminal, plain lines elsewhere."""

import sys
import time
import weakref
from typing import TextIO

from keras_opt.core.errors import check_choice, kind_error
from keras_opt.core.optional import require

PLAIN_LINE_SECONDS = 10.0
VERBOSE = ("auto", 0, 1, 2)  # 0 is silent, 2 is plain lines; the others are a bar on a terminal and lines elsewhere


class Progress:
    """Shows named stages of long work, each with its time left.

    Args:
        file: Where to write; standard error by default, so that standard output stays clean.
        quiet: Shows nothing at all.
        plain: Shows lines on a terminal too.

    Example:
        >>> progress = Progress(quiet=True)
        >>> with progress.stage("decode", total=3) as stage:
        ...     for _ in range(3):
        ...         stage.advance()
    """

    def __init__(self, file: TextIO | None = None, *, quiet: bool = False, plain: bool = False):
        self.file = file
        self.quiet = quiet
        self.plain = plain

    @classmethod
    def of(cls, owner: str, verbose: str | int) -> "Progress":
        """That of the public call `owner` with the argument `verbose`, in Keras's values.

        Raises:
            ValueError: `verbose` is another value.
        """
        check_choice(owner, "verbose", verbose, VERBOSE)
        return cls(quiet=verbose == 0, plain=verbose == 2)

    @property
    def verbose(self) -> int:
        """The argument with which another call shows as much."""
        return 0 if self.quiet else 1 + self.plain

    def say(self, text: str) -> None:
        """Print one line."""
        if self._shows:
            print(text, file=self._stream, flush=True)

    def stage(self, name: str, total: int) -> "Stage":
        """A stage of `total` units of work, 0 if that is not known: a context manager, or close it by hand."""
        if not self._shows:
            return Stage(name, total)
        if self._stream.isatty() and not self.plain:
            return _BarStage(name, total, self._stream)
        return _LineStage(name, total, self._stream)

    @property
    def _shows(self) -> bool:
        return not self.quiet and self._stream is not None

    @property
    def _stream(self) -> TextIO | None:
        return self.file or sys.stderr  # None in a process whose standard error is closed


def check_progress(owner: str, value: object) -> None:
    """Raise unless `value`, the argument `progress` of `owner`, is a `Progress` or `None`."""
    if value is None or isinstance(value, Progress):
        return
    cure = "Leave it out, or give keras_opt.core.progress.Progress()."
    raise kind_error(owner, "progress", value, "a Progress or None", cure)


class Stage:
    """One stage of work. This one shows nothing; its subclasses draw."""

    def __init__(self, name: str, total: int):
        self.name = name
        self.total = total
        self.done = 0
        self.note = ""

    def advance(self, units: int = 1, note: str | None = None) -> None:
        """Count `units` of work as done; `note` is shown beside the bar until the next one."""
        self.done += units
        self.note = self.note if note is None else note
        self._draw()

    def close(self) -> None:
        """End the stage; nothing to end here."""

    def __enter__(self) -> "Stage":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _draw(self) -> None:
        """Show the new state; nothing to show here."""


class _BarStage(Stage):
    def __init__(self, name: str, total: int, stream: TextIO):
        super().__init__(name, total)
        self._bar = _rich_bar(stream)
        self._task = self._bar.add_task(name, total=total or None, note="")
        self._bar.start()
        # Gives the terminal its cursor back even where an interrupt kept `close` from being called.
        self._end = weakref.finalize(self, self._bar.stop)

    def close(self) -> None:
        if self.done:  # work that ended early, as early stopping does, is done too
            self._bar.update(self._task, total=self.done)
        self._end()

    def _draw(self) -> None:
        self._bar.update(self._task, completed=self.done, note=self.note)


class _LineStage(Stage):
    def __init__(self, name: str, total: int, stream: TextIO):
        super().__init__(name, total)
        self._stream = stream
        self._start = self._last = time.monotonic()

    def close(self) -> None:
        self._print(f"{self.done}/{self.total or self.done} in {time.monotonic() - self._start:.1f} s")

    def _draw(self) -> None:
        now = time.monotonic()
        if now - self._last >= PLAIN_LINE_SECONDS and (self.done < self.total or not self.total):
            self._last = now
            left = (now - self._start) * (self.total - self.done) / max(self.done, 1)
            self._print(f"{self.done}/{self.total}, about {left:.0f} s left" if self.total else f"{self.done} done")

    def _print(self, state: str) -> None:
        note = f" ({self.note})" if self.note else ""
        print(f"{self.name}: {state}{note}", file=self._stream, flush=True)


def _rich_bar(stream):
    columns = require("rich.progress")
    return columns.Progress(
        columns.TextColumn("{task.description:<28}", markup=False),
        columns.BarColumn(bar_width=24),
        columns.TaskProgressColumn(),
        columns.TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        columns.TextColumn("{task.fields[note]}", style="dim", markup=False),
        console=require("rich.console").Console(file=stream),
    )
