"""Whether an input takes raw pixels, and rows that any input takes."""

import keras
import numpy as np

from keras_opt.core.all_layers import all_layers
from keras_opt.export.names import input_names

_SMALL_SCALE = 1 / 100  # 1/255 and 1/127.5, but no change of units


def takes_pixels(model: keras.Model, name: str) -> bool:
    """Whether input `name` takes values 0..255: an image, or the only input, of a model with a Rescaling(1/255)."""
    rescales = any(
        isinstance(layer, keras.layers.Rescaling) and np.abs(layer.scale).max() <= _SMALL_SCALE
        for layer in all_layers(model)
    )
    tensor = model.inputs[input_names(model).index(name)]
    return rescales and (len(model.inputs) == 1 or len(tensor.shape) == 4)


def random_rows(model: keras.Model, rows: int) -> list[np.ndarray]:
    """Made-up rows in the range of each input: pixels, whole numbers for tables, else standard normal."""
    rng = np.random.default_rng(0)
    entries = [layer.input_dim for layer in all_layers(model) if isinstance(layer, keras.layers.Embedding)]

    def made_up(tensor, name):
        shape = (rows, *tensor.shape[1:])
        if takes_pixels(model, name):
            return rng.integers(0, 256, shape)
        if entries or tensor.dtype.startswith("int"):
            return rng.integers(0, min(entries, default=2), shape)
        return rng.normal(size=shape)

    return [made_up(tensor, name) for tensor, name in zip(model.inputs, input_names(model), strict=True)]
