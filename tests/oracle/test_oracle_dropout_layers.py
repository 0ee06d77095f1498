"""DropBlock, StochasticDepth and ScheduledDropout against NumPy, over many draws, and in every mode of the engine."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_opt import export, schedules
from keras_opt.layers import DropBlock, ScheduledDropout, StochasticDepth
from keras_opt.layers.random_keys import bernoulli, next_key, uniform
from keras_opt.layers.seed_generators import seed_generator

MAKE = {
    "DropBlock": lambda **settings: DropBlock(0.25, 3, seed=5, **settings),
    "StochasticDepth": lambda **settings: StochasticDepth(0.4, seed=5, **settings),
    "ScheduledDropout": lambda **settings: ScheduledDropout(
        schedules.PolynomialDecay(0.6, 40, end_learning_rate=0.2), seed=5, **settings
    ),
}
IMAGES = np.random.default_rng(0).normal(size=(16, 10, 12, 4)).astype("float32")

every_layer = pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)


def drop_block(images, rate, block_size, key):
    """The paper's algorithm 1, in loops."""
    count, height, width, channels = images.shape
    places = (count, height - block_size + 1, width - block_size + 1, channels)
    gamma = rate / block_size**2 * height * width / (places[1] * places[2])
    mask = np.ones(images.shape)
    for image, row, column, channel in np.argwhere(bernoulli(key, places, gamma)):
        mask[image, row : row + block_size, column : column + block_size, channel] = 0
    return images * mask * mask.size / mask.sum()


def stochastic_depth(images, rate, key):
    keep = np.asarray(uniform(key, (len(images), 1, 1, 1))) < 1 - rate
    return images * keep / (1 - rate)


def dropout(images, rate, key):
    keep = np.asarray(uniform(key, images.shape)) >= rate
    return images * keep / (1 - rate)


ORACLES = {
    "DropBlock": lambda key: drop_block(IMAGES, 0.25, 3, key),
    "StochasticDepth": lambda key: stochastic_depth(IMAGES, 0.4, key),
    "ScheduledDropout": lambda key: dropout(IMAGES, 0.6 - 0.01 * int(key[1]), key),
}


@pytest.mark.parametrize("name", MAKE)
def test_three_calls_are_those_of_numpy_eagerly_compiled_and_by_xla(name):
    eager, graph, xla = MAKE[name](), MAKE[name](), MAKE[name]()
    in_graph = tf.function(lambda x: graph(x, training=True), autograph=False)
    by_xla = tf.function(lambda x: xla(x, training=True), autograph=False, jit_compile=True)
    generator = seed_generator(name, 5)
    for _ in range(3):
        expected = ORACLES[name](next_key(generator))
        assert 0.1 < (expected == 0).mean() < 0.8
        for outputs in (eager(IMAGES, training=True), in_graph(IMAGES), by_xla(IMAGES)):
            np.testing.assert_allclose(outputs, expected, rtol=1e-5)


def test_stochastic_depth_and_a_constant_schedule_drop_as_keras_does():
    """Keras's Dropout with the same share, over many values: the same mean and the same variance."""
    ones = np.ones((20_000, 1), "float32")
    kerass = np.asarray(keras.layers.Dropout(0.4, seed=1)(ones, training=True))
    scheduled = ScheduledDropout(schedules.PiecewiseConstantDecay([1000], [0.4, 0.4]), seed=1)
    for layer in (StochasticDepth(0.4, seed=1), scheduled):
        outputs = np.asarray(layer(ones, training=True))
        assert set(np.unique(outputs)) == set(np.unique(kerass))
        np.testing.assert_allclose(outputs.mean(), kerass.mean(), atol=0.03)
        np.testing.assert_allclose(outputs.var(), kerass.var(), atol=0.03)


@every_layer
def test_the_expectation_is_kept(make):
    layer = tf.function(make(), autograph=False)
    draws = np.mean([np.mean(layer(IMAGES, training=True), (1, 2)) for _ in range(400)], axis=0)
    # The mean of 400 draws of a map's mean is off by a twentieth of one draw's spread.
    np.testing.assert_allclose(draws, IMAGES.mean((1, 2)), atol=0.05)


def test_drop_block_keeps_the_mean_of_a_constant_map_and_drops_about_its_rate():
    for rate, block_size in ((0.1, 7), (0.1, 3), (0.05, 5)):
        outputs = np.asarray(DropBlock(rate, block_size, seed=2)(np.ones((8, 28, 28, 64), "float32"), training=True))
        np.testing.assert_allclose(outputs.mean(), 1, rtol=1e-6)
        np.testing.assert_allclose((outputs == 0).mean(), rate, rtol=0.12)


@every_layer
def test_gradients_flow_where_values_do(make):
    images = tf.constant(IMAGES)
    with tf.GradientTape() as tape:
        tape.watch(images)
        outputs = make()(images, training=True)
        total = tf.reduce_sum(outputs)
    np.testing.assert_allclose(tape.gradient(total, images) * images, outputs, rtol=1e-5)


@every_layer
def test_inference_and_rate_0_give_the_inputs_and_draw_nothing(make):
    images = tf.constant(IMAGES)
    layer = make()
    assert layer(images) is images
    assert layer(images, training=False) is images
    assert layer.seed_generator.state.numpy()[1] == 0
    for unused in (DropBlock(0.0), StochasticDepth(0.0)):
        assert unused(images, training=True) is images


@every_layer
def test_a_saved_layer_draws_on_where_it_was(make, tmp_path):
    model = keras.Sequential([keras.Input(IMAGES.shape[1:]), make(name="used")])
    model(IMAGES, training=True)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.get_layer("used").get_config() == model.get_layer("used").get_config()
    np.testing.assert_array_equal(loaded(IMAGES, training=True), model(IMAGES, training=True))


@every_layer
@pytest.mark.parametrize("policy", ["mixed_float16", "float64"])
def test_precision(make, policy):
    layer = make(dtype=policy)
    outputs = layer(IMAGES, training=True)
    assert outputs.dtype == layer.compute_dtype
    np.testing.assert_allclose(outputs, make()(IMAGES, training=True), rtol=2e-3)
    np.testing.assert_array_equal(np.asarray(outputs) == 0, np.asarray(make()(IMAGES, training=True)) == 0)


@every_layer
def test_each_replica_draws_its_own(make, two_replicas):
    with two_replicas.scope():
        layer = make()
        layer.build(IMAGES.shape)
    run = tf.function(lambda: two_replicas.run(lambda: layer(IMAGES, training=True)), autograph=False)
    first, second = (np.asarray(each) for each in two_replicas.experimental_local_results(run()))
    assert ((first == 0) != (second == 0)).mean() > 0.1


@every_layer
def test_masks_and_shapes_pass_through(make):
    assert make().compute_output_shape((None, 8, 8, 3)) == (None, 8, 8, 3)
    inputs = keras.layers.Embedding(9, 4, mask_zero=True)(np.array([[1, 2, 3, 0], [3, 0, 0, 0]]))
    outputs = make()(inputs, training=True)
    np.testing.assert_array_equal(keras.src.backend.get_keras_mask(outputs), [[1, 1, 1, 0], [1, 0, 0, 0]])


def test_an_exported_file_is_that_of_the_model_without_them(tmp_path):
    def model(*dropped):
        keras.utils.set_random_seed(0)
        convolution = keras.layers.Conv2D(4, 3, name="convolution")
        head = [keras.layers.Flatten(name="flatten"), keras.layers.Dense(3, name="head")]
        return keras.Sequential([keras.Input((10, 12, 4), name="image"), convolution, *dropped, *head], name="model")

    layers = [make(name=name) for name, make in MAKE.items()]
    rows = np.tile(IMAGES, (7, 1, 1, 1))
    files = [
        export.to_tflite(each, tmp_path / f"{number}.tflite", "int8", rows)
        for number, each in enumerate((model(), model(*layers)))
    ]
    np.testing.assert_array_equal(*(export.LiteRTModel(file.path).predict(IMAGES) for file in files))
    assert files[0].size_bytes == files[1].size_bytes
