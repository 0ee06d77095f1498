"""The engine by itself: a plugin that does nothing changes nothing, and every phase gets what an eager loop computes.

Float64, relative deviation of the weight change below 1e-10; mixed_float16 below 2e-3.
"""

import contextlib

import keras
import numpy as np
import oracle_models as models
import pytest
import tensorflow as tf
from full_rows import full

from keras_opt.training import StepHooks, StepPlugin

MODES = {
    "plain": {},
    "steps_per_execution": {"steps_per_execution": 8},
    "jit": {"jit_compile": True},
    "eager": {"run_eagerly": True},
    "two_replicas": {},
}
OPTIMIZERS = {
    "sgd": lambda: keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True),
    "adam": lambda: keras.optimizers.Adam(0.01),
    "adamw": lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1, global_clipnorm=0.5),
    "rmsprop": lambda: keras.optimizers.RMSprop(0.01, clipnorm=0.3),
    "lion": lambda: keras.optimizers.Lion(0.01),
    "nadam": lambda: keras.optimizers.Nadam(0.01),
    "adafactor": lambda: keras.optimizers.Adafactor(0.01),
    "loss_scale_factor": lambda: keras.optimizers.Adam(0.01, loss_scale_factor=1000.0),
}


def modes_for(request, number):
    """All modes with `--full`; by default one of five, so that each mode meets every fifth kind at least."""
    return list(MODES) if request.config.getoption("full") else [list(MODES)[number % 5]]


class Order(StepPlugin):
    """Changes nothing, and remembers the phases as they are called."""

    def __init__(self):
        self.calls = []

    def build(self, variables):
        self.calls.append("build")

    def run_step(self, train_step, data):
        self.calls.append("run_step")
        return train_step(data)

    def on_gradients(self, gradients, variables):
        self.calls.append("on_gradients")

    def clip_gradients(self, gradients, variables):
        self.calls.append("clip_gradients")
        return gradients

    def after_update(self, variables):
        self.calls.append("after_update")

    def close(self):
        self.calls.append("close")


class Recorder(StepPlugin):
    """Keeps the gradients of every step."""

    def build(self, variables):
        self.rows = [tf.Variable(tf.zeros((models.STEPS, *v.shape), v.dtype), trainable=False) for v in variables]
        self.step = tf.Variable(0)

    def on_gradients(self, gradients, variables):
        for row, gradient in zip(self.rows, gradients, strict=True):
            row.scatter_nd_update([[self.step]], [tf.convert_to_tensor(gradient)])
        self.step.assign_add(1)


@contextlib.contextmanager
def hooked(model, *plugins):
    hub = StepHooks.of(model)
    for plugin in plugins:
        hub.add(plugin)
    try:
        yield
    finally:
        hub.detach()


def our_fit(kind, optimizer, *plugins, strategy=None, epochs=1, **settings):
    model = models.build(kind, strategy)
    with strategy.scope() if strategy is not None else contextlib.nullcontext():
        model.compile(optimizer(), "mse", **{"jit_compile": False, **settings})
    with hooked(model, *plugins):
        model.fit(models.dataset(*models.data(kind)), epochs=epochs, shuffle=False, verbose=0)
    return model


def their_fit(kind, optimizer, epochs=1):
    batches = models.dataset(*models.data(kind))
    model, optimizer = models.build(kind), optimizer()
    optimizer.loss_scale_factor = None  # the eager loop scales no loss
    for _ in range(epochs):
        models.eager_fit(model, optimizer, batches)
    return model


def deviation(ours, theirs, kind):
    return models.deviation(models.weight_change(ours, kind), models.weight_change(theirs, kind))


@pytest.mark.parametrize("kind", models.MODELS)
def test_a_plugin_that_does_nothing_changes_nothing_for_any_model(kind, request, two_replicas):
    with models.float64():
        theirs = their_fit(kind, OPTIMIZERS["adam"])
        for mode in modes_for(request, list(models.MODELS).index(kind)):
            strategy = two_replicas if mode == "two_replicas" else None
            ours = our_fit(kind, OPTIMIZERS["adam"], StepPlugin(), strategy=strategy, **MODES[mode])
            assert deviation(ours, theirs, kind) < 1e-10, mode


def multi_optimizer():
    return keras.optimizers.MultiOptimizer(
        keras.optimizers.OptimizerMap(keras.optimizers.SGD(0.05), {"hidden.*": keras.optimizers.Adam(0.01)})
    )


def lazy_multi_optimizer():
    """A MultiOptimizer whose optimizers do not exist before it is built."""
    made = {}

    def choose(variable):
        return made.setdefault("hidden" in variable.path, keras.optimizers.Adam(0.01))

    return keras.optimizers.MultiOptimizer(choose)


# Keras 3.12 has none yet.
MULTI_OPTIMIZERS = [multi_optimizer, lazy_multi_optimizer] if hasattr(keras.optimizers, "MultiOptimizer") else []


@pytest.mark.parametrize("optimizer", [*OPTIMIZERS.values(), *MULTI_OPTIMIZERS])
def test_a_plugin_that_does_nothing_changes_nothing_for_any_optimizer(optimizer, request, two_replicas):
    number = [*OPTIMIZERS.values(), *MULTI_OPTIMIZERS].index(optimizer)
    with models.float64():
        theirs = their_fit("sequential", optimizer, epochs=2)
        for mode in {*modes_for(request, number), *(["two_replicas"] if number >= len(OPTIMIZERS) else [])}:
            # Keras clips each replica by itself (clipnorm, global_clipnorm); here the sum is clipped.
            strategy = two_replicas if mode == "two_replicas" else None
            ours = our_fit("sequential", optimizer, StepPlugin(), strategy=strategy, epochs=2, **MODES[mode])
            assert deviation(ours, theirs, "sequential") < 1e-10, mode


def weights_in_mixed_precision(*plugins, strategy=None, **settings):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = models.build("sequential", strategy)
        with strategy.scope() if strategy is not None else contextlib.nullcontext():
            optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.05, momentum=0.9), 2.0**8)
            model.compile(optimizer, "mse", **{"jit_compile": False, **settings})
        with hooked(model, *plugins):
            model.fit(models.dataset(*models.data("sequential")), epochs=2, shuffle=False, verbose=0)
        return model.get_weights()
    finally:
        keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize("mode", ["jit", "two_replicas", *map(full, ["plain", "steps_per_execution", "eager"])])
def test_a_plugin_that_does_nothing_changes_nothing_under_a_loss_scale_optimizer(mode, two_replicas):
    plain = weights_in_mixed_precision()
    strategy = two_replicas if mode == "two_replicas" else None
    ours = weights_in_mixed_precision(StepPlugin(), strategy=strategy, **MODES[mode])
    assert models.deviation(ours, plain) < 2e-3


@pytest.mark.parametrize("bad", [slice(0, 2), slice(2, 4)], ids=["first replica", "second replica"])
def test_an_overflow_on_one_replica_skips_the_update_on_all(bad, two_replicas):
    """Plain Keras asks the first replica only: an overflow on another one ends up in the weights."""
    with two_replicas.scope():
        model = models.build("sequential", two_replicas)
        model.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.05)), "mse", jit_compile=False)
    x, y = models.data("sequential", models.BATCH_SIZE)
    y[bad] = np.inf
    before = model.get_weights()
    with hooked(model, StepPlugin()):
        model.fit(models.dataset(x, y), verbose=0)
    for ours, theirs in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert float(model.optimizer.dynamic_scale.numpy()) == 2.0**14


PHASES = ["on_gradients", "clip_gradients", "after_update"]


class Traced(keras.Sequential):
    """Counts how often Keras traces the step, for each replica."""

    def __init__(self):
        super().__init__([keras.Input((3,)), keras.layers.Dense(1)])
        self.traces = 0

    def train_step(self, data):
        self.traces += 1
        return super().train_step(data)


@pytest.mark.parametrize("mode", ["steps_per_execution", "two_replicas", full("plain"), full("jit")])
def test_the_step_is_traced_as_often_as_plain_keras_does_and_each_trace_has_the_phases_in_order(mode, two_replicas):
    strategy = two_replicas if mode == "two_replicas" else None
    orders, traces = [Order(), Order(), Order()], []
    for plugins in ([], orders):
        with strategy.scope() if strategy is not None else contextlib.nullcontext():
            model = Traced()
            model.compile("adam", "mse", **{"jit_compile": False, **MODES[mode]})
        with hooked(model, *plugins):
            model.fit(models.dataset(*models.data("sequential")), epochs=2, verbose=0)
        traces.append(model.traces)
    assert traces[0] == traces[1]
    for order in orders:
        if strategy is None:
            assert order.calls == ["run_step", "build", *PHASES, *["run_step", *PHASES] * (traces[0] - 1), "close"]
        else:  # the replicas take turns
            assert sorted(order.calls) == sorted(["build", "close", *["run_step", *PHASES] * traces[0]])


def test_a_batch_of_another_size_traces_again_and_builds_nothing_new():
    order, model = Order(), models.build("sequential")
    model.compile("sgd", "mse", jit_compile=False)
    x, y = models.data("sequential", 10)
    with hooked(model, order):
        model.train_on_batch(x[:4], y[:4])
        first = list(order.calls)
        model.train_on_batch(x[:4], y[:4])
        assert order.calls == first
        model.train_on_batch(x[:2], y[:2])
    assert order.calls == [*first, "run_step", *PHASES, "close"]
    assert order.calls.count("build") == 1


@pytest.mark.parametrize(
    ("kind", "optimizer"),
    [
        ("sequential", "loss_scale_factor"),
        ("unused_variable", "loss_scale_factor"),
        ("embedding", "adamw"),
        ("shared_layer", "adamw"),
        full("embedding", "loss_scale_factor"),
        full("shared_layer", "loss_scale_factor"),
        full("sequential", "adamw"),
        full("unused_variable", "adamw"),
    ],
)
def test_plugins_see_the_gradients_of_the_eager_loop(kind, optimizer):
    """Unscaled, unclipped, duplicates of embedding ids summed, variables without a gradient left out."""
    if (kind, optimizer) == ("embedding", "loss_scale_factor"):
        optimizer = "adam"  # Keras cannot divide the gradient of an embedding by a loss_scale_factor
    recorder, expected = Recorder(), []

    def remember(gradients):
        expected.append([gradient.numpy() for gradient in gradients if gradient is not None])
        return gradients

    with models.float64():
        our_fit(kind, OPTIMIZERS[optimizer], recorder)
        batches = models.dataset(*models.data(kind))
        name = "adam" if optimizer == "loss_scale_factor" else optimizer
        models.eager_fit(models.build(kind), OPTIMIZERS[name](), batches, remember)
    for place, row in enumerate(recorder.rows):
        assert models.deviation([row.numpy()], [np.stack([step[place] for step in expected])]) < 1e-10


def test_repeated_embedding_ids_are_summed_and_stay_sparse():
    class Kinds(StepPlugin):
        def on_gradients(self, gradients, variables):
            self.kinds = [type(gradient) for gradient in gradients]
            self.squares = tf.reduce_sum(gradients[0].values ** 2)
            return gradients

    plugin = Kinds()
    with models.float64():
        model = models.build("embedding")
        model.compile("sgd", "mse", run_eagerly=True)
        x, y = models.data("embedding", models.BATCH_SIZE)
        table = models.gradients(model, x, y)[0].numpy()
        with hooked(model, plugin):
            model.train_on_batch(x, y)
    assert plugin.kinds[0] is tf.IndexedSlices
    np.testing.assert_allclose(plugin.squares, (table**2).sum(), rtol=1e-12)


@pytest.mark.parametrize("mode", ["steps_per_execution", "jit", full("plain"), full("eager")])
def test_keras_own_accumulation_runs_the_phases_once_for_each_real_update(mode):
    """11 micro-batches in 3s are 3 updates; compile's clipping comes after the plugins."""

    class Updates(StepPlugin):
        def build(self, variables):
            self.gradients, self.updates, self.norm = (tf.Variable(0.0, dtype="float64") for _ in range(3))

        def on_gradients(self, gradients, variables):
            self.gradients.assign_add(1.0)

        def clip_gradients(self, gradients, variables):
            return [2 * gradient for gradient in gradients]

        def after_update(self, variables):
            self.updates.assign_add(1.0)
            self.norm.assign(tf.sqrt(tf.reduce_sum(variables[0].value ** 2)))

    def optimizer(**settings):
        return keras.optimizers.SGD(0.05, momentum=0.9, clipvalue=0.3, **settings)

    plugin = Updates()
    with models.float64():
        ours = our_fit("sequential", lambda: optimizer(gradient_accumulation_steps=3), plugin, **MODES[mode])
        theirs, batches = models.build("sequential"), models.dataset(*models.data("sequential"), 3 * models.BATCH_SIZE)
        models.eager_fit(theirs, optimizer(), batches.take(3), lambda gradients: [2 * g for g in gradients])
        assert deviation(ours, theirs, "sequential") < 1e-10
    assert (plugin.gradients.numpy(), plugin.updates.numpy()) == (3, 3)
    np.testing.assert_allclose(plugin.norm, np.linalg.norm(theirs.get_weights()[0]), rtol=1e-12)
