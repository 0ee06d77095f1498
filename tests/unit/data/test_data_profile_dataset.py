"""The slowest stage is found and named, in chains, in trees and with functions of any kind."""

import keras
import matplotlib as mpl
import numpy as np
import pytest
import tensorflow as tf

from keras_opt.core.errors import InputError
from keras_opt.data import arrays, augment, profile_dataset
from keras_opt.data.profile_dataset import DatasetProfile, Stage, _advice


def slow(x):
    for _ in range(60):
        x = tf.linalg.matmul(x, x) * 1e-3
    return x


def test_the_slow_stage_is_named_and_told_how_to_be_faster():
    squares = np.random.default_rng(0).normal(size=(16, 60, 60)).astype("float32")
    dataset = tf.data.Dataset.from_tensor_slices(squares).shuffle(8).map(slow).batch(4)
    profile = profile_dataset(dataset, max_seconds=1)
    assert [stage.kind for stage in profile.stages] == ["tensor slice", "shuffle", "map", "batch"]
    assert profile.slowest.name == "3 map (slow)"
    assert profile.slowest.cpu_seconds > 0.5 * sum(stage.cpu_seconds for stage in profile.stages)
    assert profile.images_per_second > 0
    assert profile.advice[0] == "Give stage 3 map (slow) num_parallel_calls=tf.data.AUTOTUNE: it runs on one core."
    assert profile.advice[-1].startswith("End the pipeline with prefetch(tf.data.AUTOTUNE)")
    table = str(profile)
    assert "Slowest: 3 map (slow)." in table
    assert all(stage.name in table for stage in profile.stages)
    with mpl.rc_context({"backend": "agg"}):
        axes = profile.plot()
    assert len(axes.patches) == 4


def test_a_tree_has_all_its_stages_and_the_dataset_keeps_its_place():
    x = np.zeros((20, 4, 4, 3), np.float32)
    layer = keras.layers.RandomBrightness(0.5, value_range=(-9, 9))
    dataset, untouched = (augment(arrays(x, np.arange(20), 4, seed=0), layer, seed=1) for _ in range(2))
    stages = profile_dataset(dataset, max_seconds=0.5).stages
    kinds = [stage.kind for stage in stages]
    assert {"range", "shuffle", "batch", "map"} <= set(kinds)
    assert not {"random", "zip"} & set(kinds)
    assert kinds[-1] == "augment"
    assert stages[-1].name == f"{len(stages)} augment: RandomBrightness"
    for ours, expected in zip(dataset, untouched, strict=True):
        np.testing.assert_array_equal(ours[1], expected[1])
        np.testing.assert_array_equal(ours[0], expected[0])


def advice_for(*kinds, slowest):
    return _advice(tuple(Stage(kind, kind.split(" (")[0], float(kind == slowest)) for kind in kinds))


@pytest.mark.parametrize(
    ("kinds", "slowest", "begins"),
    [
        (("range", "parallel map", "batch", "prefetch"), "parallel map", "If stage parallel map gives the same in"),
        (("flat map (flat_map_fn)", "prefetch"), "flat map (flat_map_fn)", "A Python generator runs on one core"),
        (("range", "map", "shuffle", "prefetch"), "shuffle", "Shuffle names or positions"),
        (("range", "map", "batch", "prefetch"), "batch", "Copying into batches costs most"),
        (("range", "batch"), "range", "End the pipeline with prefetch"),
    ],
)
def test_advice(kinds, slowest, begins):
    assert advice_for(*kinds, slowest=slowest)[0].startswith(begins)


def test_no_advice_where_there_is_nothing_to_say():
    assert advice_for("range", "parallel map", "cache", "prefetch", slowest="parallel map") == ()


def test_augmentation_is_not_told_to_be_cached():
    assert advice_for("range", "augment", "prefetch", slowest="augment") == ()


def test_a_table_of_stages_that_cost_nothing():
    profile = DatasetProfile(10.0, 5.0, (Stage("1 range", "range", 0.0),), ())
    assert "2.0 cores at work" in str(profile)


@pytest.mark.parametrize(
    ("dataset", "seconds", "error", "message"),
    [
        ([1, 2], 1, TypeError, "profile_dataset: argument `dataset` must be a tf.data.Dataset. Received: "),
        (tf.data.Dataset.range(0), 1, InputError, "profile_dataset: the dataset is empty. Give one that holds images"),
        (tf.data.Dataset.range(3), 0, InputError, "profile_dataset: argument `max_seconds` must be a finite number ab"),
    ],
)
def test_arguments(dataset, seconds, error, message):
    with pytest.raises(error, match="^" + message):
        profile_dataset(dataset, max_seconds=seconds)
