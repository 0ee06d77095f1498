import os
import sys

import keras
import pytest
import tensorflow as tf
from tensorflow.python.distribute.collective_all_reduce_strategy import CollectiveAllReduceExtended
from workers import assert_all_say, said

from keras_opt.core.errors import InputError
from keras_opt.distribute import keras_repairs
from keras_opt.distribute import strategy as make_strategy
from keras_opt.distribute.choice import Choice, choose
from keras_opt.distribute.cluster import Cluster

CLUSTER = Cluster(("a:1", "b:1"), 0, "TF_CONFIG")


@pytest.mark.parametrize(
    ("arguments", "choice"),
    [
        (("auto", None, 0, None), Choice("one", ("CPU:0",))),
        (("auto", None, 1, None), Choice("one", ("GPU:0",))),
        (("auto", None, 2, None), Choice("mirrored", ("GPU:0", "GPU:1"))),
        (("auto", 3, 2, None), Choice("mirrored", ("CPU:0", "CPU:1", "CPU:2"))),
        (("auto", None, 2, CLUSTER), Choice("multiworker", cluster=CLUSTER)),
        (("one", None, 2, CLUSTER), Choice("one", ("GPU:0",))),
        (("mirrored", None, 2, CLUSTER), Choice("mirrored", ("GPU:0", "GPU:1"))),
        (("mirrored", 2, 0, None), Choice("mirrored", ("CPU:0", "CPU:1"))),
        (("multiworker", None, 0, CLUSTER), Choice("multiworker", cluster=CLUSTER)),
    ],
)
def test_the_choice(arguments, choice):
    assert choose(*arguments) == choice


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (("multiworker", None, 4, None), "neither TF_CONFIG nor SLURM"),
        (("mirrored", None, 1, None), "there are 1 GPUs"),
        (("one", 2, 0, None), "None with name='one'"),
        (("multiworker", 2, 0, CLUSTER), "None with name='multiworker'"),
    ],
)
def test_what_there_is_nothing_for_is_refused(arguments, match):
    with pytest.raises(InputError, match=match):
        choose(*arguments)


def test_the_process_has_one_strategy(monkeypatch):
    monkeypatch.setattr(sys.modules["keras_opt.distribute.strategy"], "_made", None)
    try:
        monkeypatch.setenv("TF_CONFIG", "of parameter servers, which is none of its business")
        made = make_strategy("one")
        monkeypatch.delenv("TF_CONFIG")
        assert isinstance(made, tf.distribute.OneDeviceStrategy)
        assert make_strategy("one") is made
        assert make_strategy() is made  # on a machine without GPUs it means the same
        with pytest.raises(RuntimeError, match=r"already \(one on CPU:0\), .* \(mirrored on CPU:0, CPU:1\)"):
            make_strategy("mirrored", logical_cpus=2)
        with made.scope():
            model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
            model.compile("sgd", "mse", steps_per_execution=2)
        model.fit(tf.ones((5, 2)), tf.ones((5, 1)), batch_size=2, verbose=0)
    finally:
        keras_repairs.undo()


@pytest.mark.parametrize(("gpus", "taken"), [(0, ["CPU:0"]), (2, ["GPU:0", "GPU:1"])])
def test_workers_take_all_gpus_that_they_see(gpus, taken, monkeypatch):
    """TensorFlow asks the resolver how many there are; of one that does not say it takes the CPU, in silence."""
    asked = []
    monkeypatch.setenv("no_grpc_proxy", "")
    module = sys.modules["keras_opt.distribute.strategy"]
    monkeypatch.setattr(module, "_made", None)
    monkeypatch.setattr(module, "find_cluster", lambda: CLUSTER)
    monkeypatch.setattr(module.keras_repairs, "apply", lambda *_: None)
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: [kind] * gpus)
    monkeypatch.setattr(
        tf.distribute, "MultiWorkerMirroredStrategy", lambda cluster_resolver: asked.append(cluster_resolver)
    )
    make_strategy()
    devices, _ = CollectiveAllReduceExtended._initialize_local_devices(None, asked[0], "")
    assert [device.removeprefix("/device:") for device in devices] == taken


LOOPBACK = Cluster(("127.0.0.1:1", "127.0.0.1:2", "[::1]:1"), 0, "TF_CONFIG")


@pytest.mark.parametrize(("before", "after"), [("", "127.0.0.1,::1"), ("a,.b", "a,.b,127.0.0.1,::1")])
def test_workers_talk_past_a_proxy(before, after, monkeypatch):
    monkeypatch.setattr(os, "environ", {"no_proxy": before})
    seen = []
    monkeypatch.setattr(tf.distribute, "MultiWorkerMirroredStrategy", lambda cluster_resolver: seen.append(os.environ))
    sys.modules["keras_opt.distribute.strategy"]._make(Choice("multiworker", cluster=LOOPBACK), 0)
    assert seen == [{"no_proxy": before, "no_grpc_proxy": after}]


@pytest.mark.parametrize("name", ["auto", "mirrored"])
def test_who_asks_for_less_gets_what_the_process_has(name, mirrored):
    assert make_strategy(name) is mirrored
    assert make_strategy(logical_cpus=2) is mirrored
    with pytest.raises(RuntimeError, match="has a strategy already"):
        make_strategy("one")


def test_a_cpu_cannot_be_split_once_tensorflow_has_started(monkeypatch):
    monkeypatch.setattr(sys.modules["keras_opt.distribute.strategy"], "_made", None)
    tf.ones(()).numpy()
    with pytest.raises(RuntimeError, match=r"TensorFlow has started already.*Call strategy\(logical_cpus=3\) before"):
        make_strategy(logical_cpus=3)


LATE = """
import tensorflow as tf
tf.ones(())
from keras_opt.distribute import strategy
try:
    strategy()
except RuntimeError as error:
    print("LATE", error)
"""


@pytest.mark.full
def test_workers_cannot_meet_once_tensorflow_has_started(tmp_path):
    outputs = said(LATE, folder=tmp_path, seconds=60)
    assert_all_say(outputs, "LATE strategy: TensorFlow has started already")
