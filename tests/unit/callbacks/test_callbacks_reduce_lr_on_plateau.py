"""ReduceLROnPlateau: scripted losses, the rate after each epoch."""

import itertools
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from full_rows import few, full

import keras_opt
from keras_opt.callbacks import (
    GradientAccumulation,
    GradientMonitor,
    LearningRateMonitor,
    ReduceLROnPlateau,
    ScheduleLearningRate,
)
from keras_opt.core.errors import InputError, NoEffectWarning
from keras_opt.schedules import CosineDecay, ScaledSchedule, StepDecay
from keras_opt.training import StepHooks

NAN, INF = float("nan"), float("inf")
KERAS = keras.callbacks.ReduceLROnPlateau


def model_with(learning_rate=1.0, optimizer=None, **settings):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(optimizer or keras.optimizers.SGD(learning_rate), "mse", **settings)
    return model


def scripted(callback, values, learning_rate=1.0, name="loss"):
    """The rates after each epoch of a fit whose logs are scripted."""
    return in_model(model_with(learning_rate), callback, values, name)


def in_model(model, callback, values, name="loss"):
    found = []
    callback.set_model(model)
    callback.on_train_begin()
    for epoch, value in enumerate(values):
        callback.on_epoch_end(epoch, {name: value})
        found.append(float(model.optimizer.learning_rate))
    return found


class Script(keras.callbacks.Callback):
    """Logs scripted values as `score`, for each epoch."""

    def __init__(self, values):
        super().__init__()
        self.values = values

    def on_epoch_end(self, epoch, logs=None):
        logs["score"] = self.values[epoch]


def fit(model, *callbacks, epochs=4, batches=2, **settings):
    x, y = np.ones((2 * batches, 2)), np.ones((2 * batches, 1))
    return model.fit(x, y, batch_size=2, epochs=epochs, verbose=0, callbacks=list(callbacks), **settings).history


# --- as in Keras ---------------------------------------------------------------------------------------------------


def test_the_rates_are_kerass_on_300_random_sequences():
    """Steps of 1/8, so that ties are ties; 25 epochs each; every argument is drawn."""
    rng = np.random.default_rng(0)
    model, cuts = model_with(), 0
    for _ in range(300):
        values = np.cumsum(rng.integers(-4, 4, 25)) / 8
        settings = {
            "monitor": "loss",
            "factor": float(rng.choice([0.0, 0.1, 0.5, 0.9])),
            "patience": int(rng.integers(0, 6)),
            "mode": str(rng.choice(["min", "max", "auto"])),
            "min_delta": float(rng.choice([0, 1e-4, 0.125, 0.25, -0.125])),
            "cooldown": int(rng.integers(0, 4)),
            "min_lr": float(rng.choice([0, 1e-3, 0.1, 0.3])),
        }
        rates = []
        for kind in (ReduceLROnPlateau, KERAS):
            model.optimizer.learning_rate = 1.0
            rates.append(in_model(model, kind(**settings), values))
        assert rates[0] == rates[1], settings
        cuts += len(set(rates[0])) - 1
    assert cuts > 500


def test_the_logs_are_kerass_in_a_fit_and_a_second_fit_begins_at_the_rate_that_is_left():
    found = []
    for kind in (ReduceLROnPlateau, KERAS):
        model, callback = model_with(), kind("score", factor=0.5, patience=1, mode="min", cooldown=1)
        found.append([fit(model, Script([3, 3, 3, 3]), callback)["learning_rate"] for _ in range(2)])
    assert found[0] == found[1] == [[1, 1, 0.5, 0.25], [0.125, 0.125, 0.0625, 0.03125]]


def test_the_parts_of_a_multi_optimizer_are_cut_each_by_itself_as_in_keras():
    found = []
    for kind in (ReduceLROnPlateau, KERAS):
        parts = keras.optimizers.SGD(1.0, name="a"), keras.optimizers.SGD(0.1, name="b")
        optimizer = keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(parts[0], {".*bias": parts[1]}))
        callback = kind("score", factor=0.1, patience=1, mode="min", min_lr=0.05)
        logs = fit(model_with(optimizer=optimizer), Script([3, 3, 3, 3]), callback)
        found.append({name: logs[name] for name in ("learning_rate_a", "learning_rate_b")})
    assert found[0] == found[1]
    np.testing.assert_allclose(found[0]["learning_rate_a"], [1, 1, 0.1, 0.05])
    np.testing.assert_allclose(found[0]["learning_rate_b"], [0.1, 0.1, 0.05, 0.05])


def test_a_first_nan_stays_best_for_ever_in_keras_and_not_here():
    values = [NAN, 3.0, 2.0, 1.0, 0.5]
    assert scripted(KERAS("loss", 0.5, patience=2), values) == [1, 1, 0.5, 0.5, 0.25]
    assert scripted(ReduceLROnPlateau("loss", 0.5, patience=2), values) == [1.0] * 5


@pytest.mark.parametrize(("mode", "bad"), [("min", -INF), ("max", INF), ("min", NAN), ("max", NAN)])
def test_what_is_not_finite_is_never_best_and_is_no_improvement(mode, bad):
    better = -1.0 if mode == "min" else 1.0
    values = [0.0, bad, better, bad, bad, 2 * better]
    assert scripted(ReduceLROnPlateau("loss", 0.5, patience=2, mode=mode), values) == [1, 1, 1, 1, 0.5, 0.5]


# --- beside a schedule ---------------------------------------------------------------------------------------------


def test_keras_fails_beside_a_schedule_only_when_it_wants_to_cut():
    model = model_with(StepDecay(0.1, 4, 0.5))
    with pytest.raises(TypeError, match="not settable"):
        fit(model, Script([3, 3, 3, 3]), KERAS("score", patience=2, mode="min"))


SETTINGS = {"plain": {}, "xla": {"jit_compile": True}, "steps_per_execution 2": {"steps_per_execution": 2}}
SETTINGS["eager"] = {"run_eagerly": True}


@pytest.mark.parametrize("settings", few(SETTINGS, "xla", "steps_per_execution 2"))
@pytest.mark.parametrize("wrap", few({"a plain schedule": False, "a ScaledSchedule": True}, "a plain schedule"))
def test_a_schedule_is_multiplied_also_where_the_step_was_traced_before(settings, wrap):
    schedule = StepDecay(0.4, 4, 0.5)
    model, monitor = model_with(ScaledSchedule(schedule) if wrap else schedule, **settings), LearningRateMonitor()
    fit(model, epochs=1)
    logs = fit(model, monitor, Script([3, 3, 3, 3]), ReduceLROnPlateau("score", 0.5, patience=2, mode="min"))
    bare = np.array([float(schedule(step)) for step in range(2, 11)])
    multiplier = np.array([1, 1, 1, 1, 1, 1, 0.5, 0.5])
    np.testing.assert_allclose(monitor.series()["learning_rate"], bare[:-1] * multiplier, rtol=1e-6)
    np.testing.assert_allclose(logs["learning_rate"], bare[2::2] * [1, 1, 1, 0.5], rtol=1e-6)
    # The cut stays, as that of a constant rate does.
    fit(model, monitor, epochs=1)
    after = [float(schedule(step)) * 0.5 for step in (10, 11)]
    np.testing.assert_allclose(monitor.series()["learning_rate"], after, rtol=1e-6)


def test_a_step_that_was_traced_before_is_traced_anew_without_any_other_callback():
    model, weights = model_with(StepDecay(0.1, 1000, 0.5)), []
    fit(model, epochs=1)
    note = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: weights.append(model.get_weights()[0].copy())
    )
    fit(model, note, Script([3, 3, 3, 3]), ReduceLROnPlateau("score", 0.0, patience=1, mode="min"))
    moved = [np.abs(after - before).max() > 0 for before, after in itertools.pairwise(weights)]
    assert moved == [True, False, False]


def test_min_lr_bounds_the_cut_but_not_the_schedule():
    schedule = ScaledSchedule(StepDecay(1.0, 4, 0.5))
    callback = ReduceLROnPlateau("score", 0.1, patience=1, mode="min", min_lr=0.2)
    logs = fit(model_with(schedule), Script([3] * 6), callback, epochs=6)
    # After epochs 2 and 4 the schedule halves; the cut after epoch 2 goes from 0.5 to 0.2, and no further.
    np.testing.assert_allclose(logs["learning_rate"], [1, 0.5, 0.2, 0.1, 0.1, 0.05], rtol=1e-6)
    np.testing.assert_allclose(float(schedule.multiplier), 0.4, rtol=1e-6)


def test_the_parts_of_a_multi_optimizer_have_a_schedule_each_or_share_one():
    shared = ScaledSchedule(0.8)
    optimizers = [
        keras.optimizers.SGD(shared, name="a"),
        keras.optimizers.SGD(shared, name="b"),
        keras.optimizers.SGD(CosineDecay(0.4, 10_000_000), name="c"),
        keras.optimizers.SGD(0.2, name="d"),
    ]
    rest = iter(optimizers)
    model = keras.Sequential([keras.layers.Dense(2), keras.layers.Dense(1)])  # its first batch makes the parts
    model.compile(keras.optimizers.MultiOptimizer(lambda variable: next(rest)), "mse")
    logs = fit(model, Script([3, 3, 3]), ReduceLROnPlateau("score", 0.5, patience=1, mode="min"), epochs=3)
    for name, first in {"a": 0.8, "b": 0.8, "c": 0.4, "d": 0.2}.items():
        np.testing.assert_allclose(logs[f"learning_rate_{name}"], [first, first, first / 2], rtol=1e-6)


@pytest.mark.parametrize("scaled", [False, True])
def test_a_loss_scale_optimizer_is_cut(scaled):
    inner = keras.optimizers.SGD(StepDecay(0.4, 1000, 0.5) if scaled else 0.4)
    model = model_with(optimizer=keras.optimizers.LossScaleOptimizer(inner, initial_scale=2.0))
    logs = fit(model, Script([3, 3, 3]), ReduceLROnPlateau("score", 0.5, patience=1, mode="min"), epochs=3)
    np.testing.assert_allclose(logs["learning_rate"], [0.4, 0.4, 0.2], rtol=1e-6)


@pytest.mark.parametrize("rate", [0.4, StepDecay(0.4, 1000, 0.5)], ids=["constant", "schedule"])
def test_two_replicas_are_cut(two_replicas, rate):
    with two_replicas.scope():
        model = model_with(rate)
    monitor = LearningRateMonitor()
    callback = ReduceLROnPlateau("score", 0.5, patience=1, mode="min")
    logs = fit(model, monitor, Script([3, 3, 3]), callback, epochs=3)
    np.testing.assert_allclose(logs["learning_rate"], [0.4, 0.4, 0.2], rtol=1e-6)
    np.testing.assert_allclose(monitor.series()["learning_rate"], [0.4] * 4 + [0.2] * 2, rtol=1e-6)


def test_left_over_micro_batches_are_updated_at_the_rate_before_the_cut():
    """3 batches an epoch, which Keras does not know, so that they wait until the epoch ends."""
    monitor = LearningRateMonitor()
    data = tf.data.Dataset.from_tensors((np.ones((2, 2)), np.ones((2, 1)))).repeat(3).filter(lambda x, y: True)
    cut = ReduceLROnPlateau("score", 0.5, patience=1, mode="min")
    callbacks = [Script([3, 3, 3]), cut, GradientAccumulation(2), monitor]
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # Keras: the data ran out
        model_with().fit(data, epochs=3, verbose=0, callbacks=callbacks)
    np.testing.assert_allclose(monitor.series()["learning_rate"], [1, 1, 1, 1, 0.5, 0.5])


def test_the_wrapped_schedule_is_saved_with_its_multiplier(tmp_path):
    model = model_with(StepDecay(0.4, 1000, 0.5))
    fit(model, Script([3, 3]), ReduceLROnPlateau("score", 0.5, patience=1, mode="min"), epochs=2)
    model.save(tmp_path / "model.keras")
    loaded = keras_opt.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(float(loaded.optimizer.learning_rate), 0.2, rtol=1e-6)


def test_a_function_as_the_rate_is_refused_before_training():
    def a_rate():
        return 0.1

    with pytest.raises(InputError, match=r"ReduceLROnPlateau: the learning_rate of .* is the function .*a_rate"):
        fit(model_with(a_rate), ReduceLROnPlateau("loss"))


def test_a_rate_that_something_else_sets_back_is_told_of():
    constant = keras.callbacks.LearningRateScheduler(lambda epoch: 1.0)
    with pytest.warns(NoEffectWarning, match=r"learning_rate is 1, but was cut to 0.5 an epoch ago.*ScheduleLearning"):
        fit(model_with(), constant, Script([3] * 3), ReduceLROnPlateau("score", 0.5, 1, mode="min"), epochs=3)


# --- what is monitored ---------------------------------------------------------------------------------------------


def test_a_monitor_that_is_not_there_is_an_error_with_the_closest_name():
    with pytest.raises(InputError, match=r"ReduceLROnPlateau: .*monitor='los'.*'loss'.*Did you mean 'loss'\?"):
        fit(model_with(), ReduceLROnPlateau("los"))


def test_a_source_that_is_listed_later_gives_the_order():
    error = pytest.raises(InputError, match=r"callbacks=\[GradientMonitor, ReduceLROnPlateau\]")
    with pytest.warns(UserWarning, match="GradientMonitor"), error:
        fit(model_with(), ReduceLROnPlateau("grad_norm", mode="min"), GradientMonitor())


def test_epochs_without_validation_are_not_counted_and_told_of_once():
    model = model_with(0.0)  # nothing moves, so nothing improves after the first validation
    model.optimizer.learning_rate = 1e-30
    data = np.ones((2, 2)), np.ones((2, 1))
    callback = ReduceLROnPlateau("val_loss", 0.5, patience=2)
    with pytest.warns(NoEffectWarning, match="ReduceLROnPlateau: epoch 1 had no validation") as caught:
        logs = fit(model, callback, epochs=8, validation_data=data, validation_freq=2)
    assert len([each for each in caught if each.category is NoEffectWarning]) == 1
    np.testing.assert_allclose(logs["learning_rate"], [1e-30] * 6 + [0.5e-30] * 2, rtol=1e-5)


def test_a_metric_without_a_known_direction_asks_for_mode():
    with pytest.raises(InputError, match=r'`mode` must be "min" or "max" here'):
        fit(model_with(), Script([1]), ReduceLROnPlateau("score"), epochs=1)


def test_an_accuracy_is_to_rise():
    assert scripted(ReduceLROnPlateau("acc", 0.5, 1), [0.1, 0.2, 0.2], name="acc") == [1, 1, 0.5]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"factor": 1.0}, r"`factor` must be a fraction in \[0, 1\)"),
        ({"factor": -0.1}, r"`factor` must be a fraction in \[0, 1\)"),
        ({"patience": -1}, "`patience` must be an integer of at least 0"),
        ({"cooldown": -1}, "`cooldown` must be an integer of at least 0"),
        ({"min_lr": -1e-3}, "`min_lr` must be a finite number of at least 0"),
        ({"min_delta": NAN}, "`min_delta` must be a finite number"),
        ({"mode": "lowest"}, "`mode` must be one of 'auto', 'min', 'max'"),
    ],
)
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(InputError, match=f"ReduceLROnPlateau: argument {message}"):
        ReduceLROnPlateau(**arguments)


def test_verbose_prints_each_cut(capsys):
    scripted(ReduceLROnPlateau("loss", 0.5, 1, verbose=1), [3, 3, 2, 2])
    assert capsys.readouterr().out.splitlines() == [
        "Epoch 2: ReduceLROnPlateau cuts learning_rate from 1 to 0.5.",
        "Epoch 4: ReduceLROnPlateau cuts learning_rate from 0.5 to 0.25.",
    ]


# --- resume --------------------------------------------------------------------------------------------------------

LOSSES = [5, 4, 4, NAN, 4, 4, 3, 3, 4, 4]


@pytest.mark.parametrize("first", [4, 6, *map(full, [1, 2, 3, 5, 7, 8, 9])])
@pytest.mark.parametrize("rate", [1.0, StepDecay(1.0, 1000, 0.5)], ids=["constant", "schedule"])
def test_resumed_after_any_epoch_it_cuts_as_if_never_broken_off(rate, first):
    def run(callback, model, epochs):
        found = []
        for epoch in epochs:
            callback.on_epoch_end(epoch, {"loss": LOSSES[epoch]})
            found.append(float(model.optimizer.learning_rate))
        return found

    def begin(learning_rate):
        model, callback = model_with(learning_rate), ReduceLROnPlateau("loss", 0.5, 1, cooldown=3)
        callback.set_model(model)
        callback.on_train_begin()
        return model, callback

    model, callback = begin(rate)
    whole = run(callback, model, range(10))
    assert len(set(whole)) > 2
    model, callback = begin(rate)
    rates, state = run(callback, model, range(first)), callback.state_dict()
    again, resumed = begin(rate)
    for variable, value in zip(again.optimizer.variables, model.optimizer.variables, strict=True):
        variable.assign(value)
    for _ in range(2):
        resumed.load_state_dict(state)
    assert rates + run(resumed, again, range(first, 10)) == whole


def test_nothing_is_hooked_to_the_model():
    model = model_with(StepDecay(1.0, 1000, 0.5))
    fit(model, ReduceLROnPlateau("loss"), epochs=1)
    assert StepHooks.of(model).plugins == ()


def test_an_evaluation_in_the_fit_does_not_hide_the_schedule_callback():
    model = model_with()
    cut = ReduceLROnPlateau("score", 0.5, 1, mode="min")
    x, y = np.ones((4, 2)), np.ones((4, 1))
    within = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: model.evaluate(x, y, verbose=0, callbacks=[cut])
    )
    schedule = ScheduleLearningRate(StepDecay(1.0, 1000, 0.5))
    fit(model, schedule, Script([3, 3, 3]), cut, within, epochs=3)
    assert float(schedule.multiplier) == 0.25


def test_a_schedule_callback_is_multiplied_and_resumed():
    model = model_with()
    schedule, cut = ScheduleLearningRate(StepDecay(1.0, 1000, 0.5)), ReduceLROnPlateau("score", 0.5, 1, mode="min")
    fit(model, schedule, Script([3, 3, 3]), cut, epochs=3)
    assert cut.state_dict()["multipliers"] == [0.25]
