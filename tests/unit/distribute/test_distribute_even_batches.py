"""How batches are split over replicas, and what stands in for a share without rows."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_opt import models
from keras_opt.distribute.beginning import Beginning
from keras_opt.distribute.even_batches import even_batches, leaves_replicas_empty, may_be_uneven
from keras_opt.training.weighed_shares import are_shares_weighed


def compiled(strategy, loss="mse", norm=None):
    with strategy.scope():
        model = keras.Sequential([keras.Input((3,)), *([norm] if norm else []), keras.layers.Dense(2)])
        model.compile("sgd", loss)
    return model


def taken(model, dataset, is_training=True):
    return even_batches(Beginning(model, dataset, is_training, None))


def of_rows(*counts):
    """A dataset of batches of so many rows, numbered."""

    def batches():
        for count in counts:
            yield np.arange(count)[:, None] * np.ones((1, 3)), np.zeros((count, 2))

    signature = (tf.TensorSpec((None, 3), tf.float32), tf.TensorSpec((None, 2), tf.float32))
    return tf.data.Dataset.from_generator(batches, output_signature=signature)


@pytest.mark.parametrize("replicas", [2, 3, 8])
def test_leaves_replicas_empty_where_rows_over_replicas_run_out(replicas):
    for rows in range(1, 40):
        each = -(-rows // replicas)
        shares = [len(range(rows)[place * each : (place + 1) * each]) for place in range(replicas)]
        assert leaves_replicas_empty(rows, replicas) == (shares[-1] == 0), shares


def test_tensorflow_splits_so(two_replicas):
    """The rule that `leaves_replicas_empty` is about."""
    dataset = of_rows(4, 3, 1, 2)
    shares = [
        [len(share) for share in two_replicas.experimental_local_results(x)]
        for x, _ in two_replicas.experimental_distribute_dataset(dataset)
    ]
    assert shares == [[2, 2], [2, 1], [1, 0], [1, 1]]


@pytest.mark.parametrize(
    ("sizes", "uneven"), [([4], False), ([4, 2], False), ([3], True), ([None], True), ([4, None], True), ([], False)]
)
def test_may_be_uneven(sizes, uneven):
    specs = {str(place): tf.TensorSpec((size, 3)) for place, size in enumerate(sizes)}
    assert may_be_uneven(specs, 2) is uneven


def test_one_replica_is_left_alone():
    model, dataset = compiled(tf.distribute.get_strategy()), of_rows(3)
    assert taken(model, dataset) is dataset
    assert not are_shares_weighed(model)


def test_the_data_stay_what_they_are(two_replicas):
    model, dataset = compiled(two_replicas), of_rows(3)
    assert taken(model, dataset) is dataset
    assert are_shares_weighed(model)


def test_a_small_batch_goes_to_each_replica_whole_where_batch_norm_would_see_none(two_replicas):
    model = compiled(two_replicas, norm=keras.layers.BatchNormalization())
    first, second = taken(model, of_rows(2, 1))
    assert first[0].shape == (2, 3)
    assert second[0].shape == (2, 3)
    assert second[1].shape == (2, 2)


def test_evaluation_takes_no_statistics(two_replicas):
    model, dataset = compiled(two_replicas, norm=keras.layers.BatchNormalization()), of_rows(1)
    assert taken(model, dataset, is_training=False) is dataset


@pytest.mark.parametrize("mend", [models.synchronize_batch_norm, models.freeze_batch_norm])
def test_norms_that_take_no_statistics_of_a_share_need_no_rows(mend, two_replicas):
    model = compiled(two_replicas, norm=keras.layers.BatchNormalization())
    mend(model)
    dataset = of_rows(1)
    assert taken(model, dataset) is dataset


def test_sparse_and_ragged_batches_are_repeated(two_replicas):
    model = compiled(two_replicas, norm=keras.layers.BatchNormalization())
    sparse = tf.sparse.from_dense(np.eye(3, dtype="float32"))
    ragged = tf.ragged.constant([[1.0], [2.0, 3.0], [4.0]])
    dataset = tf.data.Dataset.from_tensor_slices((sparse, ragged)).batch(1)
    left, right = next(iter(taken(model, dataset)))
    assert tf.sparse.to_dense(left).numpy().tolist() == [[1, 0, 0]] * 2
    assert right.to_list() == [[1.0]] * 2


def test_without_it_a_share_without_rows_kills_the_step_of_a_convolution_on_a_cpu(two_replicas):
    with two_replicas.scope():
        layers = [keras.layers.Conv2D(2, 2), keras.layers.Flatten(), keras.layers.Dense(2)]
        model = keras.Sequential([keras.Input((3, 3, 1)), *layers])
        model.compile("sgd", "mse", run_eagerly=True)
    rows = np.ones((5, 3, 3, 1), "float32"), np.ones((5, 2), "float32")
    dataset = tf.data.Dataset.from_tensor_slices(rows).batch(4)
    shapes = [x.shape[0] for x, _ in taken(model, dataset, is_training=False)]
    assert shapes == [4, 2]
    model.fit(taken(model, dataset), shuffle=False, verbose=0)
    with pytest.raises((tf.errors.OpError, ValueError)):  # else TensorFlow has mended it: delete `convolutions_on_cpus`
        model.fit(dataset, shuffle=False, verbose=0)


@pytest.mark.parametrize("is_mended", [False, True])
def test_without_it_a_share_without_rows_destroys_the_moving_statistics(is_mended, two_replicas):
    norm = keras.layers.BatchNormalization()
    with two_replicas.scope():
        model = compiled(two_replicas, norm=norm)
    dataset = of_rows(2, 1).apply(tf.data.experimental.assert_cardinality(2))
    model.fit(taken(model, dataset) if is_mended else dataset, shuffle=False, verbose=0)
    means = [copy.numpy() for copy in two_replicas.experimental_local_results(norm.moving_mean.value)]
    assert np.isnan(means[-1]).all() == (not is_mended)
