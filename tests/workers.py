"""Real worker processes on this machine, for tests of `keras_opt.distribute`."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).parent


@dataclass
class Worker:
    """One process of a cluster; what it prints, to either stream, goes into the file `log`."""

    index: int
    process: subprocess.Popen
    log: Path

    @property
    def output(self) -> str:
        """What it has printed up to now."""
        return self.log.read_text(errors="replace")


def free_ports(count: int) -> list[int]:
    """Ports of the loopback that nobody listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@contextlib.contextmanager
def workers(script: Path, *arguments: object, count: int, folder: Path, **environment: str) -> Iterator[list[Worker]]:
    """Start `count` processes of `script`, each with its TF_CONFIG and one thread; whatever happens, they are killed.

    Args:
        script: A Python file, which may import what is in `tests`.
        *arguments: Those of its command line.
        count: How many workers; 0 for one process without TF_CONFIG.
        folder: Where the logs go, `worker-0.log` and so on.
        **environment: Variables for all of them.
    """
    addresses = [f"127.0.0.1:{port}" for port in free_ports(count)]
    path = os.pathsep.join([str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")])
    common = {**os.environ, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    common |= {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1", "OMP_NUM_THREADS": "1"} | environment
    common.pop("TF_CONFIG", None)
    started = []
    try:
        for index in range(count or 1):
            config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
            own = {**common, "TF_CONFIG": json.dumps(config)} if count else common
            log = folder / f"worker-{index}.log"
            with log.open("wb") as output:
                process = subprocess.Popen(
                    [sys.executable, str(script), *map(str, arguments)],
                    env=own,
                    cwd=folder,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )
            started.append(Worker(index, process, log))
        yield started
    finally:
        for worker in started:
            worker.process.kill()
        for worker in started:
            worker.process.wait()


def wait(started: list[Worker], seconds: float) -> None:
    """Wait until all of them have ended well; say what was printed by one that has not."""
    end = time.monotonic() + seconds
    running = list(started)
    while running and time.monotonic() < end:
        running = [worker for worker in running if worker.process.poll() is None]
        failed = [worker for worker in started if worker.process.poll()]
        if failed:
            worker = failed[0]
            raise AssertionError(
                f"worker {worker.index} ended with {worker.process.returncode}:\n{worker.output[-3000:]}"
            )
        time.sleep(0.05)
    if running:
        tails = "\n".join(f"--- worker {worker.index}:\n{worker.output[-1500:]}" for worker in running)
        raise AssertionError(f"{len(running)} workers still run after {seconds} s:\n{tails}")


def run_workers(script: Path, *arguments: object, count: int, folder: Path, seconds: float, **environment: str) -> None:
    """Start workers as `workers` does, and wait until all have ended well."""
    with workers(script, *arguments, count=count, folder=folder, **environment) as started:
        wait(started, seconds)


def said(source: str, *arguments: object, count: int = 2, folder: Path, seconds: float) -> list[str]:
    """What each of `count` workers has printed that ran `source` and ended well."""
    script = folder / "script.py"
    script.write_text(source)
    with workers(script, *arguments, count=count, folder=folder) as started:
        wait(started, seconds)
    return [worker.output for worker in started]


def assert_all_say(outputs: list[str], *texts: str) -> None:
    """Each of `texts` is in each of `outputs`."""
    for output in outputs:
        for text in texts:
            assert text in output, output[-2000:]
