"""GradientMonitor as a callback: what it logs, tells, draws and warns of; `tests/oracle` has its numbers."""

import math

import keras
import numpy as np
import pytest

from keras_opt.callbacks import GradientMonitor, gradient_monitor
from keras_opt.core.errors import NoEffectWarning
from keras_opt.training import StepHooks, StepPlugin, attach

STEPS = 7
RNG = np.random.default_rng(0)
X = RNG.normal(size=(STEPS * 4, 3)).astype("float32")
Y = RNG.normal(size=(STEPS * 4, 1)).astype("float32")


def small_model(**settings):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(4, activation="tanh", name="hidden"),
            keras.layers.Dense(1, name="head"),
        ],
        name="net",
    )
    model.compile(keras.optimizers.Adam(0.01), "mse", **settings)
    return model


def fit(model, *callbacks, epochs=1, x=X, y=Y):
    return model.fit(x, y, batch_size=4, epochs=epochs, shuffle=False, verbose=0, callbacks=list(callbacks))


def monitored(epochs=1, monitor=None, **settings):
    monitor = monitor or GradientMonitor()
    return monitor, fit(small_model(**settings), monitor, epochs=epochs)


def is_hooked(model):
    return "train_step" in vars(model) or "apply" in vars(model.optimizer)


# --- what it logs and tells


def test_the_history_holds_mean_and_maximum_of_each_epoch_as_floats():
    monitor, history = monitored(epochs=2, monitor=GradientMonitor(ratios=True))
    norms = monitor.series()["grad_norm"].reshape(2, STEPS)
    np.testing.assert_allclose(history.history["grad_norm"], norms.mean(1), rtol=1e-6)
    np.testing.assert_allclose(history.history["grad_norm_max"], norms.max(1), rtol=1e-6)
    ratios = monitor.series()["update_ratio"].reshape(2, STEPS)
    np.testing.assert_allclose(history.history["update_ratio"], ratios.mean(1), rtol=1e-6)
    assert {type(value) for values in history.history.values() for value in values} == {float}


def test_the_keys_of_the_series():
    layers = ["net/hidden", "net/head"]
    assert list(monitored()[0].series()) == ["step", "grad_norm", *layers]
    with_ratios = ["update_ratio", *[f"update_ratio/{layer}" for layer in layers]]
    assert list(monitored(monitor=GradientMonitor(ratios=True))[0].series()) == [
        "step",
        "grad_norm",
        *layers,
        *with_ratios,
    ]


def test_an_epoch_without_a_recorded_update_logs_nan():
    _, history = monitored(epochs=3, monitor=GradientMonitor(every=20, ratios=True))
    for key in ("grad_norm", "grad_norm_max", "update_ratio"):
        assert [math.isnan(value) for value in history.history[key]] == [False, True, False]


@pytest.mark.parametrize("ratios", [False, True])
def test_without_layers_only_the_global_values_are_kept_and_they_are_the_same(ratios):
    with_layers, history = monitored(epochs=2, monitor=GradientMonitor(ratios=ratios))
    without, plain_history = monitored(epochs=2, monitor=GradientMonitor(per_layer=False, ratios=ratios))
    assert set(without.series()) == {"step", "grad_norm", "update_ratio"} - ({"update_ratio"} if not ratios else set())
    for name, values in without.series().items():
        np.testing.assert_allclose(values, with_layers.series()[name], rtol=1e-6)
    np.testing.assert_allclose(plain_history.history["grad_norm"], history.history["grad_norm"], rtol=1e-6)


@pytest.mark.parametrize("per_execution", [1, 4, 8])
def test_more_updates_than_the_ring_has_rows(monkeypatch, per_execution):
    monkeypatch.setattr(gradient_monitor, "RING_ROWS", 5)
    narrow, _ = monitored(epochs=3, steps_per_execution=per_execution)
    monkeypatch.undo()
    wide, _ = monitored(epochs=3)
    assert narrow.series()["step"].tolist() == list(range(3 * STEPS))
    np.testing.assert_allclose(narrow.series()["grad_norm"], wide.series()["grad_norm"], rtol=1e-6)


def test_looking_at_the_series_in_the_middle_of_an_epoch_changes_nothing():
    monitor = GradientMonitor()
    look = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: monitor.series())
    history = fit(small_model(), monitor, look, epochs=2)
    norms = monitor.series()["grad_norm"].reshape(2, STEPS)
    np.testing.assert_allclose(history.history["grad_norm"], norms.mean(1), rtol=1e-6)


def test_a_layer_that_is_frozen_in_the_middle_has_nan_from_then_on():
    model, monitor = small_model(), GradientMonitor(ratios=True)

    def freeze(epoch, logs):
        if epoch == 1:
            model.layers[0].trainable = False
            model.make_train_function(force=True)

    fit(model, monitor, keras.callbacks.LambdaCallback(on_epoch_begin=freeze), epochs=2)
    series = monitor.series()
    assert series["step"].tolist() == list(range(2 * STEPS))
    assert np.isfinite(series["net/head"]).all()
    for name in ("net/hidden", "update_ratio/net/hidden"):
        assert np.isnan(series[name]).tolist() == [False] * STEPS + [True] * STEPS


def test_weights_are_bit_equal_to_those_of_a_fit_without_the_monitor():
    ends = []
    for monitors in ([], [GradientMonitor()], [GradientMonitor(every=3, ratios=True)]):
        model = small_model()
        fit(model, *monitors, epochs=2)
        fit(model)
        ends.append(model.get_weights())
    for plain, *watched in zip(*ends, strict=True):
        for weights in watched:
            np.testing.assert_array_equal(plain, weights)


# --- where it begins and ends


def test_a_second_fit_starts_anew():
    model, monitor = small_model(), GradientMonitor()
    fit(model, monitor)
    fit(model, monitor, x=X[:8], y=Y[:8])
    assert monitor.series()["step"].tolist() == [0, 1]
    assert not is_hooked(model)


def interrupted(model, monitor):
    def interrupt(batch, logs):
        if batch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(model, monitor, keras.callbacks.LambdaCallback(on_train_batch_end=interrupt))


def test_an_interrupted_fit_can_be_looked_at_and_is_cleaned_up_when_the_monitor_meets_its_next_model():
    model, monitor = small_model(), GradientMonitor()
    interrupted(model, monitor)
    assert len(monitor.series()["grad_norm"]) == 3
    assert is_hooked(model)
    monitor.set_model(small_model())
    assert not is_hooked(model)


def test_the_next_fit_with_any_monitor_cleans_up_after_an_interrupted_one():
    model, first, second = small_model(), GradientMonitor(), GradientMonitor()
    interrupted(model, first)
    fit(model, second)
    assert len(second.series()["step"]) == STEPS
    assert len(first.series()["step"]) == 3
    assert not is_hooked(model)


def test_on_train_begin_twice_hooks_once():
    model, monitor = small_model(), GradientMonitor()
    monitor.set_model(model)
    monitor.on_train_begin()
    monitor.on_train_begin()
    assert len(StepHooks.of(model).plugins) == 1
    with pytest.warns(NoEffectWarning):
        monitor.on_train_end()
    assert not is_hooked(model)


def test_a_plugin_of_ones_own_stays():
    model, mine = small_model(), StepPlugin()
    with attach(model):
        StepHooks.of(model).add(mine)
        StepHooks.of(model).keep()
        fit(model, GradientMonitor())
        assert StepHooks.of(model).plugins == (mine,)


def test_attach_equals_fit():
    in_fit, _ = monitored()
    twin, in_loop, history = small_model(), GradientMonitor(), keras.callbacks.History()
    with attach(twin, in_loop, history) as running:
        for batch in range(STEPS):
            twin.train_on_batch(X[batch * 4 : batch * 4 + 4], Y[batch * 4 : batch * 4 + 4])
            running.on_train_batch_end(batch)
        running.on_epoch_end(0, {})
    np.testing.assert_allclose(in_loop.series()["grad_norm"], in_fit.series()["grad_norm"], rtol=1e-6)
    np.testing.assert_allclose(history.history["grad_norm_max"], in_fit.series()["grad_norm"].max(), rtol=1e-6)
    assert not is_hooked(twin)


def test_a_loop_that_never_reports_its_batches_keeps_the_last_rows_with_their_numbers(monkeypatch):
    monkeypatch.setattr(gradient_monitor, "RING_ROWS", 5)
    model, monitor = small_model(), GradientMonitor()
    with attach(model, monitor):
        for _ in range(STEPS):
            model.train_on_batch(X[:4], Y[:4])
    assert monitor.series()["step"].tolist() == [2, 3, 4, 5, 6]


def test_a_fit_without_an_update_says_so():
    model = small_model()
    model.compile(keras.optimizers.SGD(0.1, gradient_accumulation_steps=100), "mse")
    with pytest.warns(NoEffectWarning, match=r"`model.optimizer` \(SGD.* made no update"):
        fit(model, GradientMonitor())


# --- suggest_clipnorm and plot


def test_the_suggested_clipnorm_is_the_percentile_of_the_norms_and_clips_the_share_it_says():
    monitor, _ = monitored(epochs=3)
    norms = monitor.series()["grad_norm"].astype("float64")
    suggested = monitor.suggest_clipnorm(percentile=75)
    assert suggested.global_clipnorm == pytest.approx(np.percentile(norms, 75), rel=1e-12)
    assert suggested.clipped_share == np.mean(norms > suggested.global_clipnorm)
    assert suggested.non_finite == 0
    assert monitor.suggest_clipnorm(100) == (norms.max(), 0.0, 0)
    assert monitor.suggest_clipnorm().global_clipnorm == pytest.approx(np.percentile(norms, 90), rel=1e-12)


def test_norms_that_are_not_finite_stay_in_the_series_and_out_of_the_suggestion():
    x = X.copy()
    x[-1] = np.nan  # in the last batch
    monitor = GradientMonitor(warn=False)
    history = fit(small_model(), monitor, x=x)
    assert np.isnan(monitor.series()["net/hidden"]).tolist() == [False] * (STEPS - 1) + [True]
    assert math.isnan(history.history["grad_norm"][0])
    assert monitor.suggest_clipnorm(100)[1:] == (0.0, 1)
    assert math.isfinite(monitor.suggest_clipnorm().global_clipnorm)


def test_nothing_is_suggested_where_nothing_was_recorded():
    with pytest.raises(RuntimeError, match=r"no finite norm was recorded \(0 others were\)"):
        GradientMonitor().suggest_clipnorm()


@pytest.mark.parametrize("percentile", [0, -1, 101, math.nan, "90"])
def test_a_percentile_out_of_its_range(percentile):
    with pytest.raises(ValueError, match=r"argument `percentile` must be a number in \(0, 100\]"):
        GradientMonitor().suggest_clipnorm(percentile)


@pytest.mark.parametrize("ratios", [False, True])
def test_the_plot_has_one_line_for_each_layer_and_one_for_all(ratios):
    monitor, _ = monitored(monitor=GradientMonitor(ratios=ratios))
    lines = monitor.plot(ratios=ratios).get_lines()
    assert [line.get_label() for line in lines] == ["all layers", "net/hidden", "net/head"]
    series = monitor.series()
    expected = series["update_ratio/net/head" if ratios else "net/head"]
    np.testing.assert_array_equal(lines[-1].get_xydata(), np.stack([series["step"], expected], 1))


# --- warnings


def sigmoid_tower():
    inputs = keras.Input((3,))
    x = inputs
    for number in range(12):
        x = keras.layers.Dense(4, activation="sigmoid", name=f"sigmoid_{number}")(x)
    model = keras.Model(inputs, keras.layers.Dense(1, name="head")(x))
    model.compile(keras.optimizers.SGD(0.1), "mse")
    return model


def our_warnings(caught):
    return [str(warning.message) for warning in caught if str(warning.message).startswith("GradientMonitor")]


def test_vanishing_gradients_of_a_deep_sigmoid_network_are_named_once():
    with pytest.warns(UserWarning, match="gradients vanish") as caught:
        fit(sigmoid_tower(), GradientMonitor(), epochs=6)
    [message] = our_warnings(caught)
    assert "sigmoid_0 (update 15)" in message
    assert "sigmoid_11" not in message
    assert "head" not in message


def test_a_nan_is_told_with_every_layer_it_reached_and_its_update():
    x = X.copy()
    x[4 * 4] = np.nan
    with pytest.warns(UserWarning, match="are not finite") as caught:
        fit(small_model(), GradientMonitor(), x=x, epochs=2)
    [message] = our_warnings(caught)
    assert "net/hidden (update 4), net/head (update 4)" in message


def test_a_learning_rate_that_diverges_is_told():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(1.5), "mse")
    with pytest.warns(UserWarning, match=r"gradients explode in all layers together \(update \d\d\)"):
        fit(model, GradientMonitor(per_layer=False), epochs=6)


@pytest.mark.filterwarnings("error")
def test_warn_false_says_nothing():
    x = X.copy()
    x[0] = np.nan
    fit(small_model(), GradientMonitor(warn=False), x=x)


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_healthy_convnet_is_not_warned_of(optimizer):
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(8, 3, use_bias=False),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.Conv2D(8, 3, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(2, kernel_initializer="zeros"),
        ]
    )
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    labels = np.arange(64) % 2
    images = RNG.normal(size=(64, 8, 8, 1)) + labels[:, None, None, None] * np.linspace(-3, 3, 8)[:, None]
    history = model.fit(images, labels, batch_size=8, epochs=15, verbose=0, callbacks=[GradientMonitor(ratios=True)])
    assert history.history["accuracy"][-1] > 0.9


# --- bad input


@pytest.mark.parametrize("every", [0, -1, 1.5, True])
def test_every_must_be_a_positive_int(every):
    with pytest.raises(ValueError, match="GradientMonitor: argument `every` must be an integer of at least 1"):
        GradientMonitor(every=every)


def test_histograms_want_a_folder():
    with pytest.raises(ValueError, match=r"argument `histograms` must be False without log_dir.*Give log_dir="):
        GradientMonitor(histograms=True)


def test_ratios_to_plot_must_have_been_recorded():
    monitor, _ = monitored()
    with pytest.raises(ValueError, match=r"GradientMonitor\.plot: argument `ratios` must be False"):
        monitor.plot(ratios=True)


def test_ratios_and_an_optimizer_that_accumulates_by_itself_are_refused_before_anything_is_hooked():
    model = small_model()
    model.compile(keras.optimizers.SGD(0.1, gradient_accumulation_steps=2), "mse")
    with pytest.raises(ValueError, match=r"`ratios` must be False beside gradient_accumulation_steps=2.*GradientAccum"):
        fit(model, GradientMonitor(), GradientMonitor(ratios=True))
    assert not is_hooked(model)
