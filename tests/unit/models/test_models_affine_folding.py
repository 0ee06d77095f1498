"""The formulas: the layer with the folded weights against the layer and the map apart, for every kind of layer."""

import keras
import numpy as np
import pytest

from keras_opt.models.affine_folding import folded_before, folded_behind, weights_with_bias

RNG = np.random.default_rng(0)

LAYERS = {
    "Dense": (keras.layers.Dense, (5,), {"units": 4}),
    "Dense on a map": (keras.layers.Dense, (6, 6, 5), {"units": 4}),
    "Conv1D": (keras.layers.Conv1D, (9, 4), {"filters": 6, "kernel_size": 3, "dilation_rate": 2}),
    "Conv2D": (keras.layers.Conv2D, (8, 8, 4), {"filters": 6, "kernel_size": 3, "strides": 2}),
    "Conv2D of groups": (keras.layers.Conv2D, (8, 8, 4), {"filters": 6, "kernel_size": 3, "groups": 2}),
    "Conv3D": (keras.layers.Conv3D, (4, 4, 4, 2), {"filters": 3, "kernel_size": 2}),
    "DepthwiseConv1D": (keras.layers.DepthwiseConv1D, (9, 4), {"kernel_size": 3, "depth_multiplier": 3}),
    "DepthwiseConv2D": (keras.layers.DepthwiseConv2D, (8, 8, 4), {"kernel_size": 3, "depth_multiplier": 2}),
    "SeparableConv1D": (keras.layers.SeparableConv1D, (9, 4), {"filters": 6, "kernel_size": 3}),
    "SeparableConv2D": (
        keras.layers.SeparableConv2D, (8, 8, 4), {"filters": 6, "kernel_size": 3, "depth_multiplier": 2},
    ),
    "Conv1DTranspose": (keras.layers.Conv1DTranspose, (9, 4), {"filters": 6, "kernel_size": 3}),
    "Conv2DTranspose": (keras.layers.Conv2DTranspose, (8, 8, 4), {"filters": 6, "kernel_size": 3}),
}  # fmt: skip


def pair(kind, shape, settings, use_bias):
    """A layer with random weights, the same one with a bias, and an input."""
    layer, folded = (kind(**settings, use_bias=each, dtype="float64") for each in (use_bias, True))
    x = RNG.normal(size=(2, *shape))
    layer(x), folded(x)
    layer.set_weights([RNG.normal(size=weight.shape) for weight in layer.weights])
    return layer, folded, x


def random_map(channels):
    return RNG.normal(size=channels), RNG.normal(size=channels)


@pytest.mark.parametrize("use_bias", [False, True])
@pytest.mark.parametrize(("kind", "shape", "settings"), LAYERS.values(), ids=LAYERS)
def test_a_map_behind_the_layer(kind, shape, settings, use_bias):
    layer, folded, x = pair(kind, shape, settings, use_bias)
    scale, shift = random_map(layer(x).shape[-1])
    folded.set_weights(folded_behind(layer, weights_with_bias(layer), scale, shift))
    np.testing.assert_allclose(folded(x), layer(x) * scale + shift, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("use_bias", [False, True])
@pytest.mark.parametrize(
    ("kind", "shape", "settings"),
    [case for name, case in LAYERS.items() if "Transpose" not in name],
    ids=[name for name in LAYERS if "Transpose" not in name],
)
def test_a_map_before_the_layer(kind, shape, settings, use_bias):
    layer, folded, x = pair(kind, shape, settings, use_bias)
    scale, shift = random_map(shape[-1])
    folded.set_weights(folded_before(layer, weights_with_bias(layer), scale, shift))
    np.testing.assert_allclose(folded(x), layer(x * scale + shift), rtol=1e-10, atol=1e-10)
