"""The variables of a plugin: made, saved, and loaded before and after they are made."""

import numpy as np
import pytest
import tensorflow as tf

from keras_opt.training.plugin_state import PluginState


def test_what_is_loaded_waits_for_its_variable():
    state = PluginState()
    state.load_state_dict({"count": [np.array(7)], "sums": [np.array([1.0, 2.0])]})
    count = state.variable("count", 0, tf.int64)
    assert int(count.numpy()) == 7
    assert state.value("sums", None).tolist() == [1.0, 2.0]
    assert {name: len(values) for name, values in state.state_dict().items()} == {"count": 1, "sums": 1}
    sums = state.variable("sums", np.zeros(2))
    assert sums.numpy().tolist() == [1.0, 2.0]


def test_what_is_loaded_later_is_assigned_and_a_second_time_makes_no_difference():
    state = PluginState()
    count = state.variable("count", 3, tf.int64)
    for _ in range(2):
        state.load_state_dict({"count": [np.array(5)]})
        assert state.value("count", 0) == int(count.numpy()) == 5


def test_a_value_is_the_default_until_there_is_one():
    state = PluginState()
    assert state.value("count", 4) == 4
    state.variable("count", 1, tf.int64)
    assert state.value("count", 4) == 1


def test_a_variable_that_is_made_anew_takes_the_place_of_the_old_one():
    state = PluginState()
    state.load_state_dict({"count": [np.array(7)]})
    state.variable("count", 0, tf.int64)
    state.variable("count", 1, tf.int64)
    assert state.value("count", 0) == 1


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64", "int64"])
def test_values_keep_their_type_and_are_arrays(dtype):
    state, other = PluginState(), PluginState()
    state.variable("number", tf.cast(3, dtype))
    [value] = state.state_dict()["number"]
    assert type(value) is np.ndarray
    assert value.dtype == tf.as_dtype(dtype).as_numpy_dtype
    other.load_state_dict(state.state_dict())
    assert float(other.variable("number", tf.cast(0, dtype)).numpy()) == 3


def test_a_state_does_not_change_with_the_variable():
    state = PluginState()
    sums = state.variable("sums", np.zeros(2))
    taken = state.state_dict()
    sums.assign_add([1.0, 1.0])
    sums.scatter_nd_add([[0]], [1.0])
    assert taken["sums"][0].tolist() == [0.0, 0.0]


def test_every_replica_has_its_own_value(two_replicas):
    state, other = PluginState(), PluginState()
    with two_replicas.scope():
        sums = state.variable("sums", 0.0)

    def add():
        sums.assign_add(1.0 + tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group, tf.float32))

    two_replicas.run(tf.function(add))
    taken = state.state_dict()
    assert [float(value) for value in taken["sums"]] == [1.0, 2.0]
    other.load_state_dict(taken)
    with two_replicas.scope():
        other.variable("sums", 0.0)
    assert [float(value) for value in other.state_dict()["sums"]] == [1.0, 2.0]


def test_a_state_of_another_number_of_replicas_is_refused():
    state = PluginState()
    state.load_state_dict({"sums": [np.array(1.0), np.array(2.0)]})
    with pytest.raises(ValueError, match="2 replicas"):
        state.variable("sums", 0.0)
