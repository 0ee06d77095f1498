"""The process that TensorFlow's converter runs in, started at the first conversion and kept for the next."""

import atexit
import contextlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from keras_opt.export import converter_child

LARGE_BYTES = 2**26  # of a conversion's files; the process takes some 25 times as much, and gives nothing back


class ConverterCrash(RuntimeError):
    """The converter took its process down; the message says by which signal or exit code."""


class ConverterProcess:
    """Runs `converter_child` and hands it one folder after the other.

    It starts Python afresh (TensorFlow does not survive a fork), ends at exit, when this process dies, at an interrupt,
    at a crash and after a large model (it would keep gigabytes); the next conversion starts another. Threads wait for
    one another; a forked process gets its own.

    Cost: 2 to 3 s for the first conversion, the time in which TensorFlow is imported; none for the others.
    """

    def __init__(self):
        self._process: subprocess.Popen | None = None
        self._owner = 0
        self._lock = threading.Lock()
        atexit.register(self.stop)

    def start(self) -> None:
        """Start the process, where it does not run already, and come back at once: it gets ready meanwhile."""
        with self._lock:
            self._running()

    def convert(self, folder: Path) -> bool:
        """Convert what is in `folder`; whether there is a file now, and not a reason.

        Raises:
            ConverterCrash: The process died of it.
        """
        with self._lock:
            process = self._running()
            try:
                answer = self._ask(process, folder)
            except BaseException:  # an interrupt: the conversion is of no use any more
                self.stop()
                raise
            if not answer:
                process.wait()
                self.stop()
                raise ConverterCrash(_how_it_ended(process.returncode))
            if _bytes_in(folder) > LARGE_BYTES:
                self.stop()
            return answer == converter_child.DONE

    def stop(self) -> None:
        """End the process, unless it is another's."""
        process, self._process = self._process, None
        if process is None or self._owner != os.getpid():
            return
        process.kill()
        process.wait()
        with contextlib.suppress(BrokenPipeError):  # what it was asked and did not read
            process.stdin.close()
        process.stdout.close()

    def _running(self):
        alive = self._process is not None and self._owner == os.getpid() and self._process.poll() is None
        if not alive:
            self.stop()
            self._owner = os.getpid()
            self._process = _started()
        return self._process

    @staticmethod
    def _ask(process, folder):
        try:
            process.stdin.write(f"{folder}\n")
            process.stdin.flush()
        except BrokenPipeError:  # it died before it was asked
            return ""
        # A line that is no answer is what TensorFlow said while it was imported.
        return next((line for line in process.stdout if line.strip() in converter_child.ANSWERS), "").strip()


def _started():
    """A fresh Python that finds what this one finds, and leaves the GPU alone: the converter computes on the CPU."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "CUDA_VISIBLE_DEVICES": "-1"}
    return subprocess.Popen(
        [sys.executable, "-P", converter_child.__file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        text=True,
    )


def _bytes_in(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _how_it_ended(code):
    if code >= 0:
        return f"exit code {code}"
    return signal.Signals(-code).name


CONVERTER = ConverterProcess()
