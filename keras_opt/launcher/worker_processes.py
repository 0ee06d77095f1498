"""Processes that live and die together."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence

_LOOK_EVERY_SECONDS = 0.05
# It leads the process group. Its input ends when the process that made it ends, however that ends: then all go.
_GUARD = "trap '' INT TERM HUP; read -r _; kill -KILL 0"


class WorkerProcesses:
    """Processes in one process group, of which none outlives this one, their children included.

    A context manager; at its end all are gone. A guard, a shell that waits for this process to end, sees to it that
    they also go where this process is killed by `kill -9`. Only what leaves the process group by itself, as a daemon
    does, escapes.

    Args:
        grace_seconds: How long a process may go on after it was asked to end, before it is killed.
        saving_seconds: The same where Ctrl-C or a signal ends the block: the script may want to save what it has.

    Attributes:
        processes: In the order they were started; their standard output and error are pipes.
    """

    def __init__(self, grace_seconds: float, saving_seconds: float):
        self.processes: list[subprocess.Popen] = []
        self._grace_seconds, self._saving_seconds = grace_seconds, saving_seconds
        quiet = subprocess.DEVNULL
        command = ["sh", "-c", _GUARD]
        self._guard = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=quiet, stderr=quiet, process_group=0)

    def start(self, command: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen:
        """Start a process that reads nothing."""
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            process_group=self._guard.pid,
        )
        self.processes.append(process)
        return process

    def wait(self) -> tuple[int, int] | None:
        """Wait until all have ended well, or one has not: its number and exit status, 128 + n for signal n.

        Of several that are found at once, one that a signal has ended is the first: it took the others with it.
        """
        while True:
            codes = [process.poll() for process in self.processes]
            failed = [(code, number) for number, code in enumerate(codes) if code]
            if failed:
                code, number = min(failed)
                return number, code if code > 0 else 128 - code
            if None not in codes:
                return None
            time.sleep(_LOOK_EVERY_SECONDS)

    def stop(self, number: int, seconds: float) -> None:
        """Send a signal to all, and kill what is still there after `seconds`."""
        try:
            self._signal(number)
            latest = time.monotonic() + seconds
            while any(process.poll() is None for process in self.processes) and time.monotonic() < latest:
                time.sleep(_LOOK_EVERY_SECONDS)
        finally:  # also where Ctrl-C comes a second time
            self._signal(signal.SIGKILL)
            for process in (*self.processes, self._guard):
                process.wait()
            self._guard.stdin.close()

    def _signal(self, number: int) -> None:
        if self._guard.returncode is None:  # else the number of the group may be another's by now
            with contextlib.suppress(ProcessLookupError, PermissionError):  # on macOS the latter, if all have ended
                os.killpg(self._guard.pid, number)

    def __enter__(self) -> "WorkerProcesses":
        return self

    def __exit__(self, kind: type | None, *_error: object) -> None:
        is_asked_to_end = kind is not None and not issubclass(kind, Exception)
        seconds = self._saving_seconds if is_asked_to_end else self._grace_seconds
        self.stop(signal.SIGINT if kind is KeyboardInterrupt else signal.SIGTERM, seconds)
