"""The processes that share the trials of a search."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

_LOOK_EVERY_SECONDS = 0.2
_SHOWN_OF_LOG = 300


class Worker:
    """A process that trains one trial at a time, and is started anew when it dies.

    Args:
        folder: Of the search.
        number: Of the worker; its output goes to `worker-NUMBER.log`.
        workers: How many there are: each takes its share of the cores.
    """

    def __init__(self, folder: Path, number: int, workers: int):
        self.trial: int | None = None
        self.log = folder / f"worker-{number}.log"
        threads = max(1, (os.cpu_count() or 1) // workers)
        self._environment = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_NUM_INTRAOP_THREADS": str(threads), **os.environ}
        self._command = [sys.executable, "-m", "keras_opt.recipes.search_worker", str(folder), str(number)]
        self._start()

    def give(self, trial: int) -> None:
        """Let it train a trial."""
        if self._process.poll() is not None:
            self._process.stdin.close()
            self._start()
        self.trial = trial
        with contextlib.suppress(BrokenPipeError):  # it has just died, which `death` will tell
            self._process.stdin.write(f"{trial}\n".encode())

    def death(self) -> str | None:
        """How the process ended; `None` while it is alive."""
        code = self._process.poll()
        if code is None:
            return None
        end = f"signal {-code}" if code < 0 else f"exit status {code}"
        said = self.log.read_text(errors="replace").strip()[-_SHOWN_OF_LOG:]
        return f"{end}; its last words: {said}" if said else end

    def end(self) -> None:
        """Let it go, in the middle of its trial if need be."""
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()

    def _start(self) -> None:
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                bufsize=0,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
                start_new_session=True,  # Ctrl-C is for the process that shares out the trials
            )


class Workers:
    """So many workers; a context manager, at whose end all are gone.

    Args:
        folder: Of the search.
        count: How many.
    """

    def __init__(self, folder: Path, count: int):
        self._each = [Worker(folder, number, count) for number in range(count)]

    def run(
        self,
        take: Callable[[], int | None],
        is_finished: Callable[[int], bool],
        give_back: Callable[[int, str], None],
    ) -> None:
        """Share out trials until there are no more and the last is finished.

        Args:
            take: Gives the number of the next trial, `None` where there is none for now.
            is_finished: Whether a trial is.
            give_back: Takes a trial whose process died, and how it died.
        """
        while True:
            for worker in self._each:
                if worker.trial is not None:
                    death = worker.death()  # before the question whether it is finished: it may be both
                    if is_finished(worker.trial):
                        worker.trial = None
                    elif death:
                        give_back(worker.trial, death)
                        worker.trial = None
                if worker.trial is None and (trial := take()) is not None:
                    worker.give(trial)
            if all(worker.trial is None for worker in self._each):
                return
            time.sleep(_LOOK_EVERY_SECONDS)

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for worker in self._each:
            worker.end()
