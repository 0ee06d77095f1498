"""What `preflight` finds, and for each finding the wrong result that training has without it."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.data.experimental.ops.distribute import _AutoShardDataset

from keras_opt import models
from keras_opt.core.errors import InputError
from keras_opt.distribute import preflight
from keras_opt.distribute.beginning import Beginning
from keras_opt.distribute.findings import Training, sharding
from keras_opt.distribute.preflight import check_beginning
from keras_opt.distribute.refusals import check_model

RANDOM = np.random.default_rng(0)
X, Y = RANDOM.normal(size=(4, 3)).astype("float32"), RANDOM.uniform(size=(4, 2)).astype("float32")
TOKENS = np.array([[1, 2, 3], [1, 0, 0], [2, 0, 0], [3, 0, 0]])
STEPS = RANDOM.normal(size=(4, 3, 2)).astype("float32")
CLASSES = np.array([[1, 1, 1], [0, 0, 1], [0, 0, 1], [0, 0, 1]])


def divided(y, x):
    return keras.losses.mean_squared_error(y, x) / tf.distribute.get_strategy().num_replicas_in_sync


LOSSES = {
    "divided": lambda: divided,
    "dice": keras.losses.Dice,
    "tversky": lambda: keras.losses.Tversky(alpha=0.3, beta=0.7),
    "circle": keras.losses.Circle,
    "none": lambda: keras.losses.MeanSquaredError(None),
}


class OwnStep(keras.Model):
    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            losses = keras.losses.mean_squared_error(y, self(x, training=True))
            loss = tf.reduce_mean(losses) / tf.distribute.get_strategy().num_replicas_in_sync
        gradients = tape.gradient(loss, self.trainable_weights)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
        return {"loss": loss}


class UnscaledStep(OwnStep):
    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(keras.losses.mean_squared_error(y, self(x, training=True)))
        gradients = tape.gradient(loss, self.trainable_weights)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
        return {"loss": loss}


class UnscaledLoss(keras.Model):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return keras.ops.mean(keras.ops.square(y - y_pred))


class AddedLoss(keras.layers.Layer):
    def call(self, x):
        self.add_loss(keras.ops.sum(keras.ops.square(x)))
        return x


def dense(*before, kind=keras.Model, outputs=1):
    inputs = keras.Input((3,))
    inner = keras.Sequential([keras.Input((3,)), *before])(inputs) if before else inputs
    made = [keras.layers.Dense(2)(inner) for _ in range(outputs)]
    return kind(inputs, made if outputs > 1 else made[0])


def embedding():
    return keras.Sequential([keras.Input((3,)), keras.layers.Embedding(4, 2, mask_zero=True), keras.layers.Dense(2)])


def make(name, strategy):
    """A compiled model that has the finding `name`, in the scope of `strategy`."""
    keras.utils.set_random_seed(0)
    with strategy.scope():
        loss = "mse"
        if name == "batch norm":
            model = dense(keras.layers.BatchNormalization())
        elif name == "mask":
            model = embedding()
        elif name == "activity":
            model = dense(keras.layers.Dense(2, activity_regularizer=keras.regularizers.L2(0.1)))
        elif name == "added loss":
            model = dense(keras.layers.Dense(2), AddedLoss())
        elif name == "mixed losses":
            norm = keras.layers.BatchNormalization(synchronized=True)
            model = dense(keras.layers.Dense(2), AddedLoss(), norm)
        elif name == "own step":
            model = dense(kind=OwnStep)
        elif name == "unscaled step":
            model = dense(kind=UnscaledStep)
        elif name == "unscaled loss":
            model = dense(kind=UnscaledLoss)
        elif name == "convolution":
            model = keras.Sequential([keras.Input((3, 1)), keras.layers.Conv1D(2, 2), keras.layers.Flatten()])
            model.add(keras.layers.Dense(2))
        elif name == "ignore class":
            model = keras.Sequential([keras.Input((3,)), keras.layers.Reshape((3, 1)), keras.layers.Dense(2)])
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=0)
        elif name == "two outputs":
            model = dense(outputs=2)
        elif name == "reductions":
            model, loss = dense(outputs=2), [keras.losses.MeanSquaredError(), keras.losses.MeanSquaredError("sum")]
        else:
            model = dense()
            loss = LOSSES.get(name, lambda: "mse")()
        model.compile(keras.optimizers.SGD(0.1), loss, run_eagerly=True)  # which saves the tracing
    return model


def rows_of(name, count):
    if name == "mask":
        return TOKENS[:count], STEPS[:count]
    if name == "ignore class":
        return X[:count], CLASSES[:count]
    if name == "circle":
        return X[:count], np.array([0, 1, 0, 1])[:count]
    x = X[:count, :, np.newaxis] if name == "convolution" else X[:count]
    return x, (Y[:count], Y[:count]) if name == "reductions" else Y[:count]


def batch(name, count, drop_remainder=True):
    """One batch, of a size that is known or not."""
    return tf.data.Dataset.from_tensor_slices(rows_of(name, count)).batch(count, drop_remainder=drop_remainder)


def named(findings):
    return [(finding.name, finding.severity) for finding in findings]


# --- the findings -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "drop_remainder", "expected"),
    [
        ("plain", True, []),
        ("plain", False, [("uneven batches", "repair")]),
        ("reductions", True, []),
        ("reductions", False, [("uneven batches", "refusal")]),
        ("own step", True, []),
        ("own step", False, [("uneven batches", "warning")]),
        ("unscaled step", True, [("own step", "warning")]),
        ("unscaled loss", True, [("own step", "warning")]),
        ("batch norm", True, [("batch norm", "warning")]),
        ("batch norm", False, [("batch norm", "warning"), ("uneven batches", "repair")]),
        ("mask", True, [("mask", "warning")]),
        ("added loss", True, [("added loss", "warning")]),
        ("mixed losses", True, [("mixed losses", "refusal"), ("added loss", "warning")]),
        ("dice", True, [("loss", "warning")]),
        ("divided", True, [("loss", "warning")]),
        ("tversky", True, [("loss", "warning")]),
        ("circle", True, [("loss", "warning")]),
        ("ignore class", True, [("loss", "warning")]),
        ("convolution", True, []),
        ("convolution", False, [("uneven batches", "repair"), ("convolution", "repair")]),
        ("none", True, [("loss", "warning")]),
    ],
)
def test_findings(name, drop_remainder, expected, two_replicas):
    assert named(preflight(make(name, two_replicas), batch(name, 4, drop_remainder))) == expected


def test_cures_are_none_of_its_findings(two_replicas):
    model = make("batch norm", two_replicas)
    (finding,) = preflight(model, batch("batch norm", 4))
    assert "synchronize_batch_norm" in str(finding)
    assert str(finding).startswith("warning (batch norm): BatchNormalization '")
    models.synchronize_batch_norm(model)
    assert preflight(model, batch("batch norm", 4)) == []


def test_one_device_has_none():
    assert preflight(make("batch norm", tf.distribute.get_strategy())) == []


@pytest.mark.parametrize(
    ("data", "is_even"),
    [((X, Y), True), ({"x": X[:2]}, True), (X[:3], False), (None, False), ("anything", False), (iter([X]), False)],
)
def test_arrays_and_unknown_data(data, is_even, two_replicas):
    assert (preflight(make("plain", two_replicas), data, batch_size=2) == []) is is_even


def test_what_compile_refuses_comes_first(two_replicas):
    model = make("batch norm", two_replicas)
    model.optimizer.clipnorm = 1.0
    refusal, *others = preflight(model, batch("batch norm", 4))
    assert refusal.severity == "refusal"
    assert "GradientClipping" in str(refusal)
    assert named(others) == [("batch norm", "warning")]
    with pytest.raises(InputError, match="GradientClipping"):
        check_model(model)


OFF, DATA = tf.data.experimental.AutoShardPolicy.OFF, tf.data.experimental.AutoShardPolicy.DATA


@pytest.mark.parametrize(("workers", "policy", "count"), [(2, OFF, 1), (2, DATA, 0), (2, None, 0), (1, OFF, 0)])
def test_sharding(workers, policy, count):
    model = keras.Sequential([keras.Input((3,))])
    assert len(list(sharding(Training(model, (), policy, 2, workers)))) == count


@pytest.mark.parametrize("model", [None, "model", keras.Sequential([keras.Input((3,))])])
def test_no_compiled_model(model):
    with pytest.raises(TypeError, match="preflight: argument `model` must be a compiled Keras model"):
        preflight(model)


# --- in fit -----------------------------------------------------------------------------------------------------------


def begins(model, dataset, is_training=True):
    check_beginning(Beginning(model, dataset, is_training, 1))


def test_a_refusal_is_raised(two_replicas):
    with pytest.raises(InputError, match="preflight: batches may not split evenly over 2 replicas, and the losses"):
        begins(make("reductions", two_replicas), batch("reductions", 4, False))


def test_data_with_a_part_missing_crash_and_are_refused(our_replicas, monkeypatch):
    arrays = {"x": X, "y": (Y, Y), "sample_weight": (np.ones(4), None), "verbose": 0}
    model = make("two outputs", our_replicas)
    with pytest.raises(InputError, match="preflight: the data have None in the place of an array"):
        model.fit(**arrays)
    monkeypatch.setattr("keras_opt.distribute.begin.check_beginning", lambda beginning: None)
    with pytest.raises(AttributeError):
        model.fit(**arrays)


def test_a_warning_is_given_once_and_not_in_evaluation(two_replicas):
    model, dataset = make("batch norm", two_replicas), batch("batch norm", 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        begins(model, dataset, is_training=False)
    with pytest.warns(UserWarning, match="preflight: BatchNormalization"):
        begins(model, dataset)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        begins(model, dataset)


def test_repairs_and_data_that_the_caller_has_split_are_passed_in_silence(two_replicas):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        begins(make("plain", two_replicas), batch("plain", 3, False))
        begins(make("reductions", two_replicas), None)


def test_fit_looks_by_itself(our_replicas):
    model = make("reductions", our_replicas)
    with pytest.raises(InputError, match="preflight: batches may not split evenly"):
        model.fit(batch("reductions", 3), shuffle=False, verbose=0)


# --- the wrong results ------------------------------------------------------------------------------------------------


def fitted(name, strategy, count):
    model = make(name, strategy)
    data = batch(name, count, drop_remainder=False)
    loss = model.fit(data, shuffle=False, verbose=0).history["loss"][-1]
    return loss, np.concatenate([weight.flatten() for weight in model.get_weights()])


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("batch norm", 4),
        ("mask", 4),
        ("added loss", 4),
        ("mixed losses", 4),
        ("dice", 4),
        ("divided", 4),
        ("tversky", 4),
        ("circle", 4),
        ("ignore class", 4),
        ("none", 4),
        ("own step", 3),
        ("unscaled step", 4),
        ("unscaled loss", 4),
        ("reductions", 3),
    ],
)
def test_it_trains_otherwise_than_on_one_device(name, count, two_replicas, our_replicas, monkeypatch):
    monkeypatch.setattr("keras_opt.distribute.begin.check_beginning", lambda beginning: None)
    one_loss, one = fitted(name, tf.distribute.get_strategy(), count)
    loss, several = fitted(name, our_replicas, count)
    if name == "none":
        assert np.max(np.abs(several - one)) < 1e-5
        assert loss > 1.5 * one_loss
    else:
        assert np.max(np.abs(several - one)) > 1e-3


def test_the_penalty_of_an_activity_is_another_where_keras_sums_it(our_replicas):
    """As Keras 3.12 does; 3.15 takes the mean over the samples."""
    one, several = (fitted("activity", strategy, 4)[1] for strategy in (tf.distribute.get_strategy(), our_replicas))
    findings = named(preflight(make("activity", our_replicas), batch("activity", 4)))
    differs = np.max(np.abs(several - one)) > 1e-3
    assert findings == ([("activity regularizer", "warning")] if differs else [])


@pytest.mark.parametrize(("policy", "trained"), [(OFF, 2), (DATA, 1)])
def test_two_workers_without_shards_train_on_every_row_twice(policy, trained):
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = policy
    dataset = tf.data.Dataset.range(8).batch(2).with_options(options)
    rows = [row for worker in range(2) for part in _AutoShardDataset(dataset, 2, worker) for row in part.numpy()]
    assert sorted(rows) == sorted([*range(8)] * trained)
