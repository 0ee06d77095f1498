"""Weights put into a copy of a model."""

from collections.abc import Sequence

import keras
import numpy as np

from keras_opt.core.all_layers import all_layers


def set_weights(layer: keras.Layer, weights: Sequence[np.ndarray]) -> None:
    """As `layer.set_weights`, which leaves an adapted `Normalization` with the statistics it was made with.

    Keras's preprocessing layers compute with constants that they take from their weights in `finalize_state`. The bins
    of a `Discretization` are none of its weights: that method would take them from data that only the layer has which
    was adapted, and forget them in any other.
    """
    layer.set_weights(weights)
    for each in all_layers(layer):
        if hasattr(each, "finalize_state") and not isinstance(each, keras.layers.Discretization):
            each.finalize_state()
