"""Programs in processes of their own that need not import TensorFlow: they are forked from one that has it.

Where a process begins in 0.3 s in the place of 5, a test can afford many. The one that is forked has imported and done
nothing else: it has one thread. What a process does when it begins, and what it does with Ctrl-C and terminals, is
tested with `subprocess`.
"""

import atexit
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["tensorflow", "keras", "keras_opt.recipes.tune"])


def run(code: str, *arguments: object, cwd: Path | None = None, timeout: float = 600) -> subprocess.CompletedProcess:
    """`python -c code *arguments` to its end, as `subprocess.run` gives it with the captured text."""
    words = [str(each) for each in arguments]
    with tempfile.TemporaryDirectory() as folder:
        process = _PROCESSES.Process(target=_begin, args=(code, words, cwd, folder))
        process.start()
        process.join(timeout)
        if process.is_alive():
            process.kill()
            raise subprocess.TimeoutExpired(words, timeout)
        output = [Path(folder, name).read_text() for name in ("stdout", "stderr")]
        return subprocess.CompletedProcess(words, process.exitcode, *output)


def _begin(code, words, cwd, folder):
    for number, name in enumerate(("stdout", "stderr"), start=1):
        file = os.open(Path(folder, name), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
    os.chdir(cwd or os.getcwd())
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = ["-c", *words]
    try:
        exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
    finally:
        atexit._run_exitfuncs()  # what is to be done at the end of a process, `multiprocessing` leaves undone
