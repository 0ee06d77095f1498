"""Latency of .tflite files on this host, measured in turn."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_opt.core.errors import argument_error, check_at_least
from keras_opt.export.interpreter import LiteRTModel

WARM_UP_CALLS = 10


@dataclass(frozen=True)
class Latency:
    """One file's time per call in milliseconds: the median, the 5th and the 95th percentile of `runs` calls."""

    path: Path
    median_ms: float
    low_ms: float
    high_ms: float
    runs: int

    def __str__(self) -> str:
        spread = f"{self.low_ms:.3g} to {self.high_ms:.3g} ms in nine calls of ten"
        return f"{self.path.name}: {self.median_ms:.3g} ms a call ({spread}, {self.runs} calls)"


def benchmark(
    files: str | os.PathLike | Sequence[str | os.PathLike],
    threads: int = 1,
    runs: int = 200,
    x: np.ndarray | None = None,
) -> tuple[Latency, ...]:
    """Time .tflite files beside one another: A B A B, so that a busy moment of the host hits all alike.

    Only the interpreter's call is timed, after a warm-up; this host's times say which file is faster, not how fast a
    device will be.

    Args:
        files: Paths of .tflite files, or one path.
        threads: Threads that one call may use; 1, what a small device has, by default.
        runs: Timed calls of each file.
        x: A batch of raw inputs whose first row is used; random pixels by default.

    Returns:
        One `Latency` per file, in the order given.

    Raises:
        InputError: A file does not run, `files` is no path and no list of paths, or `x` does not fit.
    """
    check_at_least("benchmark", "runs", runs, 1)
    if isinstance(files, str | os.PathLike):
        files = [files]
    if not files:
        cure = 'Give for example ["float32.tflite", "int8.tflite"].'
        raise argument_error("benchmark", "files", files, "a path of a .tflite file, or a list of them", cure)
    models = [LiteRTModel(path, threads) for path in files]
    for model in models:
        model.predict(_pixels(model.input_shape) if x is None else np.asarray(x)[:1])
        for _ in range(WARM_UP_CALLS):
            model.invoke()
    milliseconds = [[1e3 * _seconds(model) for model in models] for _ in range(runs)]
    return tuple(_latency(model.path, times) for model, times in zip(models, np.transpose(milliseconds), strict=True))


def _seconds(model):
    start = time.perf_counter()
    model.invoke()
    return time.perf_counter() - start


def _pixels(shape):
    return np.random.default_rng(0).integers(0, 256, shape)


def _latency(path, times):
    low, median, high = (float(value) for value in np.percentile(times, (5, 50, 95)))
    return Latency(path=path, median_ms=median, low_ms=low, high_ms=high, runs=len(times))
