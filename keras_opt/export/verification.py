"""The device file beside the Keras model that it was made from."""

import os
from dataclasses import dataclass

import keras
import numpy as np

from keras_opt.export.interpreter import LiteRTModel


@dataclass(frozen=True)
class Verification:
    """How close a file's answers are to its model's.

    Args:
        argmax_agreement: Fraction of rows in [0, 1] for which both name the same class.
        max_error: Largest absolute difference between two outputs.
        max_error_lsb: The same in steps of the file's output (its scale); `None` for a file with float outputs.
        rows: How many rows were compared.
    """

    argmax_agreement: float
    max_error: float
    max_error_lsb: float | None
    rows: int

    def __str__(self) -> str:
        steps = "" if self.max_error_lsb is None else f" ({self.max_error_lsb:.3g} steps of the file's output)"
        same = f"{self.argmax_agreement:.2%} of {self.rows:,} rows name the same class"
        return f"{same}; largest difference of an output {self.max_error:.3g}{steps}"


def verify(model: keras.Model, path: str | os.PathLike, x: np.ndarray) -> Verification:
    """Run the .tflite file at `path` and `model` on the same raw inputs and compare their outputs.

    A single output (a sigmoid unit) names its class by being above 0.5.

    Args:
        model: The Keras model that the file was made from.
        path: The .tflite file.
        x: Raw inputs, (rows, *input shape), as both take them.

    Raises:
        InputError: `path` is no .tflite file that runs, or `x` does not fit its input.

    Cost: one call of the file per row.
    """
    file = LiteRTModel(path)
    device = file.predict(x)
    reference = model.predict(np.asarray(x, np.float32), verbose=0).astype(np.float32)
    max_error = float(np.abs(device - reference).max())
    scale = file.output_quantization[0]
    return Verification(
        argmax_agreement=float(np.mean(_classes(device) == _classes(reference))),
        max_error=max_error,
        max_error_lsb=max_error / scale if scale else None,
        rows=len(device),
    )


def _classes(outputs):
    return outputs[:, 0] > 0.5 if outputs.shape[-1] == 1 else outputs.argmax(-1)
