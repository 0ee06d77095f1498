"""Values come back bit for bit, on every replica."""

import keras
import numpy as np
import tensorflow as tf

from keras_opt.core.variable_values import put_values_back, values_of


def test_values_of_every_kind_come_back():
    kinds = [("float32", [0.1, np.nan]), ("bfloat16", [1.5, -0.0]), ("int64", [2**40, -1]), ("bool", [True, False])]
    variables = [keras.Variable(np.array(value), dtype=kind) for kind, value in kinds]
    before = [variable.numpy().tobytes() for variable in variables]
    strategy = tf.distribute.get_strategy()
    values = values_of(variables, strategy)
    for _ in range(2):
        for variable in variables:
            variable.assign(keras.ops.zeros_like(variable))
        put_values_back(variables, strategy, values)
        assert [variable.numpy().tobytes() for variable in variables] == before


def test_replicas_that_differ_still_differ(two_replicas):
    with two_replicas.scope():
        variable = keras.layers.BatchNormalization()
        variable.build((None, 1))
    mean = variable.moving_mean
    copies = two_replicas.experimental_local_results(mean.value)
    for number, copy in enumerate(copies, start=1):
        copy.assign([number])
    values = values_of([mean], two_replicas)
    mean.assign([7.0])
    put_values_back([mean], two_replicas, values)
    assert [float(copy[0]) for copy in copies] == [1.0, 2.0]
