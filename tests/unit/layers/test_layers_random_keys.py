import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_opt.layers.random_keys import bernoulli, fold_in, integers, next_key, uniform

KEY = tf.constant([3, 5])


def draw_all(key):
    return uniform(key, (7, 2)), bernoulli(key, (40,), 0.3), integers(key, (9,), 2, 11), fold_in(key, 7)


def test_the_numbers_are_the_same_eagerly_in_tf_data_and_under_xla():
    eager = draw_all(KEY)
    under_xla = tf.function(draw_all, jit_compile=True)(KEY)
    in_a_dataset = next(iter(tf.data.Dataset.from_tensors(KEY).map(draw_all)))
    for expected, *others in zip(eager, under_xla, in_a_dataset, strict=True):
        for other in others:
            np.testing.assert_array_equal(other, expected)


def test_uniform_fills_its_range():
    numbers = uniform(KEY, (20_000,), -2, 6).numpy()
    assert numbers.dtype == "float32"
    assert numbers.min() >= -2
    assert numbers.max() < 6
    assert abs(numbers.mean() - 2) < 0.05


def test_bernoulli_is_certain_at_0_and_1_and_holds_its_share_between():
    assert not bernoulli(KEY, (1000,), 0.0).numpy().any()
    assert bernoulli(KEY, (1000,), 1.0).numpy().all()
    assert abs(bernoulli(KEY, (20_000,), 0.3).numpy().mean() - 0.3) < 0.01


def test_integers_are_drawn_below_high():
    assert set(integers(KEY, (200,), 2, 5).numpy()) == {2, 3, 4}


def test_folded_keys_draw_independently():
    one, two = (uniform(fold_in(KEY, number), (20_000,)).numpy() for number in range(2))
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.02
    assert abs(np.corrcoef(one, uniform(KEY, (20_000,)))[0, 1]) < 0.02


def test_each_call_gets_the_next_key_and_a_seed_repeats_them():
    generators = [keras.random.SeedGenerator(4) for _ in range(2)]
    first, second = ([next_key(generator).numpy().tolist() for _ in range(3)] for generator in generators)
    assert first == second
    assert len(set(map(tuple, first))) == 3


def test_the_replicas_of_a_strategy_draw_differently(two_replicas):
    with two_replicas.scope():
        generator = keras.random.SeedGenerator(4)

    @tf.function
    def run():
        return two_replicas.run(lambda: uniform(next_key(generator), (2,)))

    one, other = two_replicas.experimental_local_results(run())
    assert not np.allclose(one, other)


def test_a_call_in_a_dataset_map_warns_and_names_augment():
    generator = keras.random.SeedGenerator(4)
    with pytest.warns(UserWarning, match=r"keras_opt\.data\.augment") as caught:
        dataset = tf.data.Dataset.range(3).map(lambda _: uniform(next_key(generator), ()))
    assert len(set(dataset.as_numpy_iterator())) == 3
    assert caught[0].filename == __file__
