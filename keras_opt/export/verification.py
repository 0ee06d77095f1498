"""The device file beside the Keras model that it was made from."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_opt.export.agreement import CLASSIFICATION, Agreement, agreement, check_task
from keras_opt.export.call_on import call_on
from keras_opt.export.converter import float32_policy, input_dtype
from keras_opt.export.file_tensors import rows_by_input
from keras_opt.export.interpreter import LiteRTModel
from keras_opt.export.names import output_names
from keras_opt.models.tf_keras_inside import in_keras_3

BATCH_ROWS = 32
ONE_STEP = 1.001  # a difference of one step, rounded in float32, is one


@dataclass(frozen=True)
class Verification:
    """How close a file's answers are to its model's.

    Args:
        outputs: For each output of the model, in order, how far the two agree.
        lsb: For each output the step of the file's output (its scale); `None` for a file with float outputs.
        rows: How many rows were compared.
        within_lsb: For each output the share, in [0, 1], of its values that differ by one step or less; `None` for a
            file with float outputs.
    """

    outputs: tuple[Agreement, ...]
    lsb: tuple[float | None, ...]
    rows: int
    within_lsb: tuple[float | None, ...]

    @property
    def argmax_agreement(self) -> float | None:
        """The fraction of rows for which both give the same answer, the least of all outputs; `None` without any."""
        same = [each.same_answer for each in self.outputs if each.same_answer is not None]
        return min(same, default=None)

    @property
    def relative_error(self) -> float:
        """`||file - Keras|| / ||Keras||`, the largest of all outputs."""
        return max(each.relative_error for each in self.outputs)

    @property
    def max_error(self) -> float:
        """The largest absolute difference between two values of any output."""
        return max(each.max_error for each in self.outputs)

    @property
    def max_error_lsb(self) -> float | None:
        """The largest difference in steps of the file's output; `None` for a file with float outputs."""
        steps = [each.max_error / lsb for each, lsb in zip(self.outputs, self.lsb, strict=True) if lsb]
        return max(steps, default=None)

    @property
    def share_within_lsb(self) -> float | None:
        """The fraction of values that differ by one step or less, the least of all outputs; `None` without steps."""
        return min((share for share in self.within_lsb if share is not None), default=None)

    def __str__(self) -> str:
        lines = []
        for each, lsb, share in zip(self.outputs, self.lsb, self.within_lsb, strict=True):
            line = f"{each.output}, {self.rows:,} rows: {each}"
            if lsb:
                steps = each.max_error / lsb
                line += f"; at most {steps:.3g} steps of the file's output, {share:.2%} of the values within one"
            lines.append(line)
        return "\n".join(lines)


def verify(
    model: keras.Model,
    path: str | os.PathLike,
    x: np.ndarray | Sequence[np.ndarray] | Mapping[str, np.ndarray],
    y: Any = None,
    task: str | keras.metrics.Metric | Sequence[Any] | Mapping[str, Any] = CLASSIFICATION,
) -> Verification:
    """Run the .tflite file at `path` and `model` on the same raw inputs and compare their outputs.

    Args:
        model: The Keras model that the file was made from, or the tf_keras one of `tfmot_quantize`.
        path: The .tflite file.
        x: Raw inputs, (rows, *input shape), as both take them; a list or dict of them for several inputs.
        y: Targets, which add the metric of both; a list or dict of them for several outputs.
        task: What the outputs are for. "classification" and "segmentation" compare the likeliest class (of a single
            unit whether it says yes), "multi_label" each label (yes is above 0.5; above 0 where Keras's outputs leave
            [0, 1], as logits do), "regression" nothing but the errors; or a `keras.metrics.Metric`, which `y` then
            needs. A list or dict gives each output its own.

    Raises:
        InputError: `path` is no .tflite file that runs, `x` does not fit its inputs, or `task` is none.

    Cost: one call of the file per row.

    Example:
        >>> import keras, numpy, tempfile
        >>> from keras_opt.export import to_tflite
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        >>> file = to_tflite(model, tempfile.mkdtemp() + "/model.tflite")
        >>> verify(model, file.path, numpy.ones((3, 4)), task="regression").max_error < 1e-6
        True
    """
    model = in_keras_3(model)
    names = output_names(model)
    tasks = check_task("verify", task, names)
    file = LiteRTModel(path)
    targets = [None] * len(names) if y is None else _by_name(y, names)
    return compare(model, file, rows_by_input("verify", x, file.inputs), targets, tasks)


def compare(
    model: keras.Model, file: LiteRTModel, columns: Sequence[np.ndarray], targets: Sequence[Any], tasks: Sequence[Any]
) -> Verification:
    """As `verify`, with rows for each input, and the targets and the task of each output."""
    device = file.predict(columns if len(columns) > 1 else columns[0])
    device = device if isinstance(device, list) else [device]
    reference = _reference(model, columns)
    outputs = zip(output_names(model), device, reference, tasks, targets, strict=True)
    steps = tuple(tensor.scale or None for tensor in file.outputs)
    return Verification(
        outputs=tuple(agreement(name, ours, theirs, task, y) for name, ours, theirs, task, y in outputs),
        lsb=steps,
        rows=len(columns[0]),
        within_lsb=tuple(
            float(np.mean(np.abs(ours - theirs) <= ONE_STEP * step)) if step else None
            for ours, theirs, step in zip(device, reference, steps, strict=True)
        ),
    )


def _reference(model, columns):
    """What Keras gives, in float32 as the file computes."""
    dtypes = [input_dtype(tensor) for tensor in model.inputs]
    parts = []
    with float32_policy(model):
        for start in range(0, len(columns[0]), BATCH_ROWS):
            batch = [
                keras.ops.convert_to_tensor(column[start : start + BATCH_ROWS], dtype)
                for column, dtype in zip(columns, dtypes, strict=True)
            ]
            outputs = keras.tree.flatten(call_on(model, batch))
            parts.append([keras.ops.convert_to_numpy(output) for output in outputs])
    return [np.concatenate(output) for output in zip(*parts, strict=True)]


def _by_name(values, names):
    """`values` as a list in the order of `names`: from a dict, a list, or the one there is."""
    if isinstance(values, Mapping):
        return [values.get(name) for name in names]
    return [values] if len(names) == 1 else list(values)
