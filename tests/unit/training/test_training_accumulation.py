"""Micro-batches added up by the plugin itself, without a model."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_opt.training.accumulation import GradientAccumulator, check_unregularized


def accumulator(reduction="sum_over_batch_size", steps=3, dtype="float32", rows=2):
    variable = keras.Variable(np.zeros((rows,)), dtype=dtype)
    made = GradientAccumulator(reduction, steps)
    made.build([variable])
    return made, [variable]


def batch(samples, weights=None):
    x, y = tf.zeros((samples, 3)), tf.zeros((samples, 1))
    return (x, y) if weights is None else (x, y, tf.constant(weights))


def gather(made, variables, gradients, batches):
    return [
        bool(made.merge([tf.constant(gradient, variables[0].dtype)], variables, data))
        for gradient, data in zip(gradients, batches, strict=True)
    ]


def test_an_update_is_due_after_the_wanted_steps():
    made, variables = accumulator(steps=3)
    assert gather(made, variables, [[1.0, 0.0]] * 3, [batch(4)] * 3) == [False, False, True]


def test_a_mean_weighs_by_samples():
    made, variables = accumulator()
    gather(made, variables, [[1.0, 0.0], [0.0, 4.0]], [batch(3), batch(1)])
    assert np.array_equal(made.take()[0], [0.75, 1.0])


def test_a_sum_weighs_by_one():
    made, variables = accumulator("sum")
    gather(made, variables, [[1.0, 0.0], [0.0, 4.0]], [batch(3), batch(1)])
    assert np.array_equal(made.take()[0], [1.0, 4.0])


def test_a_mean_with_sample_weights_weighs_by_their_sum():
    made, variables = accumulator("mean_with_sample_weight")
    gather(made, variables, [[1.0, 0.0], [0.0, 4.0]], [batch(2, [2.0, 4.0]), batch(2, [0.5, 1.5])])
    assert np.array_equal(made.take()[0], [0.75, 1.0])


def test_sample_weights_of_zero_give_no_gradient():
    made, variables = accumulator("mean_with_sample_weight")
    gather(made, variables, [[1.0, 2.0]], [batch(2, [0.0, 0.0])])
    assert np.array_equal(made.take()[0], [0.0, 0.0])


def test_sample_weights_of_each_output_are_refused():
    made, variables = accumulator("mean_with_sample_weight")
    data = (tf.zeros((2, 3)), [tf.zeros((2, 1))] * 2, [tf.ones(2)] * 2)
    with pytest.raises(ValueError, match="each output has sample weights"):
        made.merge([tf.zeros(2)], variables, data)


def test_samples_are_counted_in_the_first_input_that_is_there():
    made, variables = accumulator()
    data = ({"absent": None, "image": tf.zeros((5, 2))}, tf.zeros((5, 1)))
    made.merge([tf.ones(2)], variables, data)
    made.merge([tf.zeros(2)], variables, ({"absent": None, "image": tf.zeros((15, 2))}, tf.zeros((15, 1))))
    assert np.array_equal(made.take()[0], [0.25, 0.25])


def test_what_was_taken_is_forgotten():
    made, variables = accumulator(steps=1)
    assert not made.is_pending()
    for gradient in ([1.0, 2.0], [3.0, 4.0]):
        assert gather(made, variables, [gradient], [batch(2)]) == [True]
        assert made.is_pending()
        assert np.array_equal(made.take()[0], gradient)
        assert not made.is_pending()


def test_new_steps_hold_at_once():
    made, variables = accumulator(steps=4)
    made.set_steps(2)
    assert gather(made, variables, [[1.0, 0.0]] * 2, [batch(4)] * 2) == [False, True]


def test_steps_set_before_the_variables_are_known():
    made = GradientAccumulator("sum")
    made.set_steps(2)
    assert not made.is_pending()
    variables = [keras.Variable(np.zeros(2))]
    made.build(variables)
    assert gather(made, variables, [[1.0, 0.0]] * 2, [batch(4)] * 2) == [False, True]


def test_repeated_rows_of_an_embedding_add_up():
    made, variables = accumulator(rows=3)
    made.merge([tf.IndexedSlices(tf.constant([1.0, 2.0, 4.0]), tf.constant([2, 0, 2]), (3,))], variables, batch(2))
    assert np.array_equal(made.take()[0], [2.0, 0.0, 5.0])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_sums_neither_overflow_nor_stall(dtype):
    made, variables = accumulator(steps=100, dtype=dtype)
    gather(made, variables, [[1.0, 1000.0]] * 100, [batch(100)] * 100)
    (taken,) = made.take()
    assert taken.dtype == dtype
    assert np.array_equal(tf.cast(taken, "float32"), [1.0, 1000.0])


def test_a_sum_beside_a_regularizer_is_refused():
    plain, regularized = keras.Variable(np.zeros(2)), keras.Variable(np.zeros(2), name="kernel")
    regularized.regularizer = keras.regularizers.L2(0.1)
    check_unregularized([plain])
    with pytest.raises(ValueError, match="'kernel' has a regularizer"):
        check_unregularized([plain, regularized])
    with pytest.raises(ValueError, match="'kernel' has a regularizer"):
        GradientAccumulator("sum").build([regularized])
    GradientAccumulator("sum_over_batch_size").build([regularized])
