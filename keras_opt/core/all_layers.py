"""Every layer of a model, however deep it lies."""

import keras


def all_layers(model: keras.Layer) -> list[keras.Layer]:
    """`model` and the layers in it, inside of nested models, wrappers and custom layers too, each once.

    `model.layers` has only the outermost. Keras walks the others by `_flatten_layers`, for which it has no public name;
    `tests/contract/test_keras_canary.py` fails, with the Keras version, when it moves.
    """
    return model._flatten_layers()
