"""The batches that `fit` sees: every example once, a new order each epoch, the same for the same seed."""

import re
import tempfile
import weakref

import keras
import numpy as np
import pandas
import pytest
import tensorflow as tf
from sklearn.utils.class_weight import compute_sample_weight

from keras_opt.core.errors import InputError
from keras_opt.data import arrays
from keras_opt.models import mlp

COUNT = 50


@pytest.fixture
def data():
    return np.arange(COUNT * 2, dtype=np.float32).reshape(COUNT, 2), np.arange(COUNT)


def orders(dataset, epochs):
    return [np.concatenate([y.numpy() for _, y in dataset]).tolist() for _ in range(epochs)]


class Seen(keras.layers.Layer):
    """Writes down the inputs of every training step."""

    def __init__(self):
        super().__init__()
        self.batches = []

    def call(self, inputs, training=False):
        if training and not isinstance(inputs, keras.KerasTensor):
            self.batches.append(inputs.numpy()[:, 0].astype(int).tolist())
        return inputs


def orders_in_fit(x, y=None, epochs=4, **options):
    seen = Seen()
    model = keras.Sequential([keras.Input((2,)), seen, keras.layers.Dense(1)])
    model.compile("sgd", "mse", run_eagerly=True)
    seen.batches.clear()
    model.fit(x, y, epochs=epochs, verbose=0, **options)
    steps = len(seen.batches) // epochs
    return [np.concatenate(seen.batches[epoch * steps : (epoch + 1) * steps]).tolist() for epoch in range(epochs)]


def test_every_example_once_an_epoch_with_its_own_target(data):
    x, y = data
    dataset = arrays(x, y, batch_size=16, seed=0)
    assert len(dataset) == 4
    assert dataset.cardinality() == 4
    batches = list(dataset)
    assert [len(targets) for _, targets in batches] == [16, 16, 16, 2]
    assert sorted(np.concatenate([targets for _, targets in batches])) == list(range(COUNT))
    for inputs, targets in batches:
        np.testing.assert_array_equal(inputs, x[targets.numpy()])


def test_same_seed_same_order_in_every_epoch_and_no_epoch_repeats_another(data):
    first, again, other = (orders(arrays(*data, seed=seed), epochs=8) for seed in (7, 7, 8))
    assert first == again
    assert len({tuple(order) for order in first + other}) == 16


def test_fit_sees_a_new_order_each_epoch_that_follows_from_the_seed(data):
    x, y = data
    first, again, other = (orders_in_fit(arrays(x, y, 16, seed=seed), shuffle=False) for seed in (7, 7, 8))
    assert first == again
    assert len({tuple(order) for order in first + other}) == 8
    assert all(sorted(order) == list(range(0, 2 * COUNT, 2)) for order in first)


def test_stock_fit_repeats_one_order_which_is_why_arrays_exists(data):
    x, y = data
    keras.utils.set_random_seed(0)
    stock = orders_in_fit(x, y, batch_size=16, shuffle=True)
    assert len({tuple(order) for order in stock}) == 1


def test_without_a_seed_the_order_follows_set_random_seed(data):
    seen = []
    for seed in (1, 1, 2):
        keras.utils.set_random_seed(seed)
        seen.append(orders(arrays(*data), epochs=3))
    assert seen[0] == seen[1]
    assert seen[0] != seen[2]


@pytest.mark.parametrize("seed", [7, None])
def test_a_fresh_copy_begins_anew_and_moves_nothing(data, seed):
    keras.utils.set_random_seed(1)
    dataset = arrays(*data, seed=seed)
    expected = orders(dataset, epochs=4)
    draw = tf.random.uniform(()).numpy()
    keras.utils.set_random_seed(1)
    dataset = arrays(*data, seed=seed)
    found = orders(dataset, epochs=2)
    copies = [orders(dataset.fresh_copy(), epochs=3) for _ in range(2)]
    assert found + orders(dataset, epochs=2) == expected
    assert copies[0] == copies[1]
    assert copies[0] == expected[:3] or seed is None
    assert tf.random.uniform(()).numpy() == draw


def test_without_shuffle_the_order_is_that_of_the_arrays(data):
    assert orders(arrays(*data, shuffle=False, batch_size=7), epochs=2) == [list(range(COUNT))] * 2


def test_types_and_shapes_are_known_to_the_graph():
    dataset = arrays(np.zeros((5, 4, 3, 1), np.uint8), np.zeros((5, 2), np.float32), class_weight=None)
    inputs, targets = dataset.element_spec
    assert (inputs.shape.as_list(), inputs.dtype) == ([None, 4, 3, 1], tf.uint8)
    assert (targets.shape.as_list(), targets.dtype) == ([None, 2], tf.float32)


def test_lists_are_taken(data):
    x, y = data
    assert orders(arrays(x.tolist(), y.tolist(), seed=3), epochs=2) == orders(arrays(x, y, seed=3), epochs=2)


def test_class_weights_go_with_their_examples():
    y = np.repeat([0, 1, 2], [30, 15, 5])
    expected = compute_sample_weight("balanced", y)
    for x, targets, weights in arrays(np.arange(COUNT), y, class_weight="balanced", seed=0):
        np.testing.assert_allclose(weights, expected[x.numpy()], rtol=1e-6)
        np.testing.assert_array_equal(targets, y[x.numpy()])


def test_weighted_batches_train_as_keras_class_weight_does():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(COUNT, 3)).astype(np.float32), np.repeat([0, 1], [40, 10])
    weights = {0: 0.5, 1: 3.0}
    trained = []
    for dataset, options in (
        (arrays(x, y, shuffle=False, class_weight=weights), {}),
        (arrays(x, y, shuffle=False), {"class_weight": weights}),
    ):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, activation="sigmoid")])
        model.compile("sgd", "binary_crossentropy")
        model.fit(dataset, epochs=3, verbose=0, shuffle=False, **options)
        trained.append(model.get_weights())
    for ours, stock in zip(*trained, strict=True):
        np.testing.assert_allclose(ours, stock, rtol=1e-6)


def on_disk(values):
    with tempfile.TemporaryFile() as file:
        array = np.memmap(file, values.dtype, "w+", shape=values.shape)
    array[:] = values
    return array


def test_memmap_stays_on_disk_and_gives_the_same_batches(data):
    x, y = data
    expected = list(arrays(x, y, seed=5))
    dataset = arrays(on_disk(x), y, seed=5)
    assert dataset.cardinality() == 2
    assert dataset.element_spec[0].shape.as_list() == [None, 2]
    for (inputs, targets), (same_inputs, same_targets) in zip(dataset, expected, strict=True):
        np.testing.assert_array_equal(inputs, same_inputs)
        np.testing.assert_array_equal(targets, same_targets)


def test_memmap_lives_as_long_as_a_dataset_made_from_it_and_no_longer(data, collect_garbage):
    x, y = data
    array = on_disk(x)
    alive = weakref.ref(array)
    derived = arrays(array, y).map(lambda inputs, targets: inputs).take(2)
    del array
    collect_garbage()
    assert sum(len(inputs) for inputs in derived) == COUNT
    del derived
    collect_garbage()
    assert alive() is None


def test_memmap_lives_as_long_as_a_fresh_copy(data, collect_garbage):
    x, y = data
    fresh_copy = arrays(on_disk(x), y).fresh_copy()
    collect_garbage()
    assert sum(len(inputs) for inputs, _ in fresh_copy) == COUNT


def test_a_dict_of_columns_gives_dicts(data):
    _, y = data
    x = {"age": np.arange(COUNT, dtype=np.float32), "name": np.array([f"n{number}" for number in range(COUNT)])}
    dataset = arrays(x, y, batch_size=20, seed=1, normalize="standard")
    assert set(dataset.normalization) == {"age"}
    for inputs, targets in dataset:
        np.testing.assert_array_equal(inputs["age"], targets)
        assert inputs["name"].numpy().tolist() == [f"n{number}".encode() for number in targets.numpy()]


def test_a_data_frame_is_the_array_of_its_rows(data):
    x, y = data
    frame = pandas.DataFrame({"a": x[:, 0], "b": x[:, 1].astype(int), "c": x[:, 0] > 20})
    expected = arrays(np.column_stack([x, x[:, 0] > 20]), y, seed=1)
    dataset = arrays(frame, pandas.Series(y, index=range(7, 7 + COUNT)), seed=1, normalize="min_max")
    for ours, peer in zip(dataset, expected, strict=True):
        np.testing.assert_array_equal(ours[0], peer[0])
        np.testing.assert_array_equal(ours[1], peer[1])
    assert dataset.normalization.get_config()["mean"] == [0.0, 1.0, 0.0]
    columns = arrays(dict(frame), y, seed=1)
    assert {name: spec.dtype for name, spec in columns.element_spec[0].items()} == {
        "a": tf.float32,
        "b": tf.int64,
        "c": tf.bool,
    }


def test_statistics_live_in_the_model_and_the_batches_stay_raw(data, tmp_path):
    x, y = data
    dataset = arrays(x * 100, y, seed=1, normalize="standard")
    for inputs, targets in dataset:
        np.testing.assert_array_equal(inputs, (x * 100)[targets.numpy()])
    model = mlp([4], (2,), 1, classifier_activation=None, preprocessing=dataset.normalization)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    raw = (x * 100)[:7]
    inside = keras.Model(loaded.input, loaded.layers[1].output)
    expected = (raw - (x * 100).mean(axis=0)) / (x * 100).std(axis=0)
    np.testing.assert_allclose(inside.predict(raw, verbose=0), expected, atol=1e-5)
    np.testing.assert_array_equal(loaded.predict(raw, verbose=0), model.predict(raw, verbose=0))


@pytest.mark.parametrize(
    ("x", "y", "options", "message"),
    [
        ([1, 2, 3], [1, 2], {}, "arrays: `x` has 3 examples and `y` has 2. Give one target for each input."),
        ([], [], {}, "arrays: argument `x` must be an array with at least one example. Received: "),
        (1, [1], {}, "arrays: `x` and `y` must have a first axis that counts the examples. Give arrays, not scalars."),
        ([1], [1], {"batch_size": 0}, "arrays: argument `batch_size` must be an integer of at least 1. Received: "),
        ([1], [1], {"batch_size": 2.0}, "arrays: argument `batch_size` must be an integer of at least 1. Received: "),
        ([1], [1], {"normalize": "z"}, "arrays: argument `normalize` must be one of None, 'standard', 'min_max'. Rec"),
        ([2.0, 2.0], [1, 1], {"normalize": "standard"}, "arrays: `x` is constant, between 2 and 2: nothing to normal"),
        ({"a": [1, 2], "b": [1]}, [1, 2], {}, "arrays: the columns of `x` must have one length. Received: {'a': 2, 'b"),
        ({}, [1, 2], {}, "arrays: `x` and `y` must have a first axis that counts the examples. Give arrays, not scal"),
        (pandas.DataFrame({"a": ["u", "v"]}), [1, 2], {}, "arrays: column 'a' of the data frame `x` holds object, bu"),
        ([1], {"a": [1]}, {"class_weight": "balanced"}, "arrays: argument `class_weight` must be None where `y` is a"),
        ([1], [1], {"seed": -1}, "arrays: argument `seed` must be an integer of at least 0. Received: seed=-1."),
        ([1], [1], {"class_weight": "even"}, "arrays: argument `class_weight` must be None, 'balanced' or a dict"),
    ],
)
def test_arguments(x, y, options, message):
    with pytest.raises(InputError, match="^" + re.escape(message)):
        arrays(x, y, **options)
