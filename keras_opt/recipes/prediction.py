"""One image to class probabilities, by a Keras model or a device file."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from keras_opt.core.errors import InputError
from keras_opt.data.decode import decode_image
from keras_opt.export.interpreter import LiteRTModel
from keras_opt.loading import load_model


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
            self._call, self.class_names, shape = file.predict, file.class_names, file.input.shape
        else:
            model = load_model(path, compile=False)
            self._call, shape = (lambda batch: np.asarray(model(batch, training=False))), model.input_shape
            self.class_names = model.class_names
        if len(shape) != 4 or shape[3] not in (1, 3) or None in shape[1:]:
            raise InputError(
                f"Model file {str(path)!r} takes inputs of shape {shape[1:]}, not images of one size. "
                "Give another model."
            )
        _, self._height, self._width, self._channels = shape
        outputs = self._call(self._blank()).shape[-1]
        if outputs == 1:
            raise InputError(
                f"Model file {str(path)!r} has one output, not one for each class. "
                "Give a model that ends in a softmax over its classes."
            )
        self.class_names = self.class_names or tuple(map(str, range(outputs)))

    def __call__(self, image: str | os.PathLike) -> np.ndarray:
        """The probability of each class, float32 (classes,).

        Raises:
            InputError: The image cannot be read.
        """
        try:
            pixels = decode_image(image, (self._height, self._width), self._channels)
        except (OSError, ValueError) as error:
            raise InputError(f"Image {str(image)!r} cannot be read ({error}). Give a JPEG, PNG, BMP or GIF.") from error
        return self._call(pixels[np.newaxis])[0]

    def _blank(self) -> np.ndarray:
        return np.zeros((1, self._height, self._width, self._channels), np.uint8)
