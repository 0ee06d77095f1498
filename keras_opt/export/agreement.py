"""How far the answers of two forms of one model agree, judged by what the model is for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_opt.core.errors import argument_error, did_you_mean

CLASSIFICATION, MULTI_LABEL, REGRESSION, SEGMENTATION = TASKS = (
    "classification",
    "multi_label",
    "regression",
    "segmentation",
)


@dataclass(frozen=True)
class Agreement:
    """One output of two forms of a model: `other` (a device file, say) beside `reference` (Keras).

    Args:
        output: The output's name.
        same_answer: Fraction in [0, 1] of the answers that are the same: the class of each row for
            "classification", of each pixel for "segmentation", each label for "multi_label"; `None` for a regression
            or a metric.
        relative_error: `||other - reference|| / ||reference||` over all values; `inf` where only the reference is 0.
        max_error: Largest absolute difference between two values.
        reference_metric: The task's metric of the reference; `None` without targets.
        other_metric: The same of the other.
        metric: The metric's name; "" without targets.
    """

    output: str
    same_answer: float | None
    relative_error: float
    max_error: float
    reference_metric: float | None = None
    other_metric: float | None = None
    metric: str = ""

    @property
    def metric_change(self) -> float | None:
        """`other_metric - reference_metric`; `None` without targets."""
        return None if self.reference_metric is None else self.other_metric - self.reference_metric

    @property
    def sqnr_db(self) -> float:
        """Signal to quantization noise, `-20 log10(relative_error)`; `inf` where the two are equal."""
        return float("inf") if self.relative_error == 0 else float(-20 * np.log10(self.relative_error))

    def __str__(self) -> str:
        parts = [f"relative error {self.relative_error:.2g}, largest difference {self.max_error:.3g}"]
        if self.same_answer is not None:
            parts.insert(0, f"{self.same_answer:.2%} of the answers are the same")
        if self.metric:
            parts.append(f"{self.metric} {self.other_metric:.4g} instead of {self.reference_metric:.4g}")
        return "; ".join(parts)


def check_task(owner: str, task: Any, outputs: Sequence[str]) -> tuple[Any, ...]:
    """The task of each of `outputs`: `task` is one of `TASKS` or a Keras metric for all, or a dict or list of them.

    Raises:
        InputError: `task` is something else, or does not name each output.
    """
    if isinstance(task, Mapping):
        task = [task.get(name) for name in outputs] if set(task) == set(outputs) else [None]
    tasks = list(task) if isinstance(task, list | tuple) else [task] * len(outputs)
    if len(tasks) != len(outputs) or None in tasks:
        must_be = f"one task, or one for each output: {', '.join(outputs)}"
        raise argument_error(owner, "task", task, must_be, f"Give for example {dict.fromkeys(outputs, REGRESSION)!r}.")
    for each in tasks:
        if each not in TASKS and not isinstance(each, keras.metrics.Metric):
            must_be = f"one of {', '.join(map(repr, TASKS))}, or a keras.metrics.Metric"
            raise argument_error(owner, "task", each, must_be, did_you_mean(each, TASKS))
    return tuple(tasks)


def agreement(
    output: str, other: np.ndarray, reference: np.ndarray, task: str | keras.metrics.Metric, y: Any = None
) -> Agreement:
    """Compare what two forms of a model give for the same rows.

    Args:
        output: The output's name.
        other: What the one form gives, (rows, ...), float.
        reference: What the other gives, of the same shape; the errors are relative to it.
        task: What the output is for: one of `TASKS`, or a Keras metric, which `y` then needs.
        y: Targets: adds the metric of both forms. For the tasks by name it is accuracy for a classification (classes
            or one-hot rows) and a segmentation (by pixel), accuracy of all labels for multi_label, and mean absolute
            error for a regression.
    """
    other, reference = np.asarray(other, np.float64), np.asarray(reference, np.float64)
    error = other - reference
    same, boundary = None, boundary_of(reference)
    if task in TASKS and task != REGRESSION:
        same = float(np.mean(answers(other, task, boundary) == answers(reference, task, boundary)))
    measured = {}
    if y is not None:
        measured = {
            "reference_metric": metric_value(reference, y, task, boundary),
            "other_metric": metric_value(other, y, task, boundary),
            "metric": task.name if isinstance(task, keras.metrics.Metric) else _METRICS[task],
        }
    return Agreement(output, same, _ratio(error, reference), float(np.abs(error).max()), **measured)


def boundary_of(outputs: np.ndarray) -> float:
    """Above what a label, or a single unit, says yes: 0.5 for probabilities, 0 for logits, which leave [0, 1]."""
    return 0.5 if outputs.min() >= -1e-6 and outputs.max() <= 1 + 1e-6 else 0.0


def answers(outputs: np.ndarray, task: str, boundary: float) -> np.ndarray:
    """What outputs say: the class of each row or pixel; of "multi_label", and a single unit, if it is over `boundary`.

    For a regression the outputs themselves.
    """
    if task == REGRESSION:
        return outputs
    if task == MULTI_LABEL or outputs.shape[-1] == 1:
        return outputs > boundary
    return outputs.argmax(-1)


def metric_value(outputs: np.ndarray, y: Any, task: str | keras.metrics.Metric, boundary: float | None = None) -> float:
    """The metric of a task: that of `agreement`, or the Keras metric given, which is left as it was.

    `boundary` is that of `answers`; `None` takes `boundary_of(outputs)`.
    """
    if isinstance(task, keras.metrics.Metric):
        metric = type(task).from_config(task.get_config())
        metric.update_state(y, outputs)
        return float(metric.result())
    y = np.asarray(y)
    if task == REGRESSION:
        return float(np.abs(outputs - y.reshape(outputs.shape)).mean())
    said = answers(outputs, task, boundary_of(outputs) if boundary is None else boundary)
    if task != MULTI_LABEL and y.shape == outputs.shape and outputs.shape[-1] > 1:
        return float(np.mean(said == y.argmax(-1)))
    return float(np.mean(said == y.reshape(said.shape)))


_METRICS = {
    CLASSIFICATION: "accuracy",
    MULTI_LABEL: "accuracy by label",
    REGRESSION: "mean absolute error",
    SEGMENTATION: "accuracy by pixel",
}


def _ratio(error, reference):
    size, signal = np.linalg.norm(error), np.linalg.norm(reference)
    return float(size / signal) if signal else float(size and np.inf)
