"""Starts a script as several workers on this machine, and starts them again when one dies."""

import contextlib
import json
import os
import random
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import FrameType

from keras_opt.core.errors import InputError, argument_error, check_at_least, check_path, kind_error
from keras_opt.launcher.log_lines import LogLines
from keras_opt.launcher.shared_gpus import NO_GPU, share_gpus
from keras_opt.launcher.worker_processes import WorkerProcesses

# Below the ports that systems give to connections that go out: none is taken before the worker listens there.
_PORTS = range(12_000, 32_000)
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
# How long workers may take to end by themselves; to save what they have, at Ctrl-C or a signal; and what they have
# written last, to be shown.
_GRACE_SECONDS, _SAVING_SECONDS, _LAST_LINES_SECONDS = 2.0, 30.0, 1.0


@dataclass(frozen=True)
class WorkerFailure:
    """The end of a worker that was not a good one.

    Attributes:
        worker: Its number, from 0.
        status: Its exit status; 128 + n if signal n has ended it.
        seconds: After how many seconds from its start.
    """

    worker: int
    status: int
    seconds: float

    def __str__(self) -> str:
        return f"worker {self.worker} {_told(self.status)} after {self.seconds:.0f} s"


class WorkersFailed(RuntimeError):
    """The workers failed more often than they may be started again.

    Attributes:
        failures: Of each start the first failure, in their order.
    """

    def __init__(self, failures: list[WorkerFailure]):
        starts = "once" if len(failures) == 1 else f"{len(failures)} times"
        super().__init__(f"launch: {failures[-1]}. The workers were started {starts}.")
        self.failures = failures

    @property
    def status(self) -> int:
        """The exit status of the worker that failed first in the last start."""
        return self.failures[-1].status


def launch(
    script: str | os.PathLike,
    arguments: Sequence[str] = (),
    *,
    workers: int = 2,
    threads_per_worker: int | None = None,
    max_restarts: int = 3,
) -> list[WorkerFailure]:
    """Start a Python script as several workers on this machine, and start them again when one dies.

    Each worker is a process that runs `script` with the variable TF_CONFIG, in which it finds the others, so
    `keras_opt.distribute.strategy()` in it is one of several workers. What they write is shown line by line, with the
    worker's name in front.

    When one ends badly the others are stopped: a training with a worker less goes on nowhere. Then all are started
    again, and a script that trains with `keras_opt.callbacks.BackupAndRestore` goes on from the newest backup that all
    workers have; another one begins anew.

    When not: on several machines (there a scheduler starts each worker: set TF_CONFIG, or use SLURM's `srun`); nor to
    make one machine faster without having measured, since one process already uses all its cores. GPUs are shared out;
    with fewer of them than workers, all train on CPUs.

    No worker outlives this process: not at Ctrl-C or SIGTERM, which are passed on to them, with 30 seconds to save what
    they have (a second one ends them at once); nor when it is killed by `kill -9`; nor do processes that workers have
    started, as long as they stay in their process group. This needs a POSIX system.

    Args:
        script: A Python file.
        arguments: What the script finds in `sys.argv[1:]`.
        workers: Int of at least 1. Default 2.
        threads_per_worker: Int of at least 1, for TensorFlow's operations in each worker. `None`, the default, shares
            out the cores, unless the variable OMP_NUM_THREADS is set.
        max_restarts: Int of at least 0, how often the workers are started again, whatever the reason of the failure; 0
            while a script is being written. Default 3.

    Returns:
        The failures after which the workers were started again, in their order; empty if there were none.

    Raises:
        ValueError: An argument is out of its range; there is no such script; this process is a worker itself.
        WorkersFailed: A worker has failed after the last restart, or because nobody reads what it writes, as behind
            `| head`; `status` is its exit status.

    Cost: a process for each worker, with a TensorFlow and a model of its own, and one for the launcher, which loads
        neither.

    Example:
        >>> import keras_opt, pathlib, tempfile
        >>> script = pathlib.Path(tempfile.mkdtemp(), "train.py")
        >>> _ = script.write_text("print('Here I would train.')")
        >>> keras_opt.distribute.launch(script, workers=1)
        worker 0 | Here I would train.
        []
    """
    _check(script, arguments, workers, threads_per_worker, max_restarts)
    command = [sys.executable, os.fspath(script), *arguments]
    own = _variables(workers, threads_per_worker)
    failures: list[WorkerFailure] = []
    with _signals_raised():
        while True:
            lines = LogLines()
            failure = _run(command, own, lines)
            if failure is None:
                return failures
            failures.append(failure)
            if not lines.is_read:
                _say("nobody reads what the workers write, so they are not started again.")
            if len(failures) > max_restarts or not lines.is_read:
                raise WorkersFailed(failures)
            _say(f"restart {len(failures)} of at most {max_restarts}.")


def _run(command: Sequence[str], variables: list[dict[str, str]], lines: LogLines) -> WorkerFailure | None:
    """Start a worker with each of `variables` and wait for them; when one fails, stop the others."""
    addresses = [f"127.0.0.1:{port}" for port in _free_ports(len(variables))]
    began = time.monotonic()
    try:
        with WorkerProcesses(_GRACE_SECONDS, _SAVING_SECONDS) as group:
            for index, own in enumerate(variables):
                config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
                common = {"TF_CONFIG": json.dumps(config), "PYTHONUNBUFFERED": "1"}
                process = group.start(command, os.environ | own | common)
                for pipe, stream in ((process.stdout, sys.stdout), (process.stderr, sys.stderr)):
                    lines.follow(index, f"worker {index}", pipe, stream)
            failed = group.wait()
            if failed is None:
                return None
            failure = WorkerFailure(*failed, seconds=time.monotonic() - began)
            _say(f"{failure}; the others are stopped.")
            return failure
    finally:
        lines.finish(_LAST_LINES_SECONDS)


def _free_ports(count: int) -> list[int]:
    ports = []
    for port in random.Random(time.time_ns()).sample(_PORTS, len(_PORTS)):  # the training's generator stays as it is
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            ports.append(port)
        if len(ports) == count:
            return ports
    raise RuntimeError(f"launch: this machine has no {count} free ports from {_PORTS.start} to {_PORTS.stop - 1}.")


def _variables(workers: int, threads_per_worker: int | None) -> list[dict[str, str]]:
    """What each worker has in its environment for itself."""
    gpus = share_gpus(os.environ, workers)
    if NO_GPU in gpus:
        _say(f"there are fewer GPUs than the {workers} workers, so these train on CPUs.")
    return [_threads(threads_per_worker, workers) | own for own in gpus]


def _threads(per_worker: int | None, workers: int) -> dict[str, str]:
    if per_worker is None:
        if "OMP_NUM_THREADS" in os.environ:
            return {}
        per_worker = max(1, _cores() // workers)
    return dict.fromkeys(_THREAD_VARIABLES, str(per_worker))


def _cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# --- signals ---------------------------------------------------------------------------------------------------------


class _Stopped(BaseException):
    """SIGTERM or SIGHUP has come: like KeyboardInterrupt, no error."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


@contextlib.contextmanager
def _signals_raised() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the block as Ctrl-C does; after it they do what they did before.

    In a thread that is not the main one, where Python allows no handlers, the signals go their old way.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    # SIG_IGN as `nohup` leaves it, None of a handler that is not Python's: these stay.
    before = {number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, None)}
    try:
        for number in before:
            signal.signal(number, _raise)
        yield
    except _Stopped as stop:
        signal.signal(stop.number, before[stop.number])
        signal.raise_signal(stop.number)
        raise SystemExit(128 + stop.number) from None  # a handler of the user's own has come back
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _raise(number: int, _frame: FrameType | None) -> None:
    raise _Stopped(number)


# --- checks ----------------------------------------------------------------------------------------------------------


def _check(
    script: str | os.PathLike,
    arguments: Sequence[str],
    workers: int,
    threads_per_worker: int | None,
    max_restarts: int,
) -> None:
    check_path("launch", "script", script)
    if not os.path.isfile(script):
        raise argument_error("launch", "script", os.fspath(script), "a Python file", "There is none of that name.")
    is_sequence = isinstance(arguments, Sequence) and not isinstance(arguments, str)
    if not is_sequence or not all(isinstance(each, str) for each in arguments):
        cure = 'Give for example ["--epochs", "10"].'
        raise kind_error("launch", "arguments", arguments, "a sequence of texts", cure)
    check_at_least("launch", "workers", workers, 1)
    if threads_per_worker is not None:
        check_at_least("launch", "threads_per_worker", threads_per_worker, 1)
    check_at_least("launch", "max_restarts", max_restarts, 0)
    if os.environ.get("TF_CONFIG", "").strip():
        raise InputError(
            "launch: TF_CONFIG is set, so this process is a worker, which starts no others. Call launch in another "
            "script than the one it starts, or unset TF_CONFIG."
        )
    if not hasattr(os, "killpg"):
        raise RuntimeError(
            "launch: this system has no process groups, so workers could outlive this process. Start each yourself, "
            "with TF_CONFIG."
        )


def _told(status: int) -> str:
    if status <= 128:
        return f"ended with status {status}"
    try:
        return f"was ended by {signal.Signals(status - 128).name}"
    except ValueError:
        return f"ended with status {status}"


def _say(message: str) -> None:
    print(f"launch: {message}", file=sys.stderr, flush=True)
