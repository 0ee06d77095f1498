"""The weight of a share, and who is asked for a loss."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_opt.training.weighed_shares import are_shares_weighed, share_weight, weigh_shares


@pytest.mark.parametrize("rows", [(2, 1), (1, 0), (3, 3), (5, 1, 0)])
def test_weighed_means_of_shares_make_the_mean_of_the_batch(rows):
    values = np.random.default_rng(0).normal(size=sum(rows))
    shares = np.split(values, np.cumsum(rows)[:-1])
    weights = [float(share_weight(tf.constant(float(n)), tf.constant(float(sum(rows))), len(rows))) for n in rows]
    means = [share.mean() if len(share) else 0.0 for share in shares]
    assert np.isclose(np.mean(np.multiply(weights, means)), values.mean(), rtol=1e-6)
    assert weights[0] == pytest.approx(rows[0] * len(rows) / sum(rows))


def test_no_rows_at_all_weigh_nothing():
    assert float(share_weight(tf.constant(0.0), tf.constant(0.0), 2)) == 0


class Counting(keras.Model):
    """A model whose own `compute_loss` does as it likes."""

    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs)
        self.given = []

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        self.given.append(sample_weight)
        return keras.ops.mean((y - y_pred) ** 2)


def test_on_one_device_it_asks_as_keras_does():
    inputs = keras.Input((2,))
    model = Counting(inputs, keras.layers.Dense(1)(inputs))
    model.compile("sgd", run_eagerly=True)
    before = model.compute_loss
    weigh_shares(model, "sum_over_batch_size")
    model.train_on_batch(np.ones((3, 2)), np.ones((3, 1)))
    assert model.given == [None]
    assert are_shares_weighed(model)
    weigh_shares(model, "sum")
    assert model.compute_loss.own == before  # wrapped once
