"""GradientMonitor's series against an eager loop with a GradientTape, in every mode of `fit`."""

import math
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_opt.callbacks import GradientMonitor, gradient_monitor
from keras_opt.core.errors import NoEffectWarning
from keras_opt.training import StepHooks, attach

STEPS = 7
RNG = np.random.default_rng(0)
X = RNG.normal(size=(STEPS * 4, 3)).astype("float32")
Y = RNG.normal(size=(STEPS * 4, 1)).astype("float32")
IDS = RNG.integers(0, 4, size=(STEPS * 4, 5))  # four ids in batches of twenty: each is repeated


def dense_model():
    return keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(4, activation="tanh", name="hidden"),
            keras.layers.Dense(1, name="head"),
        ],
        name="net",
    )


def frozen_model():
    model = dense_model()
    model.layers[0].trainable = False
    return model


class Unused(keras.layers.Layer):
    """A layer with a trainable variable that no gradient reaches."""

    def build(self, shape):
        self.unused = self.add_weight(shape=(2,), name="unused")

    def call(self, x):
        return x


def unused_variable_model():
    inputs = keras.Input((3,))
    return keras.Model(inputs, keras.layers.Dense(1, name="head")(Unused(name="idle")(inputs)))


def embedding_model():
    inputs = keras.Input((5,), dtype="int32")
    x = keras.layers.Flatten()(keras.layers.Embedding(4, 2, name="table")(inputs))
    return keras.Model(inputs, keras.layers.Dense(1, name="head")(x))


def adam():
    return keras.optimizers.Adam(0.01)


def momentum():
    return keras.optimizers.SGD(0.05, momentum=0.9)


def layer_of(variable):
    return variable.path.rsplit("/", 1)[0]


def by_layer(variables, gradients):
    """L2 norm of each layer's gradients, repeated ids summed."""
    squares = {}
    for variable, gradient in zip(variables, gradients, strict=True):
        if gradient is not None:
            layer = layer_of(variable)
            dense = tf.convert_to_tensor(gradient).numpy().astype("float64")
            squares[layer] = squares.get(layer, 0.0) + np.sum(dense**2)
    return {layer: math.sqrt(value) for layer, value in squares.items()}


def eager_series(model, optimizer, x, y, batch=4):
    """The norms of every step of a plain eager loop."""
    rows = []
    for start in range(0, len(x), batch):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(model(x[start : start + batch], training=True) - y[start : start + batch]))
        gradients = tape.gradient(loss, [variable.value for variable in model.trainable_variables])
        rows.append(by_layer(model.trainable_variables, gradients))
        optimizer.apply(gradients, model.trainable_variables)
    return {layer: np.array([row[layer] for row in rows]) for layer in rows[0]}


def monitored(model, optimizer, x=X, monitor=None, epochs=1, **compile_settings):
    monitor = monitor or GradientMonitor()
    model.compile(optimizer, "mse", **compile_settings)
    history = model.fit(x, Y, batch_size=4, epochs=epochs, shuffle=False, verbose=0, callbacks=[monitor])
    return monitor, history


def assert_equal_series(series, expected, rtol=1e-5):
    layers = set(series) - {"step", "grad_norm"}
    assert layers == set(expected)
    for layer, norms in expected.items():
        np.testing.assert_allclose(series[layer], norms, rtol=rtol, err_msg=layer)
    total = np.sqrt(sum(norms**2 for norms in expected.values()))
    np.testing.assert_allclose(series["grad_norm"], total, rtol=rtol)


MODES = [{}, {"steps_per_execution": 4}, {"jit_compile": True}, {"run_eagerly": True}]


@pytest.mark.parametrize("settings", MODES, ids=str)
@pytest.mark.parametrize("optimizer", [adam, momentum], ids=["adam", "momentum"])
def test_equal_to_the_eager_loop_in_every_mode(optimizer, settings):
    weights = dense_model().get_weights()
    twin, model = dense_model(), dense_model()
    twin.set_weights(weights)
    model.set_weights(weights)
    monitor, _ = monitored(model, optimizer(), **settings)
    assert_equal_series(monitor.series(), eager_series(twin, optimizer(), X, Y))
    assert monitor.series()["step"].tolist() == list(range(STEPS))


@pytest.mark.parametrize(
    ("build", "x"),
    [(frozen_model, X), (unused_variable_model, X), (embedding_model, IDS)],
    ids=["frozen layer", "variable without gradient", "embedding with repeated ids"],
)
@pytest.mark.filterwarnings("ignore:Gradients do not exist")
def test_only_and_all_layers_with_a_gradient_are_told(build, x):
    model = build()
    twin = keras.models.clone_model(model)
    twin.set_weights(model.get_weights())
    for layer, original in zip(twin.layers, model.layers, strict=True):
        layer.trainable = original.trainable
    monitor, _ = monitored(model, momentum(), x)
    assert_equal_series(monitor.series(), eager_series(twin, momentum(), x, Y))


def test_a_loss_scale_and_half_precision_leave_the_norms_unscaled():
    model = dense_model()
    twin, scaled = keras.models.clone_model(model), keras.models.clone_model(model)
    twin.set_weights(model.get_weights())
    scaled.set_weights(model.get_weights())
    monitor, _ = monitored(scaled, keras.optimizers.LossScaleOptimizer(adam(), initial_scale=64.0))
    assert_equal_series(monitor.series(), eager_series(twin, adam(), X, Y))

    keras.config.set_dtype_policy("mixed_float16")
    try:
        half = dense_model()
    finally:
        keras.config.set_dtype_policy("float32")
    half.set_weights(model.get_weights())
    # A small scale: `compile` would start at 32768, where single updates overflow and are skipped.
    monitor, _ = monitored(half, keras.optimizers.LossScaleOptimizer(adam(), initial_scale=64.0))
    expected = eager_series(model, adam(), X, Y)
    total = np.sqrt(sum(norms**2 for norms in expected.values()))
    np.testing.assert_allclose(monitor.series()["grad_norm"], total, rtol=1e-2)


def test_accumulated_batches_count_as_one_update():
    model = dense_model()
    twin = keras.models.clone_model(model)
    twin.set_weights(model.get_weights())
    optimizer = keras.optimizers.SGD(0.05, gradient_accumulation_steps=2)
    monitor, _ = monitored(model, optimizer)
    expected = eager_series(twin, keras.optimizers.SGD(0.05), X[:24], Y[:24], batch=8)
    total = np.sqrt(sum(norms**2 for norms in expected.values()))
    np.testing.assert_allclose(monitor.series()["grad_norm"], total, rtol=1e-5)


def test_every_third_update():
    weights = dense_model().get_weights()
    runs = []
    for every in (1, 3):
        model = dense_model()
        model.set_weights(weights)
        runs.append(monitored(model, adam(), monitor=GradientMonitor(every=every), epochs=2)[0].series())
    assert runs[1]["step"].tolist() == [0, 3, 6, 9, 12]
    np.testing.assert_array_equal(runs[1]["grad_norm"], runs[0]["grad_norm"][::3])


@pytest.mark.parametrize("per_execution", [1, 4, 8])
def test_more_updates_than_the_ring_has_rows(monkeypatch, per_execution):
    monkeypatch.setattr(gradient_monitor, "RING_ROWS", 5)
    weights = dense_model().get_weights()
    small, plain = dense_model(), dense_model()
    small.set_weights(weights)
    plain.set_weights(weights)
    narrow, _ = monitored(small, adam(), epochs=3, steps_per_execution=per_execution)
    monkeypatch.undo()
    wide, _ = monitored(plain, adam(), epochs=3)
    assert narrow.series()["step"].tolist() == list(range(3 * STEPS))
    np.testing.assert_allclose(narrow.series()["grad_norm"], wide.series()["grad_norm"], rtol=1e-6)


def test_the_history_holds_mean_and_maximum_of_each_epoch_as_floats():
    monitor, history = monitored(dense_model(), adam(), epochs=2)
    norms = monitor.series()["grad_norm"].reshape(2, STEPS)
    np.testing.assert_allclose(history.history["grad_norm"], norms.mean(1), rtol=1e-6)
    np.testing.assert_allclose(history.history["grad_norm_max"], norms.max(1), rtol=1e-6)
    assert {type(value) for value in history.history["grad_norm"]} == {float}


def test_an_epoch_without_a_recorded_update_logs_nan():
    _, history = monitored(dense_model(), adam(), monitor=GradientMonitor(every=20), epochs=3)
    assert [math.isnan(value) for value in history.history["grad_norm"]] == [False, True, False]


def test_a_second_fit_starts_anew():
    model, monitor = dense_model(), GradientMonitor()
    monitored(model, adam(), monitor=monitor)
    model.fit(X[:8], Y[:8], batch_size=4, verbose=0, callbacks=[monitor])
    assert monitor.series()["step"].tolist() == [0, 1]
    assert hooks_of(model) == []


def test_weights_are_bit_equal_to_those_of_a_fit_without_the_monitor():
    weights = dense_model().get_weights()
    ends = []
    for callbacks in ([], [GradientMonitor()]):
        model = dense_model()
        model.set_weights(weights)
        model.compile(adam(), "mse")
        model.fit(X, Y, batch_size=4, epochs=2, shuffle=False, verbose=0, callbacks=callbacks)
        model.fit(X, Y, batch_size=4, epochs=1, shuffle=False, verbose=0)
        ends.append(model.get_weights())
    for plain, watched in zip(*ends, strict=True):
        np.testing.assert_array_equal(plain, watched)


def hooks_of(model):
    return [name for name, value in vars(model.optimizer).items() if "step_hooks" in getattr(value, "__module__", "")]


def interrupted(model, monitor):
    def interrupt(batch, logs):
        if batch == 2:
            raise KeyboardInterrupt

    breaking = keras.callbacks.LambdaCallback(on_train_batch_end=interrupt)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, Y, batch_size=4, shuffle=False, verbose=0, callbacks=[monitor, breaking])


def test_an_interrupted_fit_leaves_nothing_behind_once_the_monitor_meets_its_next_model():
    model, monitor = dense_model(), GradientMonitor()
    model.compile(adam(), "mse")
    interrupted(model, monitor)
    assert len(monitor.series()["grad_norm"]) == 3  # what was seen can be looked at
    assert hooks_of(model) == ["_backend_apply_gradients", "_clip_gradients"]
    monitor.set_model(dense_model())
    assert hooks_of(model) == []
    assert model.train_function is None


def test_the_next_fit_with_any_monitor_cleans_up_after_an_interrupted_one():
    class Plugin:
        def on_gradients(self, gradients, variables):
            return gradients

    model, first, second, mine = dense_model(), GradientMonitor(), GradientMonitor(), Plugin()
    model.compile(adam(), "mse")
    interrupted(model, first)
    second.set_model(model)
    assert hooks_of(model) == []
    assert model.train_function is None
    StepHooks.of(model.optimizer).add(mine)
    interrupted(model, first)
    model.fit(X, Y, batch_size=4, verbose=0, callbacks=[second])
    assert len(second.series()["step"]) == STEPS
    assert StepHooks.of(model.optimizer).plugins == (mine,)


def test_without_layers_only_the_global_norms_are_kept():
    monitor, history = monitored(dense_model(), adam(), monitor=GradientMonitor(per_layer=False), epochs=2)
    assert monitor._rows == []
    assert set(monitor.series()) == {"step", "grad_norm"}
    norms = monitor.series()["grad_norm"].reshape(2, STEPS)
    np.testing.assert_allclose(history.history["grad_norm"], norms.mean(1), rtol=1e-6)


def test_looking_at_the_series_in_the_middle_of_an_epoch_changes_nothing():
    model, monitor = dense_model(), GradientMonitor()
    look = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: monitor.series())
    model.compile(adam(), "mse")
    history = model.fit(X, Y, batch_size=4, epochs=2, verbose=0, callbacks=[monitor, look])
    norms = monitor.series()["grad_norm"].reshape(2, STEPS)
    np.testing.assert_allclose(history.history["grad_norm"], norms.mean(1), rtol=1e-6)


def test_two_monitors_at_once_see_the_same_and_leave_one_after_the_other():
    model, first, second = dense_model(), GradientMonitor(), GradientMonitor(every=2)
    model.compile(adam(), "mse")
    model.fit(X, Y, batch_size=4, shuffle=False, verbose=0, callbacks=[first, second])
    np.testing.assert_array_equal(second.series()["grad_norm"], first.series()["grad_norm"][::2])
    assert hooks_of(model) == []


def test_attach_equals_fit():
    model = dense_model()
    twin = keras.models.clone_model(model)
    twin.set_weights(model.get_weights())
    in_fit, _ = monitored(model, adam())
    twin.compile(adam(), "mse")
    in_loop = GradientMonitor()
    history = keras.callbacks.History()
    with attach(twin, in_loop, history) as running:
        for batch in range(STEPS):
            twin.train_on_batch(X[batch * 4 : batch * 4 + 4], Y[batch * 4 : batch * 4 + 4])
            running.on_train_batch_end(batch)
        running.on_epoch_end(0, {})
    np.testing.assert_allclose(in_loop.series()["grad_norm"], in_fit.series()["grad_norm"], rtol=1e-6)
    np.testing.assert_allclose(history.history["grad_norm_max"], in_fit.series()["grad_norm"].max(), rtol=1e-6)
    assert hooks_of(twin) == []


def test_a_loop_that_never_reports_its_batches_keeps_the_last_rows_with_their_numbers(monkeypatch):
    monkeypatch.setattr(gradient_monitor, "RING_ROWS", 5)
    model, monitor = dense_model(), GradientMonitor()
    model.compile(adam(), "mse")
    with attach(model, monitor):
        for _ in range(STEPS):
            model.train_on_batch(X[:4], Y[:4])
    assert monitor.series()["step"].tolist() == [2, 3, 4, 5, 6]


def test_a_model_saved_while_it_is_watched_has_no_trace_of_the_hooks(tmp_path):
    model = dense_model()
    model.compile(adam(), "mse")
    path = tmp_path / "model.keras"
    save = keras.callbacks.ModelCheckpoint(path)
    model.fit(X, Y, batch_size=4, shuffle=False, verbose=0, callbacks=[GradientMonitor(), save])
    with zipfile.ZipFile(path) as archive:
        assert b"keras_opt" not in archive.read("config.json")
    again = keras.models.load_model(path)
    assert len(again.optimizer.variables) == len(model.optimizer.variables)
    assert set(vars(again.optimizer)) == set(vars(model.optimizer))
    again.fit(X, Y, batch_size=4, shuffle=False, verbose=0, callbacks=[GradientMonitor()])


def test_a_fit_without_an_update_says_so():
    model = dense_model()
    model.compile(keras.optimizers.SGD(0.1, gradient_accumulation_steps=100), "mse")
    with pytest.warns(NoEffectWarning, match=r"no update of the optimizer \(SGD\)"):
        model.fit(X, Y, batch_size=4, verbose=0, callbacks=[GradientMonitor()])


def test_the_plot_has_one_line_for_each_layer_and_one_for_all():
    monitor, _ = monitored(dense_model(), adam())
    labels = [line.get_label() for line in monitor.plot().get_lines()]
    assert labels[0] == "all layers"
    assert [label.split("/")[-1] for label in labels[1:]] == ["hidden", "head"]


def test_bad_arguments():
    with pytest.raises(ValueError, match="GradientMonitor: argument `every` must be an integer of at least 1"):
        GradientMonitor(every=0)
