"""Latency of .tflite files on this host, measured in turn."""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_opt.core.errors import argument_error, check_at_least
from keras_opt.export.file_tensors import rows_by_input
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


class Latencies(tuple[Latency, ...]):
    """What `benchmark` measured, one `Latency` a file, in the order given; prints as one line each."""

    def __str__(self) -> str:
        return "\n".join(map(str, self))


def benchmark(
    files: str | os.PathLike | Sequence[str | os.PathLike],
    threads: int = 1,
    runs: int = 200,
    x: np.ndarray | Sequence[np.ndarray] | Mapping[str, np.ndarray] | None = None,
) -> Latencies:
    """Time .tflite files beside one another: A B A B, so that a busy moment of the host hits all alike.

    Only the interpreter's call is timed, after a warm-up; this host's times say which file is faster, not how fast a
    device will be. There is no time by operator: the Python package of LiteRT (2.3.0) brings no profiler.

    Args:
        files: Paths of .tflite files, or one path.
        threads: Threads that one call may use; 1, what a small device has, by default.
        runs: Timed calls of each file.
        x: Raw inputs whose first row is used, for several inputs a list or dict of them. By default random
            zeros and ones, which are pixels and token ids alike, and zeros where a file takes whole numbers.

    Returns:
        One `Latency` per file, in the order given: a tuple that prints as a line each.

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
        model.predict(_first_row(x, model.inputs))
        for _ in range(WARM_UP_CALLS):
            model.invoke()
    milliseconds = [[1e3 * _seconds(model) for model in models] for _ in range(runs)]
    times = zip(models, np.transpose(milliseconds), strict=True)
    return Latencies(_latency(model.path, each) for model, each in times)


def _seconds(model):
    start = time.perf_counter()
    model.invoke()
    return time.perf_counter() - start


def _first_row(x, inputs):
    """One row for each input, by name."""
    if x is None:
        rows = [_any_row(tensor) for tensor in inputs]
    else:
        rows = [column[:1] for column in rows_by_input("benchmark", x, inputs)]
    return {tensor.name: row for tensor, row in zip(inputs, rows, strict=True)}


def _any_row(tensor):
    if tensor.dtype.startswith("int") and not tensor.scale:
        return np.zeros(tensor.shape)
    return np.random.default_rng(0).integers(0, 2, tensor.shape)


def _latency(path, times):
    low, median, high = (float(value) for value in np.percentile(times, (5, 50, 95)))
    return Latency(path=path, median_ms=median, low_ms=low, high_ms=high, runs=len(times))
