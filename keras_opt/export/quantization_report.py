"""Where a quantized file loses accuracy, layer by layer."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_opt.core.axes import plot_axes
from keras_opt.core.errors import InputError, argument_error, check_path
from keras_opt.core.quantized_ranges import has_quantized_ranges
from keras_opt.export.converter import convert
from keras_opt.export.file_tensors import inputs_and_outputs, rows_by_input
from keras_opt.export.int8_norms import in_int8_operations
from keras_opt.export.layer_graph import apart, cuts_between, layers_of, steps
from keras_opt.export.model_file import unpack
from keras_opt.export.recurrent_loops import unrolled
from keras_opt.export.traced_graph import TracedGraph

OWNER = "quantization_report"
MOST_ROWS = 200


@dataclass(frozen=True)
class LayerError:
    """How far one layer's output in a quantized file is from float.

    Args:
        layer: The Keras layer; where the converter fused several, the one with the kernel.
        operator: The operator of the file that gives its output.
        own_sqnr_db: Signal over error, in dB, of what the layer adds: against its float form on the same inputs.
        sqnr_db: The same of all errors up to here: against the float model.
        mean_lsb: Mean absolute error that the layer adds, in steps of its output.
        max_lsb: The largest.
    """

    layer: str
    operator: str
    own_sqnr_db: float
    sqnr_db: float
    mean_lsb: float
    max_lsb: float


@dataclass(frozen=True)
class QuantizationReport:
    """What `quantization_report` found; prints as a table.

    Args:
        path: The file.
        rows: One `LayerError` for each value that leaves a layer, the lowest `own_sqnr_db` first.
        examples: How many examples were run.
    """

    path: Path
    rows: tuple[LayerError, ...]
    examples: int

    def __str__(self) -> str:
        width = max(len("layer"), *(len(row.layer) for row in self.rows))
        kinds = max(len("operator"), *(len(row.operator) for row in self.rows))
        lines = [f"{'layer':{width}}  {'operator':{kinds}}  own SQNR dB  SQNR dB  mean LSB  max LSB"]
        lines += [
            f"{row.layer:{width}}  {row.operator:{kinds}}  {row.own_sqnr_db:11.1f}  {row.sqnr_db:7.1f}"
            f"  {row.mean_lsb:8.2f}  {row.max_lsb:7.1f}"
            for row in self.rows
        ]
        return "\n".join([f"{self.path.name}, {self.examples} examples, the worst layer first", *lines])

    def plot(self, ax: Any = None) -> Any:
        """Draw both figures of each layer, the worst on top; a layer without error has no bar.

        Args:
            ax: Matplotlib axes; a new figure by default.

        Returns:
            The axes.
        """
        ax = plot_axes(ax, title=f"Quantization of {self.path.name}", xlabel="signal over error, dB")
        rows = self.rows[::-1]
        places = np.arange(len(rows))
        figures = np.array([(row.own_sqnr_db, row.sqnr_db) for row in rows], float)
        figures[~np.isfinite(figures)] = np.nan  # no bar for a layer that adds no error
        ax.barh(places + 0.2, figures[:, 0], 0.4, label="what the layer adds")
        ax.barh(places - 0.2, figures[:, 1], 0.4, label="all errors up to it")
        ax.set_yticks(places, [row.layer for row in rows])
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=2)  # below: bars reach everywhere
        return ax


def quantization_report(
    model: keras.Model, path: str | os.PathLike, data: np.ndarray | Sequence[np.ndarray] | Mapping[str, np.ndarray]
) -> QuantizationReport:
    """Tell which layers of a quantized file lose how much, the worst first.

    Use it where `verify` finds more error than the task can bear: the first rows are the layers to name in
    `quantize_aware(model, skip=...)`, to widen, or to give an activation that bounds them (ReLU6). It does not know
    the metric: a noisy layer may matter little.

    The error that a layer adds is what it gives in the file, less what its float form gives for the inputs that it has
    in the file; what came from before does not count again:

        own_sqnr_db = 10 log10(sum(float^2) / sum((file - float)^2));   sqnr_db: the same against the float model.

    A layer that fills its int8 range has 30 to 45 dB; at 20 dB the error is a tenth of the signal.

    Args:
        model: The float Keras model that the file was made from, with the weights that it had.
        path: Its "int8" or "int16x8" file.
        data: Raw inputs, (rows, *input shape); for several inputs a list of such arrays, or a dict by name. At most 200
            rows, spread evenly, are run.

    Raises:
        InputError: There is no such file, it is not quantized throughout or not made from `model`, `model` comes from
            `quantize_aware`, or `data` does not fit.

    Cost: one conversion to float32, and three runs of the graph for each row.

    Example:
        >>> import keras, numpy, tempfile
        >>> from keras_opt.export import to_tflite
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8), keras.layers.Dense(2)])
        >>> x = numpy.random.default_rng(0).normal(size=(200, 4))
        >>> file = to_tflite(model, tempfile.mkdtemp() + "/model.tflite", "int8", x)
        >>> len(quantization_report(model, file.path, x).rows)
        2
    """
    check_path(OWNER, "path", path)
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{OWNER}: there is no file {path}. Give the path of a .tflite file.")
    if has_quantized_ranges(model):
        cure = "Give the model as it was before `quantize_aware`, and a file made from that."
        raise argument_error(OWNER, "model", model, "a float model", cure)
    quantized = unpack(path.read_bytes())
    inputs, _ = inputs_and_outputs(quantized)
    rows = [_spread(each) for each in rows_by_input(OWNER, data, inputs, "data")]
    tree = convert(unrolled(OWNER, in_int8_operations(model)), "float32", None, None)
    layers, float_steps, file_steps = layers_of(tree, model), steps(tree), steps(quantized)
    _check_same_operators(path, float_steps, file_steps)
    cuts = cuts_between(tree, layers)
    places = [place for place, step in enumerate(float_steps) if step.output in cuts]
    in_file = [file_steps[place].output for place in places]
    file, whole, alone = TracedGraph(quantized), TracedGraph(tree), TracedGraph(apart(tree, layers, cuts))
    _check_quantized(path, file, in_file)
    errors = [_Errors(file.scale(index)) for index in in_file]
    for row in zip(*rows, strict=True):
        raw = [np.asarray(each[np.newaxis], np.float32) for each in row]
        stored = [tensor.stored(each) for tensor, each in zip(inputs, raw, strict=True)]
        restored = [tensor.real(each) for tensor, each in zip(inputs, stored, strict=True)]
        given = file.run(stored, in_file)
        wanted, wanted_of_all = alone.run([*restored, *given], cuts), whole.run(raw, cuts)
        for each, *outputs in zip(errors, given, wanted, wanted_of_all, strict=True):
            each.add(*outputs)
    found = [each.row(layers[place], float_steps[place].operator) for place, each in zip(places, errors, strict=True)]
    return QuantizationReport(path, tuple(sorted(found, key=lambda row: row.own_sqnr_db)), len(rows[0]))


class _Errors:
    """Sums over the examples for one layer whose output has steps of `scale`."""

    def __init__(self, scale):
        self._scale = scale
        self._own, self._all = np.zeros(2), np.zeros(2)  # squares of signal and error
        self._absolute = self._largest = 0.0
        self._values = 0

    def add(self, given, alone, whole):
        error = given - alone
        self._own += np.square(alone).sum(), np.square(error).sum()
        self._all += np.square(whole).sum(), np.square(given - whole).sum()
        self._absolute += np.abs(error).sum()
        self._largest = max(self._largest, np.abs(error).max())
        self._values += error.size

    def row(self, layer, operator):
        return LayerError(
            layer=layer,
            operator=operator,
            own_sqnr_db=_decibel(*self._own),
            sqnr_db=_decibel(*self._all),
            mean_lsb=float(self._absolute / self._values / self._scale),
            max_lsb=float(self._largest / self._scale),
        )


def _decibel(signal, error):
    if error == 0:
        return float("inf")
    return float(10 * np.log10(signal / error)) if signal else float("-inf")


def _spread(rows):
    """At most 200 rows, spread evenly."""
    return rows[np.linspace(0, len(rows) - 1, min(len(rows), MOST_ROWS)).round().astype(int)]


def _check_same_operators(path, float_steps, file_steps):
    if [(step.operator, step.shape) for step in float_steps] != [(step.operator, step.shape) for step in file_steps]:
        raise InputError(
            f"{OWNER}: {path} has other operators than a file of `model`. "
            "Give the float model and the file that `to_tflite` made from it."
        )


def _check_quantized(path, file, tensors):
    if not all(file.scale(index) for index in tensors):
        raise InputError(
            f"{OWNER}: {path} does not compute in integers throughout. Give a file of quantize='int8' or 'int16x8'."
        )
