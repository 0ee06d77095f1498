"""What several processes write, line by line, under their names."""

import os
import threading
from typing import IO, TextIO

_COLOURS = (36, 33, 35, 32, 34, 31)  # of ANSI terminals: cyan, yellow, magenta, green, blue, red


class LogLines:
    """Copies the lines of pipes to streams of this process, each whole and with the name of its writer.

    Where the stream is a terminal the names are coloured, unless the variable `NO_COLOR` is set.

    Attributes:
        is_read: Whether the streams took all. One that is a pipe takes no more when its reader ends, as `head` does.
    """

    def __init__(self):
        self.is_read = True
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    def follow(self, number: int, name: str, pipe: IO[bytes], stream: TextIO) -> None:
        """Copy `pipe` to `stream` until it ends; `number` chooses the colour."""
        thread = threading.Thread(target=self._copy, args=(_prefix(number, name, stream), pipe, stream), daemon=True)
        thread.start()
        self._threads.append(thread)

    def finish(self, seconds: float) -> None:
        """Wait for what is still in the pipes, `seconds` for each: a process that got away may hold one.

        But as long as it takes where a stream is not read, as by a pager.
        """
        for thread in self._threads:
            thread.join(seconds)
            while thread.is_alive() and self._lock.locked():
                thread.join(seconds)

    def _copy(self, prefix: str, pipe: IO[bytes], stream: TextIO) -> None:
        encoding = getattr(stream, "encoding", None) or "utf-8"  # so the stream can write all that was decoded
        with pipe:
            for line in pipe:
                # A bar that draws itself anew in one line, with "\r", is cut to how it looked last.
                text = line.decode(encoding, "backslashreplace").rstrip("\r\n").rpartition("\r")[2]
                try:
                    with self._lock:
                        stream.write(f"{prefix}{text}\n")
                        stream.flush()
                except BrokenPipeError:
                    self.is_read = False
                    return  # a worker that writes more learns of it too


def _prefix(number: int, name: str, stream: TextIO) -> str:
    if stream.isatty() and not os.environ.get("NO_COLOR"):
        return f"\x1b[{_COLOURS[number % len(_COLOURS)]}m{name} |\x1b[0m "
    return f"{name} | "
