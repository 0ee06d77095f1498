"""Every class equally often, every example of a class as often as any other of it."""

import numpy as np
import pytest
import tensorflow as tf

from keras_opt.data.balanced_positions import balanced_positions

COUNTS = {0: 17, 1: 5, 4: 2}
LABELS = np.random.default_rng(0).permutation(np.repeat(list(COUNTS), list(COUNTS.values())))
POSITIONS = np.arange(100, 100 + len(LABELS))


def epochs(dataset, count=3):
    return [np.array([position.numpy() for position in dataset]) for _ in range(count)]


@pytest.mark.parametrize("seed", [0, 1])
def test_classes_and_examples_come_equally_often(seed):
    dataset = balanced_positions(POSITIONS, LABELS, seed)
    assert len(dataset) == 24  # three classes of 24 / 3
    for drawn in epochs(dataset):
        labels = LABELS[drawn - 100]
        for label, count in COUNTS.items():
            often = np.bincount(drawn[labels == label] - 100, minlength=len(LABELS))[label == LABELS]
            assert often.sum() == 8
            assert often.max() - often.min() <= 1
            assert len(often) == count


def test_the_epoch_and_the_seed_decide():
    first, again, other = (epochs(balanced_positions(POSITIONS, LABELS, seed)) for seed in (7, 7, 8))
    np.testing.assert_array_equal(first, again)
    assert len({tuple(epoch) for epoch in first + other}) == 6
    assert len({tuple(sorted(epoch)) for epoch in first + other}) > 1  # another part of the large class


def test_tensorflow_saves_the_place_inside_an_epoch(tmp_path):
    expected = np.concatenate(epochs(balanced_positions(POSITIONS, LABELS, 3), 1))
    iterator = iter(balanced_positions(POSITIONS, LABELS, 3))
    for _ in range(10):
        next(iterator)
    tf.train.Checkpoint(iterator=iterator).write(tmp_path / "place")
    found = iter(balanced_positions(POSITIONS, LABELS, 3))
    tf.train.Checkpoint(iterator=found).read(tmp_path / "place").assert_consumed()
    assert [position.numpy() for position in found] == expected[10:].tolist()
