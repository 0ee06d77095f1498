"""The ring buffer, driven by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_opt.training.norm_recorder import NormRecorder


def variable(*shape, path="layer/kernel", dtype="float32"):
    made = keras.Variable(np.ones(shape), dtype=dtype)
    made._path = path
    return made


def record(recorder, *values, variables=None):
    """One update for each value, which all elements of the gradients are."""
    if variables is None:
        variables = [variable(1)]
    if recorder._ring is None:
        recorder.build(variables)
    for value in values:
        recorder.on_gradients([tf.fill(v.shape, tf.cast(value, v.dtype)) for v in variables], variables)
        recorder.after_update(variables)


def test_rows_come_out_once_oldest_first_with_their_numbers():
    recorder = NormRecorder(every=2, capacity=4)
    assert recorder.read() == []
    record(recorder, 1.0, 2.0, 3.0)
    [recorded] = recorder.read()
    assert recorded.step.tolist() == [0, 2]
    assert recorded.layers == ("layer",)
    np.testing.assert_allclose(recorded.norms, [[1.0], [3.0]])
    assert recorder.read() == []
    record(recorder, 4.0, 5.0)
    [recorded] = recorder.read()
    assert recorded.step.tolist() == [4]
    np.testing.assert_allclose(recorded.global_norm, [5.0])


def test_an_overfull_ring_keeps_the_newest_and_their_numbers_show_the_gap():
    recorder = NormRecorder(every=1, capacity=3)
    record(recorder, *range(5))
    [recorded] = recorder.read()
    assert recorded.step.tolist() == [2, 3, 4]
    np.testing.assert_allclose(recorded.global_norm, [2.0, 3.0, 4.0])


def test_variables_of_a_layer_are_one_column_and_a_variable_of_no_layer_its_own():
    recorder = NormRecorder(every=1, capacity=3)
    variables = [variable(4, path="net/a/kernel"), variable(9, path="scale"), variable(5, path="net/a/bias")]
    record(recorder, 2.0, variables=variables)
    [recorded] = recorder.read()
    assert recorded.layers == ("net/a", "scale")
    np.testing.assert_allclose(recorded.norms, [[6.0, 6.0]])
    np.testing.assert_allclose(recorded.global_norm, [np.sqrt(72.0)])


@pytest.mark.parametrize("per_layer", [True, False])
def test_ratios_are_those_of_the_change_to_the_weight_before_it(per_layer):
    recorder = NormRecorder(every=1, capacity=3, per_layer=per_layer, ratios=True)
    first, second = variable(4, path="a/kernel"), variable(12, path="b/kernel")
    recorder.build([first, second])
    recorder.on_gradients([tf.ones(4), tf.zeros(12)], [first, second])
    first.assign(first + 0.5)
    recorder.after_update([first, second])
    [recorded] = recorder.read()
    np.testing.assert_allclose(recorded.global_ratio, [0.25])
    np.testing.assert_allclose(recorded.ratios, [[0.5, 0.0]] if per_layer else np.zeros((1, 0)))


def test_repeated_ids_count_as_the_hub_has_summed_them():
    recorder = NormRecorder(every=1, capacity=2)
    slices = tf.IndexedSlices(tf.constant([[3.0, 4.0], [0.0, 0.0], [5.0, 0.0]]), tf.constant([3, 3, 1]), (9, 2))
    recorder.build([variable(9, 2)])
    recorder.on_gradients([slices], [variable(9, 2)])
    np.testing.assert_allclose(recorder.read()[0].norms, [[np.sqrt(50.0)]])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_stays_so_in_its_layer_alone(value):
    recorder = NormRecorder(every=1, capacity=2)
    variables = [variable(1, path="a/kernel"), variable(1, path="b/kernel")]
    recorder.build(variables)
    recorder.on_gradients([tf.constant([value]), tf.constant([2.0])], variables)
    [recorded] = recorder.read()
    np.testing.assert_array_equal(recorded.norms[0], np.array([value, 2.0], "float32"))
    np.testing.assert_array_equal(recorded.global_norm, np.array([value], "float32"))


@pytest.mark.parametrize("per_layer", [True, False])
@pytest.mark.parametrize("value", [1e25, 1e-25])
def test_a_norm_whose_square_is_lost_is_recorded(value, per_layer):
    recorder = NormRecorder(every=1, capacity=2, per_layer=per_layer)
    record(recorder, value, variables=[variable(4, path="a/kernel"), variable(5, path="a/bias")])
    [recorded] = recorder.read()
    np.testing.assert_allclose(recorded.global_norm, [3 * value], rtol=1e-6)
    np.testing.assert_allclose(recorded.norms, [[3 * value]] if per_layer else np.zeros((1, 0)), rtol=1e-6)


def test_weights_that_are_all_zero_have_an_infinite_ratio_or_none():
    recorder = NormRecorder(every=1, capacity=2, ratios=True)
    zero = variable(1)
    zero.assign([0.0])
    recorder.build([zero])
    for change in (0.0, 1.0):
        recorder.on_gradients([tf.ones(1)], [zero])
        zero.assign_add([change])
        recorder.after_update([zero])
    np.testing.assert_array_equal(recorder.read()[0].global_ratio, [np.nan, np.inf])


@pytest.mark.parametrize(("dtype", "kept"), [("float16", "float32"), ("float32", "float32"), ("float64", "float64")])
def test_norms_are_of_the_variables_kind_and_at_least_float32(dtype, kept):
    recorder = NormRecorder(every=1, capacity=2)
    record(recorder, 300.0, variables=[variable(4, dtype=dtype)])  # its square is beyond float16
    [recorded] = recorder.read()
    assert recorded.norms.dtype == recorded.global_norm.dtype == kept
    np.testing.assert_allclose(recorded.norms, [[600.0]])


def test_other_variables_in_the_middle_lose_no_row_and_the_numbers_go_on():
    recorder = NormRecorder(every=2, capacity=4)
    record(recorder, 1.0, 2.0, 3.0)
    both = [variable(1, path="layer/kernel"), variable(1, path="thawed/kernel")]
    recorder.build(both)
    record(recorder, 4.0, 5.0, variables=both)
    first, second = recorder.read()
    assert (first.step.tolist(), first.layers) == ([0, 2], ("layer",))
    assert (second.step.tolist(), second.layers) == ([4], ("layer", "thawed"))
    np.testing.assert_allclose(second.norms, [[5.0, 5.0]])
    assert recorder.read() == []


def test_a_resumed_recorder_counts_on_whatever_variables_are_trained_by_then():
    recorder, resumed = NormRecorder(every=2, capacity=4), NormRecorder(every=2, capacity=4)
    record(recorder, 1.0, 2.0, 3.0)
    recorder.read()
    for _ in range(2):
        resumed.load_state_dict(recorder.state_dict())
        assert resumed.read() == []
    record(resumed, 4.0, 5.0, variables=[variable(1, path="layer/kernel"), variable(1, path="thawed/kernel")])
    [recorded] = resumed.read()
    assert (recorded.step.tolist(), recorded.layers) == ([4], ("layer", "thawed"))
    np.testing.assert_allclose(recorded.norms, [[5.0, 5.0]])
