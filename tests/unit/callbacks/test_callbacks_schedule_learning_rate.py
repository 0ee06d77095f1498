"""ScheduleLearningRate: what it refuses, what it leaves behind, and how it is resumed."""

import keras
import numpy as np
import pytest
from full_rows import full

from keras_opt.callbacks import GradientAccumulation, LearningRateMonitor, ReduceLROnPlateau
from keras_opt.callbacks import ScheduleLearningRate as Schedule
from keras_opt.core.errors import InputError
from keras_opt.schedules import CosineDecay, OneCycle, ScaledSchedule, StepDecay
from keras_opt.training import StepHooks, attach

DATA = np.ones((6, 2)), np.ones((6, 1))


def model_with(learning_rate=0.5, **settings):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(learning_rate), "mse", **settings)
    return model


def fit(model, *callbacks, **settings):
    return model.fit(*DATA, batch_size=2, verbose=0, callbacks=list(callbacks), **settings).history


@pytest.mark.parametrize("schedule", [0.1, None, lambda epoch: 0.1], ids=["number", "None", "function"])
def test_only_a_schedule_will_do(schedule):
    with pytest.raises(InputError, match=r"`schedule` must be a keras.*LearningRateScheduler"):
        Schedule(schedule)


def test_an_unknown_unit_names_the_closest():
    with pytest.raises(InputError, match=r"'epoch', 'batch', 'update'.*unit='epochs'.*Did you mean 'epoch'\?"):
        Schedule(StepDecay(0.1, 1, 0.5), "epochs")


@pytest.mark.parametrize("of", ["plain", "LossScaleOptimizer", "MultiOptimizer"])
def test_an_optimizer_that_has_a_schedule_is_refused_by_both_names(of):
    own = keras.optimizers.SGD(CosineDecay(0.1, 10), name="mine")
    optimizer = {
        "plain": lambda: own,
        "LossScaleOptimizer": lambda: keras.optimizers.LossScaleOptimizer(own),
        "MultiOptimizer": lambda: keras.optimizers.MultiOptimizer(
            keras.optimizers.OptimizerMap(keras.optimizers.SGD(0.1), {".*kernel": own})
        ),
    }[of]()
    model = model_with()
    model.compile(optimizer, "mse")
    message = r"optimizer 'mine' follows CosineDecay already, so StepDecay cannot .* constant learning_rate"
    with pytest.raises(InputError, match=message):
        fit(model, Schedule(StepDecay(0.1, 1, 0.5)))
    assert StepHooks.of(model).plugins == ()


def test_so_is_one_whose_rate_is_a_function_and_one_that_is_made_by_the_first_batch():
    def a_rate():
        return 0.1

    with pytest.raises(InputError, match="follows function 'a_rate' already"):
        fit(model_with(a_rate), Schedule(StepDecay(0.1, 1, 0.5)))
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile(keras.optimizers.MultiOptimizer(lambda _: keras.optimizers.SGD(CosineDecay(0.1, 10))), "mse")
    with pytest.raises(InputError, match="follows CosineDecay already"):
        fit(model, Schedule(StepDecay(0.1, 1, 0.5)))
    assert StepHooks.of(model).plugins == ()


@pytest.mark.parametrize(
    "rival", [keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate), keras.callbacks.ReduceLROnPlateau()]
)
@pytest.mark.parametrize("first", [True, False])
def test_a_callback_of_keras_that_sets_the_rate_too_is_refused(rival, first):
    pair = [rival, Schedule(StepDecay(0.1, 1, 0.5))]
    with pytest.raises(InputError, match=f"in the same fit is a keras.callbacks.{type(rival).__name__}, wh"):
        fit(model_with(), *(pair if first else pair[::-1]))


def test_two_of_them_are_refused():
    with pytest.raises(RuntimeError, match="ScheduleLearningRate"):
        fit(model_with(), Schedule(StepDecay(0.1, 1, 0.5)), Schedule(StepDecay(0.2, 1, 0.5)))


def test_after_the_fit_the_optimizer_has_a_constant_rate_that_of_the_last_update(tmp_path):
    model = model_with()
    fit(model, Schedule(OneCycle(0.1, 9), "update"), epochs=2)
    rate = float(model.optimizer.learning_rate)
    assert np.isclose(rate, float(OneCycle(0.1, 9)(5)))
    assert StepHooks.of(model).plugins == ()
    model.optimizer.learning_rate = 0.25
    assert fit(model, LearningRateMonitor())["learning_rate"] == [0.25]
    model.save(tmp_path / "model.keras")
    assert keras.saving.load_model(tmp_path / "model.keras").optimizer.get_config()["learning_rate"] == 0.25


def test_the_variables_of_the_optimizer_are_the_same_during_the_fit_as_before():
    model = model_with()
    model.optimizer.build(model.trainable_variables)
    before, during = list(map(id, model.optimizer.variables)), []
    look = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: during.extend(map(id, model.optimizer.variables)))
    fit(model, Schedule(StepDecay(0.1, 1, 0.5)), look)
    assert during == before


def test_a_scaled_schedule_is_scaled_at_any_time():
    schedule, monitor = ScaledSchedule(StepDecay(0.5, 1, 0.5)), LearningRateMonitor()
    halve = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: schedule.multiplier.assign(0.5))
    fit(model_with(), Schedule(schedule, "update"), halve, monitor)
    np.testing.assert_allclose(monitor.series()["learning_rate"], [0.5, 0.125, 0.0625])
    fit(model_with(), Schedule(schedule, "update"), monitor)  # it is the user's: no fit sets it back
    np.testing.assert_allclose(monitor.series()["learning_rate"], [0.25, 0.125, 0.0625])


def test_a_plateau_multiplies_the_schedule_which_begins_anew_in_the_next_fit():
    cut, schedule = ReduceLROnPlateau("loss", 0.5, patience=1, min_delta=1e9), Schedule(StepDecay(0.1, 2, 0.5))
    model = model_with()
    want = [0.1, 0.1, 0.025, 0.0125, 0.003125]  # 0.1, 0.1, 0.05, 0.05, 0.025 times 1, 1, 1/2, 1/4, 1/8
    np.testing.assert_allclose(fit(model, schedule, cut, epochs=5)["learning_rate"], want, rtol=1e-6)
    np.testing.assert_allclose(fit(model, cut, schedule, epochs=5)["learning_rate"], want, rtol=1e-6)


@pytest.mark.parametrize("unit", ["epoch", "batch", "update"])
def test_in_a_loop_of_ones_own(unit):
    model, monitor = model_with(), LearningRateMonitor()
    with attach(model, Schedule(StepDecay(0.5, 1, 0.5), unit), monitor, epochs=2) as running:
        for epoch in range(2):
            running.on_epoch_begin(epoch)
            for batch in range(2):
                model.train_on_batch(DATA[0][:2], DATA[1][:2])
                running.on_train_batch_end(batch)
            running.on_epoch_end(epoch, {})
    want = [0.5, 0.5, 0.25, 0.25] if unit == "epoch" else [0.5, 0.25, 0.125, 0.0625]
    np.testing.assert_allclose(monitor.series()["learning_rate"], want)


class Resume(keras.callbacks.Callback):
    """Loads states as BackupAndRestore does: before the first epoch, and again before its first batch."""

    def __init__(self, states):
        super().__init__()
        self.states = states

    def load(self):
        for callback, state in self.states.items():
            callback.load_state_dict(state)

    def on_train_begin(self, logs=None):
        self.load()

    def on_epoch_begin(self, epoch, logs=None):
        self.load()
        self.states = {}


@pytest.mark.parametrize("unit", ["epoch", "batch", "update"])
@pytest.mark.parametrize("micro_batches", [2, full(1)])
def test_a_resumed_fit_goes_on_at_the_same_count(unit, micro_batches):
    """4 epochs of 3 batches in one, or 2 and 2; with accumulation 2 updates an epoch."""

    def callbacks():
        extra = [GradientAccumulation(micro_batches)] if micro_batches > 1 else []
        return [Schedule(ScaledSchedule(StepDecay(0.5, 2, 0.5)), unit), *extra, LearningRateMonitor()]

    whole = callbacks()
    fit(model_with(), *whole, epochs=4)
    first, second = callbacks(), callbacks()
    states = {}

    def save(epoch, logs=None):
        if epoch == 2:
            states.update((place, first[place].state_dict()) for place in (0, -1))

    fit(model_with(), keras.callbacks.LambdaCallback(on_epoch_begin=save), *first, epochs=3)
    resume = Resume({second[place]: state for place, state in states.items()})
    fit(model_with(), *second, resume, initial_epoch=2, epochs=4)
    for name, values in whole[-1].series().items():
        np.testing.assert_array_equal(second[-1].series()[name], values)


def test_the_state_is_of_plain_values_and_is_loaded_twice_as_once():
    schedule = Schedule(StepDecay(0.1, 1, 0.5), "update")
    states = []
    twice = keras.callbacks.LambdaCallback(
        on_train_begin=lambda *_: [schedule.load_state_dict({"count": 7, "multiplier": 0.5}) for _ in range(2)],
        on_epoch_begin=lambda *_: states.append(schedule.state_dict()),
    )
    monitor = LearningRateMonitor()
    fit(model_with(), schedule, twice, monitor)
    assert states == [{"count": 7, "multiplier": 0.5}]
    np.testing.assert_allclose(monitor.series()["learning_rate"], 0.05 * 0.5 ** np.arange(7, 10), rtol=1e-6)


def test_an_interrupt_leaves_the_model_as_a_plain_one():
    model = model_with()

    def fail(*_):
        raise ValueError("broken off")

    with pytest.raises(ValueError, match="broken off"):
        fit(model, Schedule(StepDecay(0.1, 1, 0.5)), keras.callbacks.LambdaCallback(on_epoch_end=fail))
    model.optimizer.learning_rate = 0.25
    assert fit(model, LearningRateMonitor())["learning_rate"] == [0.25]  # the next callback cleans up
