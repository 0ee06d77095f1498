"""The next numbers after `put_generators_back` are those that would have come."""

import random

import keras
import numpy as np

from keras_opt.core.random_generators import put_generators_back, state_of_generators


def draw():
    return [random.random(), np.random.random(), np.random.normal(), keras.random.uniform((2,)).numpy().tolist()]


def test_all_generators_are_put_back():
    draw()
    np.random.normal()  # the second of a pair waits
    before = state_of_generators()
    expected = [draw() for _ in range(3)]
    put_generators_back(before)
    assert [draw() for _ in range(3)] == expected
    put_generators_back(before)
    assert draw() == expected[0]


def test_a_generator_of_keras_that_was_not_there_is_made_again_from_the_same_seed():
    keras.utils.set_random_seed(3)
    before = state_of_generators()
    expected = draw()
    put_generators_back(before)
    assert draw() == expected
