"""One image to class probabilities, by a Keras model or a device file."""

import os
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np

from keras_opt.core.errors import InputError
from keras_opt.data.decode import decode_image
from keras_opt.export.interpreter import LiteRTModel
from keras_opt.loading import load_model

ROUNDING = 0.01  # of the probabilities of an integer file


class Predictor:
    """Gives an image file to a model as it was trained: resized, raw pixels.

    Args:
        path: A `.keras` or `.tflite` file of an image classifier that takes raw pixels, such as a run leaves.

    Raises:
        InputError: The file is missing, damaged or of another kind.
    """

    def __init__(self, path: str | os.PathLike):
        suffix = Path(path).suffix.lower()
        if suffix not in (".keras", ".tflite"):
            raise InputError(f"Model file {str(path)!r} must end in .keras or .tflite. Give such a file.")
        self._call: Callable[[np.ndarray], np.ndarray]
        if suffix == ".tflite":
            file = LiteRTModel(path)
            self._call, self.class_names = file.predict, file.class_names
            shape, outputs = file.input.shape, file.output.shape
        else:
            model = load_model(path, compile=False)
            self._call = lambda batch: np.asarray(keras.tree.flatten(model(batch, training=False))[0])
            self.class_names, shape, outputs = model.class_names, model.input_shape, model.output_shape
        if len(shape) != 4 or shape[3] not in (1, 3) or None in shape[1:]:
            raise InputError(
                f"Model file {str(path)!r} takes inputs of shape {shape[1:]}, not images of one size. "
                "Give another model."
            )
        _, self._height, self._width, self._channels = shape
        if not isinstance(outputs, tuple) or len(outputs) != 2 or outputs[1] == 1:
            raise InputError(
                f"Model file {str(path)!r} has outputs of shape {outputs}, not one for each class. "
                "Give a model that ends in a softmax over its classes."
            )
        self.class_names = self.class_names or tuple(map(str, range(outputs[1])))

    def __call__(self, image: str | os.PathLike) -> np.ndarray:
        """The probability of each class, float32 (classes,).

        Raises:
            InputError: The image cannot be read.
        """
        try:
            pixels = decode_image(image, (self._height, self._width), self._channels)
        except (OSError, ValueError) as error:
            raise InputError(f"Image {str(image)!r} cannot be read ({error}). Give a JPEG, PNG, BMP or GIF.") from error
        return _probabilities(self._call(pixels[np.newaxis])[0])


def _probabilities(outputs):
    """`outputs`, or where they leave [0, 1], as those of a model without a softmax do, their softmax."""
    if outputs.min() >= -ROUNDING and outputs.max() <= 1 + ROUNDING:
        return outputs
    odds = np.exp(outputs - outputs.max())
    return odds / odds.sum()
