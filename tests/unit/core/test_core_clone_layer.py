"""Layers made like other ones."""

import keras
import numpy as np
import pytest

from keras_opt.core.clone_layer import clone_layer
from keras_opt.core.set_weights import set_weights


@pytest.mark.parametrize("make", [lambda: keras.layers.Dense(3), lambda: keras.layers.Embedding(5, 3)])
def test_an_adapted_rank_counts_as_much_as_it_did(make):
    layer, x = make(), np.ones((2, 4))
    layer(x)
    layer.enable_lora(2, lora_alpha=8)
    layer.set_weights([np.full(array.shape, 0.5) for array in layer.get_weights()])
    clone = clone_layer(layer)
    clone(x)
    set_weights(clone, layer.get_weights())
    np.testing.assert_array_equal(clone(x), layer(x))
