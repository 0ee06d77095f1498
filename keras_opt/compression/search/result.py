"""What `compress` found: every file that it made, the best trade-offs among them, and the one to ship."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_opt.core.axes import plot_axes
from keras_opt.export.agreement import metric_value

OBJECTIVES = {"latency": "latency_ms", "size": "gzip_bytes", "macs": "macs"}
AXES = {
    "latency": "milliseconds a call on this host",
    "size": "bytes to download (gzip)",
    "macs": "multiply-accumulates",
}

_ROUNDING = 1e-6  # of a difference between two metrics: 0.93 - 0.92 is above 0.01


@dataclass(frozen=True)
class Candidate:
    """One recipe and its file; what is not known is `None`.

    Args:
        name: The recipe in words.
        path: The file; `None` where the recipe gave none, and `note` says why.
        metric: The file's metric on the validation data, run in LiteRT.
        drop: By how much it is worse than the float model's.
        macs: Multiply-accumulates of one inference.
        size_bytes: The file, which is what it takes in flash.
        gzip_bytes: The file as it is downloaded.
        arena_bytes: The memory of a TFLite Micro device; `None` for a file that TFLite Micro does not run.
        latency_ms: Median milliseconds of a call on this host with one thread.
        seconds: What the recipe took.
        note: What else there is to say.
    """

    name: str
    path: Path | None = None
    metric: float | None = None
    drop: float | None = None
    macs: int | None = None
    size_bytes: int | None = None
    gzip_bytes: int | None = None
    arena_bytes: int | None = None
    latency_ms: float | None = None
    seconds: float = 0.0
    note: str = ""


@dataclass(frozen=True)
class CompressionResult:
    """What `compress` returns; printing it shows the table.

    Args:
        candidates: All recipes, in the order in which they were tried.
        front: The Pareto front: of these none is beaten by another in both metric and objective; the fastest or
            smallest first.
        best: The one with the lowest objective within all limits; `None` if none is within.
        metric: The metric's name.
        reference: The float model's metric on the validation data.
        objective: "latency", "size" or "macs".
        limits: The limits in words.
        task: What the files are judged by, as `keras_opt.export.verify` takes it: a task, or a Keras metric.
    """

    candidates: tuple[Candidate, ...]
    front: tuple[Candidate, ...]
    best: Candidate | None
    metric: str
    reference: float
    objective: str
    limits: str
    task: str | keras.metrics.Metric

    def measure(self, outputs: np.ndarray, y: np.ndarray) -> float:
        """The metric of outputs on other data, of a test say."""
        return metric_value(outputs, y, self.task)

    def __str__(self) -> str:
        header = ("", "recipe", self.metric, "MACs", "flash", "gzip", "arena", "host ms", "")
        rows = [header, *(self._row(candidate) for candidate in self.candidates)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
        lines = []
        for row in rows:
            mark, name, *numbers, note = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            lines.append("  ".join([mark, name, *(number.strip().rjust(len(number)) for number in numbers), note]))
        return "\n".join(line.rstrip() for line in [*lines, self._verdict()])

    def plot(self, ax: Any = None) -> Any:
        """Draw the metric over the objective, the Pareto front as a line; returns the matplotlib axes."""
        labels = {"xlabel": AXES[self.objective], "ylabel": f"{self.metric} on validation data"}
        ax = plot_axes(ax, title="What each recipe costs and keeps", **labels)
        made = [candidate for candidate in self.candidates if self._cost(candidate) is not None]
        ax.scatter([self._cost(each) for each in made], [each.metric for each in made], color="0.6", label="tried")
        ax.plot([self._cost(each) for each in self.front], [each.metric for each in self.front], "o-", label="front")
        if self.best is not None:
            ax.plot(self._cost(self.best), self.best.metric, "*", markersize=16, label=f"best: {self.best.name}")
        ax.axhline(self.reference, color="0.8", linestyle="--", label="the float model")
        ax.set(xscale="log")
        ax.legend()
        return ax

    def _cost(self, candidate):
        return getattr(candidate, OBJECTIVES[self.objective])

    def _row(self, candidate):
        mark = "*" if candidate is self.best else "." if candidate in self.front else ""
        metric = "" if candidate.metric is None else f"{candidate.metric:.4f}"
        latency = "" if candidate.latency_ms is None else f"{candidate.latency_ms:.3g}"
        counts = (candidate.macs, candidate.size_bytes, candidate.gzip_bytes, candidate.arena_bytes)
        return (
            mark,
            candidate.name,
            metric,
            *("" if count is None else f"{count:,}" for count in counts),
            latency,
            candidate.note,
        )

    def _verdict(self):
        reference = f"float model: {self.metric} {self.reference:.4f}; limits: {self.limits}"
        if self.best is None:
            return f"{reference}\nNo file is within the limits."
        return f"{reference}\nbest for {self.objective}: {self.best.name} (*), the Pareto front is marked by dots"


@dataclass(frozen=True)
class Limits:
    """What the best file may not exceed; `None` for any. In words by `str`."""

    max_drop: float
    max_flash_bytes: int | None = None
    max_arena_bytes: int | None = None

    def allow(self, candidate: Candidate) -> bool:
        """Whether a candidate that has a file is within all of them."""
        arena = candidate.arena_bytes
        return (
            candidate.drop <= self.max_drop + _ROUNDING
            and (self.max_flash_bytes is None or candidate.size_bytes <= self.max_flash_bytes)
            and (self.max_arena_bytes is None or (arena is not None and arena <= self.max_arena_bytes))
        )

    def __str__(self) -> str:
        words = [f"a drop of {self.max_drop:g}"]
        words += [f"{self.max_flash_bytes:,} bytes of flash"] if self.max_flash_bytes is not None else []
        words += [f"an arena of {self.max_arena_bytes:,} bytes"] if self.max_arena_bytes is not None else []
        return ", ".join(words)


def front_and_best(
    candidates: Sequence[Candidate], objective: str, lower_is_better: bool, limits: Limits
) -> tuple[tuple[Candidate, ...], Candidate | None]:
    """The Pareto front, the lowest objective first, and the best candidate within the limits."""
    cost = OBJECTIVES[objective]
    made = [each for each in candidates if each.metric is not None and getattr(each, cost) is not None]
    sign = 1 if lower_is_better else -1
    made.sort(key=lambda each: (getattr(each, cost), sign * each.metric))
    front, worst = [], np.inf
    for each in made:
        if sign * each.metric < worst:
            front.append(each)
            worst = sign * each.metric
    return tuple(front), next(filter(limits.allow, made), None)
