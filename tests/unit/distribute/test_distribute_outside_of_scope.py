"""Models from outside of the scope of the process's strategy: half of one is refused, a whole one trains by itself."""

import contextlib
import re
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from workers import assert_all_say, said

from keras_opt.core.errors import InputError
from keras_opt.distribute import preflight

RANDOM = np.random.default_rng(0)
X, Y = RANDOM.normal(size=(4, 3)).astype("float32"), RANDOM.uniform(size=(4, 2)).astype("float32")


class Replicas(keras.layers.Layer):
    """Notes how many replicas run each step."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def call(self, x):
        context = tf.distribute.get_replica_context()
        if context is not None and not isinstance(x, keras.KerasTensor):
            self.seen.add(context.num_replicas_in_sync)
        return x


def watched(*scopes):
    """A model whose weights are made in the first scope, itself in the second, and compiled in the third."""
    weights, own, compiled = scopes
    with weights:
        inner = keras.Sequential([keras.Input((3,)), Replicas(), keras.layers.Dense(2)])
    with own:
        inputs = keras.Input((3,))
        model = keras.Model(inputs, inner(inputs))
    with compiled:
        model.compile(keras.optimizers.SGD(0.1), "mse", run_eagerly=True)
    return model, inner.layers[0]


def outside():
    return contextlib.nullcontext()


def test_a_model_from_outside_of_the_scope_trains_on_one_replica_and_says_so(our_replicas):
    scope = our_replicas.scope
    model, replicas = watched(scope(), scope(), scope())
    model.fit(X, Y, verbose=0)
    assert replicas.seen == {2}
    model, replicas = watched(outside(), outside(), outside())
    (finding,) = preflight(model)
    assert (finding.name, finding.severity) == ("scope", "warning")
    message = "was made outside of the scope of the process's strategy: it trains on one device alone"
    with pytest.warns(UserWarning, match=f"preflight: model {model.name!r} {message}.*unless it is meant so") as told:
        model.fit(X, Y, verbose=0)
    assert told[0].filename == __file__
    assert replicas.seen == {1}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.train_on_batch(X, Y)  # it has been said


OUTSIDE = """
import keras, numpy as np
from keras_opt.distribute import strategy
from keras_opt.distribute.cluster import find_cluster

made = strategy()
x = np.ones((8, 3), "float32")

def fitted():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(x, x[:, :1], batch_size=4, verbose=0)
    return repr(model.get_weights()[0].ravel().tolist())

keras.utils.set_random_seed(1)
with made.scope():
    print("INSIDE", fitted())
keras.utils.set_random_seed(find_cluster().index)  # as without any
print("OUTSIDE", fitted())
"""


@pytest.mark.full
def test_workers_train_models_from_outside_of_the_scope_each_by_itself_and_say_so(tmp_path):
    outputs = said(OUTSIDE, folder=tmp_path, seconds=300)
    assert_all_say(outputs, "each of the 2 workers trains one of its own, on all rows, and writes all files")
    ends = [dict(re.findall(r"^(INSIDE|OUTSIDE) (.*)$", output, re.MULTILINE)) for output in outputs]
    assert ends[0]["INSIDE"] == ends[1]["INSIDE"]
    assert ends[0]["OUTSIDE"] != ends[1]["OUTSIDE"]


@pytest.mark.parametrize("scopes", ["in out out", "out in in", "out out in"])
def test_a_model_made_half_in_the_scope_crashes_and_is_refused(scopes, our_replicas, monkeypatch):
    made = [our_replicas.scope() if place == "in" else outside() for place in scopes.split()]
    model, _ = watched(*made)
    with pytest.raises(InputError, match=r"made (in the strategy's scope and|outside of the strategy's sc)") as caught:
        model.fit(X, Y, verbose=0)
    assert "\n" not in str(caught.value)
    assert [finding.severity for finding in preflight(model)].count("refusal") == 1
    monkeypatch.setattr("keras_opt.distribute.begin.check_model", lambda *_: None)
    monkeypatch.setattr("keras_opt.distribute.keras_repairs.check_outside", lambda _: None)
    with pytest.raises((AssertionError, RuntimeError, TypeError, ValueError)):
        model.fit(X, Y, verbose=0)


def test_what_rightly_stands_outside_of_the_scope_is_let_be(our_replicas):
    teacher, _ = watched(outside(), outside(), outside())
    teacher.trainable = False
    with our_replicas.scope():
        student = keras.Sequential([keras.Input((3,)), teacher, keras.layers.Dense(2)])
        student.compile("sgd", "mse", run_eagerly=True)
        clipping = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        clipping.compile(keras.optimizers.SGD(clipnorm=1.0), "mse", run_eagerly=True)
    alone, _ = watched(outside(), outside(), outside())
    with tf.distribute.OneDeviceStrategy("CPU:0").scope():
        other = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        other.compile("sgd", "mse", run_eagerly=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        student.fit(X, Y, verbose=0)
        other.fit(X, Y, verbose=0)
        teacher.predict(X, verbose=0)
        clipping.evaluate(X, Y, verbose=0)
        here = alone.evaluate(X, Y, verbose=0)
        with our_replicas.scope():
            np.testing.assert_allclose(alone.evaluate(X, Y, verbose=0), here, rtol=1e-6)
