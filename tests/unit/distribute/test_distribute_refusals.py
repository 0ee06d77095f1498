"""Every refusal stands beside the crash, or the wrong weights, that it keeps from the user."""

import contextlib
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from workers import assert_all_say, said

from keras_opt.core.errors import InputError
from keras_opt.distribute import keras_repairs, refusals
from keras_opt.distribute import strategy as make_strategy

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(16, 4)).astype("float32"), RNG.normal(size=(16, 3)).astype("float32")


def fitted(strategy=None, optimizer=lambda: keras.optimizers.SGD(0.1), **settings):
    keras.utils.set_random_seed(0)
    with contextlib.nullcontext() if strategy is None else strategy.scope():
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        model.compile(optimizer(), "mse", **settings)
    model.fit(X, Y, batch_size=4, shuffle=False, verbose=0)
    return model


def refused(match, strategy, *arguments, **settings):
    with pytest.raises(InputError, match=match) as caught:
        fitted(strategy, *arguments, **settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("setting", "callback"),
    [
        ({"clipvalue": 0.05}, "GradientClipping"),
        ({"clipnorm": 0.1}, "GradientClipping"),
        ({"global_clipnorm": 0.1}, "GradientClipping"),
    ],
    ids=["clipvalue", "clipnorm", "global_clipnorm"],
)
def test_clipping_in_compile_gives_other_weights_and_is_refused(setting, callback, our_replicas):
    def optimizer():
        return keras.optimizers.SGD(0.1, **setting)

    refused(f"{next(iter(setting))}=.* clips each replica's share .*{callback}", our_replicas, optimizer)
    keras_repairs.undo()
    one, two = (fitted(strategy, optimizer).get_weights()[0] for strategy in (None, our_replicas))
    assert np.linalg.norm(two - one) > 1e-2 * np.linalg.norm(one)


@pytest.mark.parametrize(
    ("setting", "callback"),
    [
        ({"gradient_accumulation_steps": 2}, "GradientAccumulation"),
        ({"use_ema": True, "ema_overwrite_frequency": 2}, "WeightAveraging"),
    ],
    ids=["accumulation", "averaging"],
)
def test_what_crashes_in_the_optimizer_is_refused(setting, callback, our_replicas):
    def optimizer():
        return keras.optimizers.SGD(0.1, **setting)

    refused(f"{list(setting)[-1]}=2 .* crashes in Keras .*{callback}", our_replicas, optimizer)
    keras_repairs.undo()
    with pytest.raises(RuntimeError, match="merge_call"):
        fitted(our_replicas, optimizer)


def test_a_clipping_optimizer_within_a_loss_scale_optimizer_is_refused(our_replicas):
    def optimizer():
        return keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1, clipnorm=1.0))

    refused("clipnorm=1.0", our_replicas, optimizer)


def test_jit_compile_crashes_and_is_refused(our_replicas):
    refused("jit_compile=True", our_replicas, jit_compile=True)
    keras_repairs.undo()
    with pytest.raises(tf.errors.InvalidArgumentError):
        fitted(our_replicas, jit_compile=True)


def test_a_sum_over_a_batch_that_each_replica_has_whole_is_as_many_times_too_large_and_is_refused(our_replicas):
    def trained(strategy):
        keras.utils.set_random_seed(0)
        with contextlib.nullcontext() if strategy is None else strategy.scope():
            model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
            model.compile("sgd", keras.losses.MeanSquaredError(reduction="sum"), run_eagerly=True)
        return model.train_on_batch(X, Y)

    with pytest.raises(InputError, match="train_on_batch and test_on_batch give each replica the whole batch"):
        trained(our_replicas)
    keras_repairs.undo()
    np.testing.assert_allclose(trained(our_replicas), 2 * trained(None), rtol=1e-5)


def test_an_optimizer_from_outside_of_the_scope_counts_every_replica_and_is_refused(our_replicas):
    optimizer = keras.optimizers.SGD(0.1)
    refused("of the optimizer of model .* was made outside", our_replicas, lambda: optimizer)
    keras_repairs.undo()
    fitted(our_replicas, lambda: optimizer)
    assert int(optimizer.iterations) == 8  # in four steps


def test_a_keras_distribution_does_nothing_and_is_refused():
    try:
        keras.distribution.set_distribution(keras.distribution.DataParallel(devices=["cpu:0", "cpu:1"]))
        model = fitted()
        assert model.distribute_strategy.num_replicas_in_sync == 1
        assert len({weight.value.device for weight in model.weights}) == 1
        for check in (lambda: refusals.check_model(model), make_strategy):
            with pytest.raises(InputError, match="DataParallel is set, which does nothing"):
                check()
    finally:
        keras.distribution.set_distribution(None)


@pytest.mark.parametrize("name", ["central_storage", "parameter_server", "tpu"])
def test_other_strategies_are_refused_by_name(name):
    with pytest.raises(InputError, match=f"name='{name}' is not supported: .*Use keras_opt.distribute.strategy"):
        make_strategy(name)


OTHERS = """
import sys
import tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
import keras, numpy as np
from keras_opt.distribute.refusals import check_model

def fit(strategy):
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        model.compile("sgd", "mse")
    model.distribute_strategy is strategy and say(model)
    return model.fit(np.ones((8, 4)), np.arange(24.0).reshape(8, 3), batch_size=4, shuffle=False, verbose=0).history

def say(model):
    try:
        check_model(model)
    except ValueError as error:
        print("REFUSED", error)

if sys.argv[1] == "central_storage":
    one = fit(tf.distribute.get_strategy())["loss"][0]
    central = fit(tf.distribute.experimental.CentralStorageStrategy(["CPU:0", "CPU:1"]))["loss"][0]
    print("WRONG", abs(central - one) > 0.01 * one)
else:
    from workers import free_ports
    ports = free_ports(2)
    cluster = tf.train.ClusterSpec({kind: [f"localhost:{port}"] for kind, port in zip(("worker", "ps"), ports)})
    servers = [tf.distribute.Server(cluster, job_name=kind, protocol="grpc") for kind in ("worker", "ps")]
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(cluster, rpc_layer="grpc")
    try:
        fit(tf.distribute.ParameterServerStrategy(resolver))
    except Exception as error:
        print("WRONG", True, type(error).__name__, str(error)[:200])
"""


@pytest.mark.full
@pytest.mark.parametrize("name", ["central_storage", "parameter_server"])
def test_other_strategies_train_wrong_or_not_at_all_and_are_refused(name, tmp_path):
    (output,) = said(OTHERS, name, count=0, folder=tmp_path, seconds=100)
    assert re.search("^WRONG True", output, re.MULTILINE), output
    assert re.search(f"^REFUSED strategy: model .*{name}", output, re.MULTILINE), output


SEEDS = """
import random
import keras, numpy as np
from keras_opt.distribute import keras_repairs, strategy
from keras_opt.distribute.cluster import find_cluster

made = strategy()
with made.scope():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, kernel_initializer="ones")])
    model.compile(keras.optimizers.SGD(0.0), "mse")
x = np.arange(16.0).reshape(16, 1)

class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 4

    def __getitem__(self, number):
        return x[4 * number : 4 * number + 4], np.zeros((4, 1))

def loss(seed):
    if seed is not None:
        keras.utils.set_random_seed(seed)
    return model.fit(x, 0 * x, batch_size=4, verbose=0).history["loss"][0]

for seed in (None, find_cluster().index):
    try:
        loss(seed)
    except ValueError as error:
        print("REFUSED", error)
try:
    rows = 16 - 4 * find_cluster().index
    model.evaluate(x[:rows], x[:rows], batch_size=4, verbose=0)
except ValueError as error:
    print("REFUSED", error)
print("SAME", abs(loss(1) - np.mean(x**2)) < 1e-3)
random.seed(find_cluster().index)
try:
    model.fit(Batches(), verbose=0)
except ValueError as error:
    print("REFUSED", error)
keras_repairs.apply(made, lambda beginning: beginning.dataset)
print("WRONG", abs(loss(find_cluster().index) - np.mean(x**2)) > 1)
"""


@pytest.mark.full
def test_workers_of_different_seeds_train_on_some_rows_twice_and_of_different_data_crash_and_are_refused(tmp_path):
    outputs = said(SEEDS, folder=tmp_path, seconds=150)
    refusals = ("[None, None]. Call", "[0, 1]. Call", "[4, 3]. Give", "[1, 1]. Call")
    assert_all_say(outputs, *refusals, "SAME True", "WRONG True")


METRICS = """
import keras, numpy as np
from keras_opt.distribute import keras_repairs, strategy

made = strategy()
keras.utils.set_random_seed(1)
x = np.ones((16, 1))

def counted(make):
    outside = make()
    with made.scope():
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        model.compile(keras.optimizers.SGD(0.0), "mse", metrics=[outside or keras.metrics.FalseNegatives(name="count")])
    model.set_weights([np.zeros((1, 1)), np.zeros(1)])
    return model.fit(x, x, batch_size=4, verbose=0).history["count"]

print("SAME", counted(lambda: None) == [16.0])
try:
    counted(lambda: keras.metrics.FalseNegatives(name="count"))
except ValueError as error:
    print("REFUSED", error)
keras_repairs.check_metrics = lambda model: None
print("WRONG", counted(lambda: keras.metrics.FalseNegatives(name="count")))
"""


@pytest.mark.full
def test_workers_count_their_own_rows_in_a_metric_from_outside_of_the_scope_and_are_refused(tmp_path):
    outputs = said(METRICS, folder=tmp_path, seconds=150)
    assert_all_say(outputs, "SAME True", "of the metrics of model 'sequential_1' was made outside", "WRONG [8.0]")
