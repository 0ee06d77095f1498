"""How a kernel is read as the matrix that a device multiplies with."""

import math
from dataclasses import dataclass

import keras
import numpy as np

from keras_opt.core.all_layers import all_layers

_TRANSPOSED = (keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose, keras.layers.Conv3DTranspose)
DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)


@dataclass(frozen=True)
class KernelMatrix:
    """A kernel as a matrix (in, out): what a column holds is multiplied with inputs and summed to one output.

    | kernel | rows | run | columns |
    |---|---|---|---|
    | dense, recurrent | inputs | all rows | outputs; the gates of an LSTM or GRU side by side |
    | convolution, transposed or not | taps x input channels | input channels of a tap | output channels |
    | depthwise convolution | taps | all rows | input channels x multiplier |
    | `EinsumDense`, and so attention | what the equation sums over | all rows | the rest |

    A kernel of any other layer is read as that of a convolution. Rows come in the order in which TFLite stores the
    weights of one output.

    Args:
        shape: That of the kernel.
        row_axes: Its axes that make up the rows, outermost first.
        column_axes: Those that make up the columns.
        run: How many rows in turn belong together.
        parts: How many matrices lie side by side in the columns: gates, or groups of a convolution.
    """

    shape: tuple[int, ...]
    row_axes: tuple[int, ...]
    column_axes: tuple[int, ...]
    run: int
    parts: int = 1

    @classmethod
    def column(cls, kernel: keras.Variable) -> "KernelMatrix":
        """All weights of a kernel one below the other, in their order."""
        return cls(tuple(kernel.shape), tuple(range(len(kernel.shape))), (), run=math.prod(kernel.shape))

    @property
    def rows(self) -> int:
        return math.prod(self.shape[axis] for axis in self.row_axes)

    @property
    def columns(self) -> int:
        return math.prod(self.shape[axis] for axis in self.column_axes)

    def __str__(self) -> str:
        parts = f"{self.parts} times " if self.parts > 1 else ""
        return f"{parts}{self.rows} x {self.columns // self.parts}, in runs of {self.run} rows"

    def of(self, kernel: np.ndarray) -> np.ndarray:
        """The matrix of a kernel."""
        return kernel.transpose(self.row_axes + self.column_axes).reshape(self.rows, self.columns)

    def back(self, matrix: np.ndarray) -> np.ndarray:
        """The kernel of a matrix."""
        axes = self.row_axes + self.column_axes
        return matrix.reshape([self.shape[axis] for axis in axes]).transpose(np.argsort(axes))


def kernel_matrices(model: keras.Model, kernels: list[keras.Variable]) -> list[KernelMatrix]:
    """How each of `kernels` of `model` is read."""
    layers = all_layers(model)
    return [_matrix(_owner(layers, kernel), kernel) for kernel in kernels]


def _owner(layers: list[keras.Layer], kernel: keras.Variable) -> keras.Layer | None:
    return next((layer for layer in layers if getattr(layer, kernel.name, None) is kernel), None)


def _matrix(layer: keras.Layer | None, kernel: keras.Variable) -> KernelMatrix:
    shape = tuple(kernel.shape)
    axes = tuple(range(len(shape)))
    if isinstance(layer, keras.layers.EinsumDense):
        return _einsum_matrix(layer.equation, shape)
    if isinstance(layer, DEPTHWISE) or kernel.name == "depthwise_kernel":
        return KernelMatrix(shape, axes[:-2], axes[-2:], run=math.prod(shape[:-2]))
    if isinstance(layer, _TRANSPOSED):
        return KernelMatrix(shape, (*axes[:-2], axes[-1]), (axes[-2],), run=shape[-1])
    recurrent = getattr(layer, "recurrent_kernel", None)
    parts = getattr(layer, "groups", 1) if recurrent is None else recurrent.shape[-1] // recurrent.shape[-2]
    return KernelMatrix(shape, axes[:-1], axes[-1:], run=math.prod(shape[-2:-1]), parts=parts)


def _einsum_matrix(equation: str, shape: tuple[int, ...]) -> KernelMatrix:
    """Rows are the axes of the kernel that are summed over; those that the inputs share with the output part it."""
    operands, _, output = equation.replace(" ", "").partition("->")
    inputs, letters = operands.split(",")
    summed = tuple(axis for axis, letter in enumerate(letters) if letter not in output)
    shared = tuple(axis for axis, letter in enumerate(letters) if letter in output and letter in inputs)
    own = tuple(axis for axis in range(len(shape)) if axis not in summed + shared)
    rows, parts = (math.prod(shape[axis] for axis in chosen) for chosen in (summed, shared))
    return KernelMatrix(shape, summed, shared + own, run=rows, parts=parts)
