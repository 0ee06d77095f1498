"""Settings for every test: a quiet, CPU-only TensorFlow, one thread a worker, and a fixed seed."""

import gc
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")

import keras
import pytest
import tensorflow as tf
from tensorflow.python.framework import ops

from keras_opt.distribute import keras_repairs
from keras_opt.distribute.begin import begin
from keras_opt.distribute.choice import Choice

# Two logical CPUs stand for two devices. TensorFlow wants to know before it starts.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)


def pytest_addoption(parser):
    parser.addoption("--full", action="store_true", help="run the repeated tests at their full count")


def pytest_collection_modifyitems(config, items):
    """Leave out what is marked `full`, unless asked for."""
    if config.getoption("full"):
        return
    kept, left_out = [], []
    for item in items:
        (left_out if item.get_closest_marker("full") else kept).append(item)
    config.hook.pytest_deselected(items=left_out)
    items[:] = kept


@pytest.fixture(autouse=True)
def _seed():
    keras.utils.set_random_seed(0)


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture(autouse=True)
def _forget_gradients():
    """Let go of the graphs that TensorFlow (2.21) keeps for ever.

    Of every training step that Keras traces, a table of gradients holds the graph: 2 MB a fit, gigabytes in all, and
    a collection of garbage that walks through them can take a minute.
    """
    table = getattr(ops.gradient_registry, "_registry", {})
    before = set(table)
    yield
    for name in [name for name in table if name.startswith("CustomGradient-") and name not in before]:
        del table[name]


@pytest.fixture(autouse=True, scope="module")
def _freeze():
    """Let no later collection of garbage walk through what a module leaves alive."""
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture
def collect_garbage():
    """`gc.collect` for what the test made; what earlier tests left would take seconds to go through."""
    gc.freeze()
    return gc.collect


@pytest.fixture(scope="session")
def two_replicas():
    """A MirroredStrategy over two CPUs: one for all tests, since a second one in a process breaks the first."""
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


@pytest.fixture
def our_replicas(two_replicas):
    """`two_replicas` as `keras_opt.distribute.strategy(logical_cpus=2)` gives it: Keras is repaired under it."""
    keras_repairs.apply(two_replicas, begin)
    yield two_replicas
    keras_repairs.undo()


@pytest.fixture
def mirrored(our_replicas, monkeypatch):
    """`our_replicas` as what the process has: `keras_opt.distribute.strategy("mirrored")` gives it."""
    choice = Choice("mirrored", ("CPU:0", "CPU:1"))
    monkeypatch.setattr(sys.modules["keras_opt.distribute.strategy"], "_made", (choice, our_replicas))
    return our_replicas


def pytest_sessionfinish(session):
    """In CI a test may be skipped for want of a browser, a GPU or the right to mount; `[test]` holds all the rest."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or not os.environ.get("CI"):
        return
    reasons = [report.longrepr[-1] for report in reporter.stats.get("skipped", ())]
    allowed = ("chromium", "gpu", "mount")
    unexpected = [reason for reason in reasons if not any(word in reason.lower() for word in allowed)]
    if unexpected:
        reporter.write_line(f"Skipped in CI: {unexpected}", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
