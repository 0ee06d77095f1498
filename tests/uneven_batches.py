"""Trainings on any number of rows, that must give the weights, losses and metrics of one device.

    python uneven_batches.py FOLDER KINDS ROWS

runs them as one of several workers and writes FOLDER/KIND.ROWS.INDEX.npz; kinds and rows have commas between.
"""

import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from oracle_models import float64

from keras_opt import distribute
from keras_opt.distribute.cluster import find_cluster

BATCH = 4

LOSSES = {
    "sum": lambda: keras.losses.MeanSquaredError(reduction="sum"),
    "mean_with_sample_weight": lambda: keras.losses.MeanSquaredError(reduction="mean_with_sample_weight"),
    "two_inputs_and_outputs": lambda: ["mse", "mae"],
    "classes": lambda: keras.losses.SparseCategoricalCrossentropy(from_logits=True),
}


class OwnLoss(keras.Model):
    """A model with a loss of its own, which leaves the sample weights out."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        own = keras.ops.mean(keras.ops.abs(y - y_pred)) / tf.distribute.get_strategy().num_replicas_in_sync
        return super().compute_loss(x, y, y_pred, None, training) + own


class AddedLoss(keras.layers.Layer):
    """A layer that adds a mean over the samples to the loss."""

    def call(self, x):
        self.add_loss(keras.ops.mean(keras.ops.square(x)))
        return x


def network(kind):
    inputs = [keras.Input((3,), name=name) for name in ("left", "right")]
    inner = inputs[0]
    if kind == "batch_norm":
        inner = keras.layers.BatchNormalization(synchronized=True)(keras.layers.Dense(3)(inner))
    if kind == "added_loss":
        inner = AddedLoss()(keras.layers.Dense(3)(inner))
    first = keras.layers.Dense(2, kernel_regularizer=keras.regularizers.L2(0.1), name="first")(inner)
    if kind != "two_inputs_and_outputs":
        return (OwnLoss if kind == "own_loss" else keras.Model)(inputs[0], first)
    return keras.Model(inputs, [first, keras.layers.Dense(1, name="second")(keras.layers.Add()(inputs))])


class Trained:
    """A model of one kind under one strategy, that starts anew for each fit and is traced but once."""

    def __init__(self, kind, strategy, **settings):
        keras.utils.set_random_seed(0)
        self._kind = kind
        with strategy.scope():
            self.model = network(kind)
            metrics = {"two_inputs_and_outputs": [["mae", "mse"], ["mse"]], "classes": ["accuracy"]}
            settings |= {name: metrics.get(kind, ["mae", "mse"]) for name in ("metrics", "weighted_metrics")}
            self.model.compile(keras.optimizers.SGD(0.05, 0.9), LOSSES.get(kind, lambda: "mse")(), **settings)
            self.model.optimizer.build(self.model.trainable_variables)
        self._start = [np.asarray(variable) for variable in self.model.variables]

    def fit(self, rows, as_arrays=False, callbacks=()):
        """The logs and the variables after two epochs on `rows` rows, with validation."""
        for variable, value in zip(self.model.variables, self._start, strict=False):
            variable.assign(value)
        x, y, weights = data(self._kind, rows)
        given = (x, y) if weights is None else (x, y, weights)
        settings = {"epochs": 2, "verbose": 0, "shuffle": False, "callbacks": list(callbacks)}
        if as_arrays:
            extra = {"class_weight": {0: 1.0, 1: 3.0}} if self._kind == "classes" else {"sample_weight": weights}
            settings |= {"batch_size": BATCH, "validation_data": given}
            history = self.model.fit(x, y, **settings, **extra)
        else:
            batches = tf.data.Dataset.from_tensor_slices(given).batch(BATCH)
            history = self.model.fit(batches, validation_data=batches, **settings)
        return history.history, [np.asarray(variable) for variable in self.model.variables]


def data(kind, rows):
    random = np.random.default_rng(rows)
    x, other = random.normal(size=(2, rows, 3))
    y, weights = random.normal(size=(rows, 2)), random.uniform(0.5, 2.0, rows)
    if kind == "classes":
        return x, random.integers(0, 2, rows), None
    if kind == "two_inputs_and_outputs":
        return {"left": x, "right": other}, (y, y[:, :1]), (weights, weights**2)
    return x, y, None if kind == "without_weights" else weights


def deviation(one, other):
    """The largest deviation of logs and variables."""
    assert one[0].keys() == other[0].keys()
    pairs = [*((one[0][key], other[0][key]) for key in one[0]), *zip(one[1], other[1], strict=True)]
    return max(np.max(np.abs(np.subtract(a, b)) / (1 + np.abs(a)), initial=0) for a, b in pairs)


def save(path, logs, variables):
    numbered = {f"variable {place:03}": value for place, value in enumerate(variables)}
    np.savez(path, **logs, **numbered)


def load(path):
    with np.load(path) as file:
        names = sorted(name for name in file if name.startswith("variable "))
        return {name: file[name] for name in file if name not in names}, [file[name] for name in names]


if __name__ == "__main__":
    folder, kinds, sizes = Path(sys.argv[1]), sys.argv[2].split(","), sys.argv[3].split(",")
    made, index = distribute.strategy("multiworker"), find_cluster().index
    with float64():
        for kind in kinds:
            trained = Trained(kind, made)
            for rows in map(int, sizes):
                save(folder / f"{kind}.{rows}.{index}.npz", *trained.fit(rows))
                print(kind, rows, flush=True)
