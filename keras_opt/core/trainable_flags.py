"""Which layers train: the `trainable` flags of layers that lie in one another."""

import contextlib
from collections.abc import Collection, Iterable, Iterator

import keras

from keras_opt.core.all_layers import all_layers

# The names of the weights that Keras's layers freeze in `enable_lora`.
_FROZEN_BY_LORA = ("kernel", "embeddings")


def let_train(model: keras.Model, layers: Collection[keras.Layer]) -> None:
    """Let `layers`, and nothing else in `model`, train.

    A layer that holds one of them is trainable in Keras's sense, or else that one would not be; the weights of its own
    stay frozen. So do those that `enable_lora` has frozen.
    """
    chosen = {id(layer) for layer in layers}
    for layer in _outermost_first(model):
        inner = all_layers(layer)
        trains = any(id(each) in chosen for each in inner)
        layer.trainable = not trains  # setting a flag to what it is reaches neither the weights nor the layers within
        layer.trainable = trains
        if getattr(layer, "lora_enabled", False):
            _freeze([weight for weight in layer.weights if weight.name in _FROZEN_BY_LORA])
        if trains and id(layer) not in chosen:
            within = {id(weight) for each in inner[1:] for weight in each.weights}
            _freeze([weight for weight in layer.weights if id(weight) not in within])


def without_batch_norm(layers: Iterable[keras.Layer]) -> list[keras.Layer]:
    """Those of `layers` that are no BatchNormalization."""
    return [layer for layer in layers if not isinstance(layer, keras.layers.BatchNormalization)]


def _freeze(weights: Iterable[keras.Variable]) -> None:
    for weight in weights:
        weight.trainable = False


@contextlib.contextmanager
def flags_put_back(model: keras.Model) -> Iterator[None]:
    """On leaving, every layer and weight of `model` is as trainable as it was on entering."""
    layers = [(layer, layer.trainable) for layer in _outermost_first(model)]
    weights = [(weight, weight.trainable) for weight in model.weights]
    try:
        yield
    finally:
        for one, flag in (*layers, *weights):
            one.trainable = flag


def _outermost_first(model: keras.Model) -> list[keras.Layer]:
    """All layers of `model`, each after those that hold it: setting a layer's flag sets those of all that it holds."""
    return sorted(all_layers(model), key=lambda layer: -len(all_layers(layer)))
