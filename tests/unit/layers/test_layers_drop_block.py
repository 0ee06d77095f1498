"""DropBlock: its formula, whole blocks in every layout, and what it refuses."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_opt.layers import DropBlock
from keras_opt.layers.drop_block import seed_probability, spread


@pytest.mark.parametrize(
    ("rate", "sizes", "block_size", "expected"),
    [
        (0.1, (14, 14), 7, 0.1 / 49 * 196 / 64),
        (0.1, (14, 10), 3, 0.1 / 9 * 140 / (12 * 8)),
        (0.2, (50,), 5, 0.2 / 5 * 50 / 46),
        (0.3, (6, 6), 6, 0.3),  # one place for a block that covers the map
        (0.3, (6, 6), 1, 0.3),  # dropout of single values
        (0.0, (6, 6), 3, 0.0),
    ],
)
def test_probability_of_a_seed(rate, sizes, block_size, expected):
    np.testing.assert_allclose(seed_probability(rate, sizes, block_size), expected, rtol=1e-6)


@pytest.mark.parametrize("block_size", range(1, 8))
def test_a_seed_reaches_over_its_block(block_size):
    seeds = np.array([[True, False, False, True, False]])
    expected = np.zeros((1, 5 + block_size - 1), bool)
    expected[0, :block_size] = expected[0, 3 : 3 + block_size] = True
    np.testing.assert_array_equal(spread(tf.constant(seeds), 1, block_size), expected)


def is_made_of_blocks(dropped, block):
    """Whether every True of a map lies in a window of the shape `block` that is all True."""
    full = np.lib.stride_tricks.sliding_window_view(dropped, block).all(tuple(range(-len(block), 0)))
    covered = np.zeros_like(dropped)
    for corner in np.argwhere(full):
        covered[tuple(slice(start, start + size) for start, size in zip(corner, block, strict=True))] = True
    return np.array_equal(covered, dropped)


@pytest.mark.parametrize(
    ("shape", "data_format", "map_axes"),
    [
        ((4, 12, 9, 3), "channels_last", (1, 2)),
        ((4, 3, 12, 9), "channels_first", (2, 3)),
        ((4, 30, 3), "channels_last", (1,)),
        ((4, 3, 30), "channels_first", (2,)),
    ],
)
def test_whole_blocks_are_dropped_in_each_channel_on_its_own(shape, data_format, map_axes):
    layer = DropBlock(0.2, 3, data_format=data_format, seed=1)
    outputs = layer(np.ones(shape, "float32"), training=True)
    dropped = np.asarray(outputs) == 0
    maps = np.moveaxis(dropped, map_axes, range(-len(map_axes), 0)).reshape(-1, *(shape[axis] for axis in map_axes))
    assert 0.1 < dropped.mean() < 0.25
    assert all(is_made_of_blocks(one, (3,) * len(map_axes)) for one in maps)
    assert len({one.tobytes() for one in maps}) > 6  # of 12
    np.testing.assert_allclose(outputs[~dropped], 1 / (1 - dropped.mean()), rtol=1e-6)


def test_maps_of_an_unknown_size():
    inputs = keras.Input((None, None, 2))
    model = keras.Model(inputs, DropBlock(0.3, 3, seed=0)(inputs))
    assert model.output_shape == (None, None, None, 2)
    call = tf.function(lambda x: model(x, training=True), input_signature=[tf.TensorSpec((None, None, None, 2))])
    outputs = call(tf.ones((2, 8, 9, 2)))
    assert is_made_of_blocks(outputs.numpy()[0, :, :, 0] == 0, (3, 3))


def test_a_map_that_is_dropped_whole_has_zero_gradients():
    layer = DropBlock(0.999, 4, seed=0)
    inputs = tf.ones((1, 4, 4, 1))
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = layer(inputs, training=True)
    assert not np.any(outputs)
    assert not np.any(tape.gradient(outputs, inputs))


@pytest.mark.parametrize("shape", [(8, 4), (2, 4, 8, 8, 3)])
def test_what_is_no_feature_map_is_refused(shape):
    with pytest.raises(ValueError, match=re.escape("DropBlock: argument `inputs` must be a batch (batch, length")):
        DropBlock(0.1, 3)(np.ones(shape, "float32"))


@pytest.mark.parametrize("shape", [(2, 8, 5, 1), (2, 5, 1), (None, None, 5, 1)])
def test_a_block_larger_than_the_map_is_refused(shape):
    with pytest.raises(ValueError, match=r"DropBlock: argument `block_size` must be at most 5.*Received: block_size=6"):
        DropBlock(0.1, 6)(keras.Input(shape[1:]))


def test_the_default_layout_is_that_of_keras():
    assert DropBlock(0.1).get_config()["data_format"] == keras.config.image_data_format()
