"""The state of a layer's generator in the model's files, where Keras leaves it out."""

import keras
import numpy as np
import pytest

from keras_opt.layers import DropBlock, StochasticDepth
from keras_opt.layers.random_keys import next_key, uniform
from keras_opt.layers.seed_generators import load_seed, save_seed, seed_generator

ONES = np.ones((64, 4), "float32")


def model_with(layer):
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(4), layer])


def draws_on(layer, path):
    """Whether a layer of a loaded model gives what the saved one gives next."""
    model = model_with(layer)
    model(ONES, training=True)
    model.save(path)
    return np.array_equal(keras.models.load_model(path)(ONES, training=True), model(ONES, training=True))


def test_kerass_dropout_starts_over_after_a_load_and_ours_draws_on(tmp_path):
    assert not draws_on(keras.layers.Dropout(0.5, seed=1), tmp_path / "model.keras")
    assert draws_on(StochasticDepth(0.5, seed=1), tmp_path / "model.keras")
    assert draws_on(StochasticDepth(0.5), tmp_path / "model.keras")


def test_weights_of_a_model_without_the_layer_leave_its_generator_where_it_is(tmp_path):
    model_with(keras.layers.Dropout(0.5, name="drop")).save_weights(tmp_path / "model.weights.h5")
    model = model_with(StochasticDepth(0.5, seed=3, name="drop"))
    state = model.layers[-1].seed_generator.state
    seed, _ = state.numpy()
    model(ONES, training=True)
    model.load_weights(tmp_path / "model.weights.h5")
    assert state.numpy().tolist() == [seed, 1]


def test_a_state_is_taken_out_of_the_store_and_the_rest_is_left():
    store = {"0": "a weight"}
    saved, loaded = seed_generator("DropBlock", 7), seed_generator("DropBlock", None)
    save_seed(saved, store)
    assert load_seed(loaded, store) == {"0": "a weight"}
    assert loaded.state.numpy().tolist() == saved.state.numpy().tolist()
    assert load_seed(loaded, {}) == {}


def test_numpy_integers_are_seeds():
    numpys, pythons = (DropBlock(0.1, seed=seed).seed_generator.state.numpy() for seed in (np.int64(4), 4))
    np.testing.assert_array_equal(numpys, pythons)


def test_layers_of_one_class_draw_alike_from_one_seed_and_those_of_two_do_not():
    one, same, other = (next_key(seed_generator(owner, 1)).numpy() for owner in ("RandomCrop",) * 2 + ("RandAugment",))
    np.testing.assert_array_equal(one, same)
    draws, others = (uniform(key, (1000,)) for key in (one, other))
    assert abs(np.corrcoef(draws, others)[0, 1]) < 0.1


@pytest.mark.parametrize("seed", [-1, 1.5, "1", True])
def test_what_is_no_seed_is_refused(seed):
    with pytest.raises(ValueError, match="DropBlock: argument `seed` must be an integer of at least 0"):
        DropBlock(0.1, seed=seed)
