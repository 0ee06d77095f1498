"""The ring buffer, driven by hand."""

import numpy as np
import pytest
import tensorflow as tf

from keras_opt.training.norm_recorder import NormRecorder


class Variable:
    path = "layer/kernel"


def record(recorder, *values):
    for value in values:
        recorder.on_gradients([tf.constant([value, 0.0])], [Variable()])


def test_rows_come_out_once_oldest_first_with_their_numbers():
    recorder = NormRecorder(every=2, capacity=4)
    assert [len(part) for part in recorder.read()] == [0, 0]
    record(recorder, 1.0, 2.0, 3.0)
    steps, rows = recorder.read()
    assert steps.tolist() == [0, 2]
    assert rows.tolist() == [[1.0], [3.0]]
    record(recorder, 4.0, 5.0)
    steps, rows = recorder.read()
    assert steps.tolist() == [4]
    assert rows.tolist() == [[5.0]]


def test_an_overfull_ring_keeps_the_newest_and_their_numbers_show_the_gap():
    recorder = NormRecorder(every=1, capacity=3)
    record(recorder, *range(5))
    steps, rows = recorder.read()
    assert steps.tolist() == [2, 3, 4]
    assert rows[:, 0].tolist() == [2.0, 3.0, 4.0]


def test_repeated_ids_are_summed_before_the_norm():
    recorder = NormRecorder(every=1, capacity=2)
    slices = tf.IndexedSlices(tf.constant([[1.0, 2.0], [2.0, 2.0], [5.0, 0.0]]), tf.constant([3, 3, 1]), (9, 2))
    recorder.on_gradients([slices], [Variable()])
    assert recorder.read()[1][0, 0] == pytest.approx(np.linalg.norm([[3.0, 4.0], [5.0, 0.0]]))
