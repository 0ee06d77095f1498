"""GradientMonitor's series against an eager loop with a GradientTape: float64 to 1e-10, float32 to 1e-5.

Each case compares the global norms, the norms by layer and the update ratios of every update.
"""

import contextlib
import functools
import re
import zipfile

import keras
import numpy as np
import oracle_models as oracle
import pytest
import tensorflow as tf
from full_rows import few, full

from keras_opt.callbacks import GradientMonitor

pytestmark = pytest.mark.filterwarnings("ignore:Gradients do not exist")

FLOAT64, FLOAT32, HALF = 1e-10, 1e-5, 2e-3
MODES = {
    "plain": {},
    "steps_per_execution 8": {"steps_per_execution": 8},
    "jit": {"jit_compile": True},
    "eager": {"run_eagerly": True},
    "two replicas": {},
}


def multi():
    optimizers = keras.optimizers.OptimizerMap(keras.optimizers.SGD(0.05))
    optimizers["hidden/.*"] = keras.optimizers.Adam(0.01)
    return keras.optimizers.MultiOptimizer(optimizers)


OPTIMIZERS = {
    "Adam": functools.partial(keras.optimizers.Adam, 0.01),
    "AdamW": functools.partial(keras.optimizers.AdamW, 0.01, weight_decay=0.1),
    "SGD momentum": functools.partial(keras.optimizers.SGD, 0.05, momentum=0.9, nesterov=True),
    "RMSprop": functools.partial(keras.optimizers.RMSprop, 0.01),
    "Lion": functools.partial(keras.optimizers.Lion, 0.01),
    "MultiOptimizer": multi,
    "clipvalue": functools.partial(keras.optimizers.SGD, 0.05, clipvalue=0.01),
    "clipnorm": functools.partial(keras.optimizers.SGD, 0.05, clipnorm=0.01),
    "global_clipnorm": functools.partial(keras.optimizers.SGD, 0.05, global_clipnorm=0.01),
    "use_ema": functools.partial(keras.optimizers.Adam, 0.01, use_ema=True, ema_momentum=0.9),
}


def norms_by_layer(variables, values):
    """Of each layer, in the order of its first variable: the L2 norm over its variables that have a value."""
    layers = {}
    for variable, value in zip(variables, values, strict=True):
        if value is not None:
            layer = variable.path.rsplit("/", 1)[0]
            layers.setdefault(layer, []).append(np.ravel(keras.ops.convert_to_numpy(value)))
    return np.array([np.linalg.norm(np.concatenate(parts).astype("float64")) for parts in layers.values()])


def eager_series(model, optimizer, batches):
    """What a monitor must tell of these batches: norms (updates, layers), changes and weights of the same shape."""
    rows = []
    for x, y in batches:
        if not model.built:
            model(x)
        gradients = oracle.gradients(model, x, y)
        present = [gradient is not None for gradient in gradients]
        variables = [v for v, there in zip(model.trainable_variables, present, strict=True) if there]
        before = [keras.ops.convert_to_numpy(v).copy() for v in variables]
        optimizer.apply(gradients, model.trainable_variables)
        changes = [keras.ops.convert_to_numpy(v) - old for v, old in zip(variables, before, strict=True)]
        norms = norms_by_layer(model.trainable_variables, gradients)
        rows.append((norms, norms_by_layer(variables, changes), norms_by_layer(variables, before)))
    return [np.array(part) for part in zip(*rows, strict=True)]


def assert_equal(monitor, expected, rtol):
    series = monitor.series()
    norms, changes, weights = expected
    layers = [name for name in series if name.split("/")[0] not in ("step", "grad_norm", "update_ratio")]
    together, change, weight = [np.linalg.norm(part, axis=1) for part in expected]
    assert series["step"].tolist() == list(range(len(norms)))
    np.testing.assert_allclose(series["grad_norm"], together, rtol)
    np.testing.assert_allclose(np.stack([series[name] for name in layers], 1), norms, rtol)
    if monitor.ratios:
        # A change is the difference of two rounded weights, so its rounding is that of the weights.
        atol = {FLOAT64: 1e-14}.get(rtol, 1e-6)
        ratios = np.stack([series[f"update_ratio/{name}"] for name in layers], 1)
        np.testing.assert_allclose(
            ratios, np.divide(changes, weights, where=weights > 0, out=changes * np.inf), rtol, atol
        )
        np.testing.assert_allclose(series["update_ratio"], change / weight, rtol, atol)


def monitored(model, optimizer, batches, strategy=None, epochs=1, monitor=None, **settings):
    monitor = monitor or GradientMonitor(ratios=True)
    with strategy.scope() if strategy is not None else contextlib.nullcontext():
        model.compile(optimizer(), "mse", **settings)
    model.fit(batches, epochs=epochs, verbose=0, callbacks=[monitor])
    return monitor


def batches_of(kind, samples=oracle.SAMPLES):
    return oracle.dataset(*oracle.data(kind, samples))


def case(kind, mode, optimizer, request):
    """A monitor of a fit in `mode` and what it must have seen."""
    strategy = request.getfixturevalue("two_replicas") if mode == "two replicas" else None
    expected = eager_series(oracle.build(kind), optimizer(), batches_of(kind))
    return monitored(oracle.build(kind, strategy), optimizer, batches_of(kind), strategy, **MODES[mode]), expected


def pytest_generate_tests(metafunc):
    """The table of models and modes: all of it with --full, else each model plainly, and one of them in every mode."""
    if metafunc.function is test_every_kind_of_model_in_every_mode_float64_1e_10:
        table = [(kind, mode) for kind in oracle.MODELS for mode in MODES]
        always = [mode == "plain" or kind == "embedding" for kind, mode in table]
        rows = [case if by_default else full(*case) for case, by_default in zip(table, always, strict=True)]
        metafunc.parametrize(("kind", "mode"), rows)


def test_every_kind_of_model_in_every_mode_float64_1e_10(kind, mode, request):
    with oracle.float64():
        monitor, expected = case(kind, mode, OPTIMIZERS["Adam"], request)
        assert monitor.series()["grad_norm"].dtype == np.float64
        assert_equal(monitor, expected, FLOAT64)


@pytest.mark.parametrize("optimizer", few(OPTIMIZERS, "MultiOptimizer", "global_clipnorm", "use_ema"))
def test_every_optimizer_and_the_norms_before_its_clipping_float64_1e_10(optimizer, request):
    with oracle.float64():
        assert_equal(*case("sequential", "steps_per_execution 8", optimizer, request), FLOAT64)


@pytest.mark.parametrize("mode", ["jit", *map(full, ["plain", "steps_per_execution 8", "eager", "two replicas"])])
def test_float32_1e_5(mode, request):
    monitor, expected = case("functional", mode, OPTIMIZERS["SGD momentum"], request)
    assert monitor.series()["grad_norm"].dtype == np.float32
    assert_equal(monitor, expected, FLOAT32)


def test_a_loss_scale_leaves_the_norms_unscaled_mixed_float16_2e_3():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        twin = keras.Sequential([oracle.build("sequential"), keras.layers.Activation("linear", dtype="float32")])
        expected = eager_series(twin, OPTIMIZERS["Adam"](), batches_of("sequential"))
        # A small scale: `compile` would start at 32768, where single updates overflow and are skipped.
        monitor = monitored(
            oracle.build("sequential"),
            lambda: keras.optimizers.LossScaleOptimizer(OPTIMIZERS["Adam"](), initial_scale=64.0),
            batches_of("sequential"),
        )
    finally:
        keras.config.set_dtype_policy("float32")
    assert_equal(monitor, expected, HALF)


def test_updates_that_overflow_under_a_loss_scale_are_not_seen():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = oracle.build("sequential")
    finally:
        keras.config.set_dtype_policy("float32")
    optimizer = functools.partial(keras.optimizers.LossScaleOptimizer, initial_scale=2.0**30)
    monitor = monitored(model, lambda: optimizer(OPTIMIZERS["Adam"]()), batches_of("sequential"), epochs=3)
    made = int(model.optimizer.inner_optimizer.iterations.numpy())
    assert 0 < made < 3 * oracle.STEPS
    assert len(monitor.series()["step"]) == made
    assert np.isfinite(monitor.series()["grad_norm"]).all()


@pytest.mark.parametrize("mode", ["steps_per_execution 8", full("plain"), full("jit")])
def test_batches_that_the_optimizer_accumulates_are_one_update_float64_1e_10(mode, request):
    with oracle.float64():
        merged = oracle.dataset(*oracle.data("sequential"), batch_size=16).take(2)  # three micro-batches are left over
        expected = eager_series(oracle.build("sequential"), OPTIMIZERS["SGD momentum"](), merged)
        optimizer = functools.partial(OPTIMIZERS["SGD momentum"], gradient_accumulation_steps=4)
        monitor = GradientMonitor()
        monitored(oracle.build("sequential"), optimizer, batches_of("sequential"), monitor=monitor, **MODES[mode])
        assert_equal(monitor, expected, FLOAT64)


def test_a_second_fit_and_one_after_a_new_compile_go_on_where_the_weights_are_float64_1e_10():
    with oracle.float64():
        model, twin, batches = oracle.build("sequential"), oracle.build("sequential"), batches_of("sequential")
        optimizer = OPTIMIZERS["Adam"]()
        monitor = monitored(model, OPTIMIZERS["Adam"], batches)
        assert_equal(monitor, eager_series(twin, optimizer, batches), FLOAT64)
        model.fit(batches, verbose=0, callbacks=[monitor])
        assert_equal(monitor, eager_series(twin, optimizer, batches), FLOAT64)
        monitored(model, OPTIMIZERS["RMSprop"], batches, monitor=monitor)
        assert_equal(monitor, eager_series(twin, OPTIMIZERS["RMSprop"](), batches), FLOAT64)


def test_saving_and_loading_in_the_middle_leaves_no_trace_of_the_hooks_float64_1e_10(tmp_path):
    with oracle.float64():
        model, twin, batches = oracle.build("sequential"), oracle.build("sequential"), batches_of("sequential")
        optimizer, path = OPTIMIZERS["Adam"](), tmp_path / "model.keras"
        model.compile(OPTIMIZERS["Adam"](), "mse")
        save = keras.callbacks.ModelCheckpoint(path)
        model.fit(batches, verbose=0, callbacks=[GradientMonitor(ratios=True), save])
        with zipfile.ZipFile(path) as archive:
            assert b"keras_opt" not in archive.read("config.json")
        again = keras.models.load_model(path)
        assert len(again.optimizer.variables) == len(model.optimizer.variables)
        assert set(vars(again.optimizer)) == set(vars(model.optimizer))
        monitor = GradientMonitor(ratios=True)
        again.fit(batches, verbose=0, callbacks=[monitor])
        eager_series(twin, optimizer, batches)
        assert_equal(monitor, eager_series(twin, optimizer, batches), FLOAT64)


@pytest.mark.parametrize("mode", ["steps_per_execution 8", "two replicas", *map(full, ["plain", "jit", "eager"])])
def test_two_monitors_at_once_and_every_third_update(mode, request):
    strategy = request.getfixturevalue("two_replicas") if mode == "two replicas" else None
    with oracle.float64():
        model, batches = oracle.build("sequential", strategy), batches_of("sequential")
        first, second = GradientMonitor(ratios=True), GradientMonitor(every=3, ratios=True)
        with strategy.scope() if strategy is not None else contextlib.nullcontext():
            model.compile(OPTIMIZERS["Adam"](), "mse", **MODES[mode])
        model.fit(batches, verbose=0, epochs=2, callbacks=[first, second])
    every, third = first.series(), second.series()
    assert third["step"].tolist() == list(range(0, 2 * oracle.STEPS, 3))
    assert list(every) == list(third)
    for name, values in every.items():
        np.testing.assert_array_equal(third[name], values[::3], err_msg=name)


@pytest.mark.parametrize("mode", ["jit", "two replicas", full("plain")])
def test_histograms_count_every_element_of_the_dense_gradients(mode, request, tmp_path):
    """Against NumPy's own histogram of the eager gradients, over the same edges."""
    strategy = request.getfixturevalue("two_replicas") if mode == "two replicas" else None
    with oracle.float64():
        twin, optimizer, elements = oracle.build("embedding"), OPTIMIZERS["Adam"](), {}
        for x, y in batches_of("embedding"):
            gradients = oracle.gradients(twin, x, y)
            for variable, gradient in zip(twin.trainable_variables, gradients, strict=True):
                layer = re.split("/", variable.path)[0]
                elements.setdefault(layer, []).append(np.ravel(gradient))
            optimizer.apply(gradients, twin.trainable_variables)
        monitor = GradientMonitor(histograms=True, log_dir=tmp_path)
        model = oracle.build("embedding", strategy)
        monitored(model, OPTIMIZERS["Adam"], batches_of("embedding"), strategy, monitor=monitor, **MODES[mode])
    for layer, parts in elements.items():
        buckets = histogram(tmp_path, f"gradients/{layer}")
        edges = np.append(buckets[:, 0], buckets[-1, 1])
        counts, _ = np.histogram(np.concatenate(parts), edges)
        assert counts.sum() == sum(part.size for part in parts)
        np.testing.assert_array_equal(buckets[:, 2], counts)


def histogram(folder, tag):
    [path] = folder.glob("events*")
    found = [
        tf.make_ndarray(value.tensor)
        for event in tf.compat.v1.train.summary_iterator(str(path))
        for value in event.summary.value
        if value.tag == tag
    ]
    assert len(found) == 1
    return found[0]
