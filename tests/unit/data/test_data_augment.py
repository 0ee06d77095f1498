"""Draws that follow from the seed, the epoch and the element, whatever runs in parallel and wherever it resumes."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_opt.callbacks import BackupAndRestore
from keras_opt.core.errors import InputError
from keras_opt.data import arrays, augment
from keras_opt.layers.random_keys import uniform

COUNT, BATCH_SIZE = 12, 2


@keras.saving.register_keras_serializable("keras_opt_tests")
class Shift(keras.Layer):
    """Adds a number of its own to each image, as our layers draw: by `transform`."""

    def transform(self, inputs, key):
        images, *others = inputs if isinstance(inputs, tuple) else (inputs,)
        images = tf.cast(images, "float32")
        moved = images + uniform(key, (tf.shape(images)[0], 1, 1, 1))
        return (moved, *others) if others else moved


def images():
    return np.zeros((COUNT, 2, 2, 3), np.float32)


def dataset():
    return tf.data.Dataset.from_tensor_slices((images(), np.arange(COUNT))).batch(BATCH_SIZE)


def epochs(augmented, count=2):
    return [np.concatenate([np.asarray(element[0]) for element in augmented]) for _ in range(count)]


LAYERS = {
    "ours": lambda: Shift(),
    "keras": lambda: keras.layers.RandomBrightness(0.5, value_range=(-9, 9), seed=5),
    "both": lambda: [Shift(), keras.layers.RandomBrightness(0.5, value_range=(-9, 9))],
    "keras_in_keras": lambda: keras.layers.Pipeline([keras.layers.RandomBrightness(0.5, value_range=(-9, 9))]),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_the_same_for_any_number_of_parallel_calls_and_other_in_every_epoch(kind, request):
    layers = LAYERS[kind]()
    expected = epochs(augment(dataset(), layers, seed=7, num_parallel_calls=1))
    for parallel in (2, 8) if request.config.getoption("full") else (8,):
        found = epochs(augment(dataset(), layers, seed=7, num_parallel_calls=parallel))
        np.testing.assert_array_equal(found, expected)
    first, second = expected
    assert not np.isclose(first, second).any()
    assert len(np.unique(first[:, 0, 0, 0])) == COUNT
    assert not np.isclose(epochs(augment(dataset(), layers, seed=8)), expected).any()


def test_keras_itself_repeats_nothing_with_parallel_calls_in_disorder():
    """Why `augment` exists: the state of a generator moves with every call, in whatever order they come."""
    layer = keras.layers.RandomBrightness(0.5, value_range=(-9, 9), seed=5)
    stock = [next(iter(dataset().map(lambda x, y: (layer(x, training=True), y))))[0] for _ in range(2)]
    assert not np.isclose(*stock).any()
    ours = [next(iter(augment(dataset(), layer, seed=1)))[0] for _ in range(2)]
    np.testing.assert_array_equal(*ours)


def test_the_state_of_a_keras_layer_does_not_move():
    layer = LAYERS["keras"]()
    before = layer.generator.state.numpy()
    epochs(augment(dataset(), layer, seed=1))
    np.testing.assert_array_equal(layer.generator.state.numpy(), before)


def test_layers_draw_apart_from_one_another():
    twice = epochs(augment(dataset(), [Shift(), Shift()], seed=7), 1)[0][:, 0, 0, 0]
    once = epochs(augment(dataset(), Shift(), seed=7), 1)[0][:, 0, 0, 0]
    assert not np.isclose(twice, 2 * once).any()


def test_forms_and_cardinality_are_kept():
    labels, weights = np.arange(COUNT), np.ones(COUNT)
    for element in (images(), (images(), labels), (images(), labels, weights)):
        data = tf.data.Dataset.from_tensor_slices(element).batch(5)
        augmented = augment(data, [Shift(), keras.layers.RandomBrightness(0.1)], seed=0)
        assert len(augmented) == 3
        tf.nest.assert_same_structure(augmented.element_spec, data.element_spec)
    pairs = list(augment(dataset(), Shift(), seed=0))
    np.testing.assert_array_equal(np.concatenate([labels for _, labels in pairs]), np.arange(COUNT))


def test_a_dict_reaches_a_keras_layer_whole_and_stays_as_it_was():
    boxes = {"boxes": np.tile([[0.0, 0.0, 1.0, 1.0]], (COUNT, 1, 1)).astype("float32"), "labels": np.ones((COUNT, 1))}
    pixels = np.random.default_rng(0).uniform(size=(COUNT, 4, 4, 3)).astype("float32")
    data = tf.data.Dataset.from_tensor_slices({"images": pixels, "bounding_boxes": boxes}).batch(4)
    flip = keras.layers.RandomFlip("horizontal", bounding_box_format="xyxy")
    for element in augment(data, flip, seed=0):
        assert element["images"].shape == (4, 4, 4, 3)
        assert element["bounding_boxes"]["boxes"].shape == (4, 1, 4)


def test_a_fresh_copy_begins_anew_and_moves_nothing():
    data = augment(arrays(images(), np.arange(COUNT), BATCH_SIZE, seed=3), Shift(), seed=7)
    expected = epochs(data, 3)
    data = augment(arrays(images(), np.arange(COUNT), BATCH_SIZE, seed=3), Shift(), seed=7)
    found = epochs(data, 1)
    np.testing.assert_array_equal(epochs(data.fresh_copy(), 2), expected[:2])
    np.testing.assert_array_equal(found + epochs(data, 2), expected)
    assert not hasattr(augment(dataset(), Shift(), seed=7), "fresh_copy")


class BreakOff(keras.callbacks.Callback):
    """Breaks a training off in the second of three epochs of six batches."""

    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.optimizer.iterations) == 9:
            raise KeyboardInterrupt


@pytest.mark.parametrize("kind", ["ours", "keras"])
def test_a_training_broken_off_inside_an_epoch_goes_on_with_the_same_draws(tmp_path, kind):
    def fit(callbacks):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((2, 2, 3)), keras.layers.Flatten(), keras.layers.Dense(1)])
        model.compile(keras.optimizers.SGD(0.1), "mse")
        data = augment(arrays(images(), np.arange(COUNT), BATCH_SIZE, seed=3), LAYERS[kind](), seed=7)
        model.fit(data.prefetch(2), epochs=3, verbose=0, shuffle=False, callbacks=callbacks)
        return model.get_weights()

    expected = fit([])
    with pytest.raises(KeyboardInterrupt):
        fit([BackupAndRestore(tmp_path, save_freq=1), BreakOff()])
    for ours, whole in zip(fit([BackupAndRestore(tmp_path, save_freq=1)]), expected, strict=True):
        np.testing.assert_array_equal(ours, whole)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((images(), Shift(), 1), TypeError, "augment: argument `dataset` must be a tf.data.Dataset. Received: "),
        ((None, [], 1), InputError, "augment: argument `layers` must be a layer or a list of layers. Received: "),
        ((None, [Shift(), "flip"], 1), TypeError, "augment: argument `layers` must be a Keras layer or a list of "),
        ((None, Shift(), -1), InputError, "augment: argument `seed` must be an integer of at least 0. Received: "),
        ((None, Shift(), None), InputError, "augment: argument `seed` must be an integer of at least 0. Received: "),
        ((None, keras.layers.MixUp(), 1), InputError, "augment: Keras's `MixUp` turns labels of shape (batch,) into "),
        ((None, keras.layers.CutMix(), 1), InputError, "augment: Keras's `CutMix` turns labels of shape (batch,) "),
    ],
    ids=str,
)
def test_arguments(arguments, error, message):
    data, *others = arguments
    with pytest.raises(error, match="^" + re.escape(message)):
        augment(dataset() if data is None else data, *others)
