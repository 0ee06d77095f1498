"""Rates inside the compiled step against loops in NumPy: a linear model whose loss has gradient 1, in float64.

SGD then moves the weight by the rate of each update, so the sum of the rates is the way that the weight has gone; the
rates themselves are those that `LearningRateMonitor` recorded in the step. Gate 1e-10.
"""

import keras
import numpy as np
import pytest
from full_rows import few, full
from keras import ops
from oracle_models import BATCH_SIZE, STEPS, build, data, dataset, float64, gradients

from keras_opt.callbacks import (
    BackupAndRestore,
    GradientAccumulation,
    LearningRateMonitor,
    ReduceLROnPlateau,
    ScheduleLearningRate,
    SharpnessAwareMinimization,
)
from keras_opt.schedules import CosineDecay, InverseSqrtDecay, OneCycle, StepDecay

UPDATES = 11  # an epoch; with steps_per_execution=8 the last execution is a ragged one
EPOCHS = 3
GATE = {"rtol": 1e-10, "atol": 0}


@pytest.fixture(autouse=True)
def _precise():
    with float64():
        yield


def slope(_, outputs):
    return ops.mean(outputs)


def line(optimizer, **settings):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")])
    model.compile(optimizer, slope, **settings)
    return model


def fit(model, callbacks, batch_size=1, epochs=EPOCHS, **settings):
    """How far the weight fell, and the history."""
    before = model.get_weights()[0].item()
    ones = np.ones((UPDATES * batch_size, 1))
    history = model.fit(ones, ones, batch_size=batch_size, epochs=epochs, verbose=0, callbacks=callbacks, **settings)
    return before - model.get_weights()[0].item(), history.history


def rates(schedule, counts):
    return np.array([float(schedule(int(count))) for count in counts])


def schedule():
    return InverseSqrtDecay(0.1, 3)


SETTINGS = {"plain": {}, "xla": {"jit_compile": True}, "steps_per_execution 8": {"steps_per_execution": 8}}
SETTINGS["eager"] = {"run_eagerly": True}
COUNTS = {
    "epoch": np.repeat(np.arange(EPOCHS), UPDATES),
    "batch": np.arange(EPOCHS * UPDATES),
    "update": np.arange(EPOCHS * UPDATES),
}


@pytest.mark.parametrize("unit", COUNTS)
@pytest.mark.parametrize("settings", few(SETTINGS, "steps_per_execution 8"))
def test_every_update_has_the_rate_of_its_count(settings, unit):
    monitor = LearningRateMonitor()
    model = line(keras.optimizers.SGD(0.5), **settings)
    moved, logs = fit(model, [monitor, ScheduleLearningRate(schedule(), unit)])
    want = rates(schedule(), COUNTS[unit])
    np.testing.assert_allclose(monitor.series()["learning_rate"], want, **GATE)
    np.testing.assert_allclose(moved, want.sum(), **GATE)
    np.testing.assert_allclose(logs["learning_rate"], want[UPDATES - 1 :: UPDATES], **GATE)
    assert list(monitor.series()["step"]) == list(range(EPOCHS * UPDATES))


def test_kerass_schedules_are_followed_as_well():
    moved, _ = fit(line(keras.optimizers.SGD(0.5)), [ScheduleLearningRate(CosineDecay(0.1, 40), "update")])
    np.testing.assert_allclose(moved, rates(CosineDecay(0.1, 40), range(33)).sum(), rtol=1e-6)  # Keras's is float32


@pytest.mark.parametrize("own", [False, True], ids=["the callback", "the optimizer's own"])
@pytest.mark.parametrize("unit", ["epoch", "batch", "update"])
def test_with_accumulation_updates_count_updates_and_batches_count_micro_batches(unit, own):
    """4 micro-batches to an update: the callback makes 3 updates of 11 batches, the optimizer carries 3 over."""
    updates = {True: [3, 7, 11, 15, 19, 23, 27, 31], False: [3, 7, 10, 14, 18, 21, 25, 29, 32]}[own]
    counts = {
        "epoch": [batch // UPDATES for batch in updates],
        "batch": updates,
        "update": range(len(updates)),
    }[unit]
    monitor = LearningRateMonitor()
    model = line(keras.optimizers.SGD(0.5, gradient_accumulation_steps=4 if own else None))
    accumulation = [] if own else [GradientAccumulation(4)]
    moved, _ = fit(model, [ScheduleLearningRate(schedule(), unit), *accumulation, monitor])
    np.testing.assert_allclose(monitor.series()["learning_rate"], rates(schedule(), counts), **GATE)
    np.testing.assert_allclose(moved, rates(schedule(), counts).sum(), **GATE)


@pytest.mark.parametrize("unit", ["batch", "update"])
@pytest.mark.parametrize("first", few({"listed after it": False, "listed before it": True}, "listed before it"))
def test_both_passes_of_sharpness_aware_minimization_are_one_batch(unit, first):
    both = [SharpnessAwareMinimization(0.1), ScheduleLearningRate(schedule(), unit)]
    moved, _ = fit(line(keras.optimizers.SGD(0.5)), both[::-1] if first else both)
    np.testing.assert_allclose(moved, rates(schedule(), range(33)).sum(), **GATE)


@pytest.mark.parametrize("unit", ["batch", "update"])
def test_an_update_that_a_loss_scale_optimizer_drops_counts_as_a_batch_only(unit):
    model = line(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.5), initial_scale=4.0))
    x = np.ones((UPDATES, 1))
    x[[2, 5]] = np.inf
    monitor = LearningRateMonitor()
    callbacks = [ScheduleLearningRate(schedule(), unit), monitor]
    model.fit(x, x, batch_size=1, shuffle=False, verbose=0, callbacks=callbacks)
    counts = {"update": range(9), "batch": [0, 1, 3, 4, 6, 7, 8, 9, 10]}[unit]
    np.testing.assert_allclose(monitor.series()["learning_rate"], rates(schedule(), counts), **GATE)
    np.testing.assert_allclose(-model.get_weights()[0].item(), rates(schedule(), counts).sum(), **GATE)


@pytest.mark.parametrize("unit", ["epoch", "batch", "update"])
@pytest.mark.parametrize("kind", ["deferred", full("sequential")])
def test_all_parts_of_a_multi_optimizer_follow_it(kind, unit):
    first, second = keras.optimizers.SGD(0.3, name="first"), keras.optimizers.SGD(0.2, momentum=0.5, name="second")
    choose = lambda variable: first if variable.path.endswith("bias") else second  # noqa: E731
    model = build(kind)
    model.compile(keras.optimizers.MultiOptimizer(choose), "mse")
    monitor = LearningRateMonitor()
    history = model.fit(
        dataset(*data(kind)), epochs=2, verbose=0, callbacks=[ScheduleLearningRate(schedule(), unit), monitor]
    )
    want = rates(schedule(), {"epoch": np.repeat([0, 1], STEPS)}.get(unit, np.arange(2 * STEPS)))
    names = {"learning_rate_first", "learning_rate_second"}
    assert names <= set(history.history)
    for name in names:
        np.testing.assert_allclose(monitor.series()[name], want, **GATE)
        np.testing.assert_allclose(history.history[name], want[STEPS - 1 :: STEPS], **GATE)


@pytest.mark.parametrize("unit", ["epoch", "batch", "update"])
@pytest.mark.parametrize("micro_batches", few({"alone": None, "accumulated": 4}, "accumulated"))
def test_two_replicas_have_the_rates_of_one(two_replicas, unit, micro_batches):
    monitor = LearningRateMonitor()
    with two_replicas.scope():
        model = line(keras.optimizers.SGD(0.5))
    callbacks = [ScheduleLearningRate(schedule(), unit), monitor]
    moved, logs = fit(model, callbacks + ([GradientAccumulation(4)] if micro_batches else []), batch_size=2)
    batches = np.array([3, 7, 10, 14, 18, 21, 25, 29, 32]) if micro_batches else np.arange(33)
    counts = {"epoch": batches // UPDATES, "batch": batches, "update": range(len(batches))}[unit]
    np.testing.assert_allclose(monitor.series()["learning_rate"], rates(schedule(), counts), **GATE)
    np.testing.assert_allclose(moved / 2, rates(schedule(), counts).sum(), **GATE)  # Keras sums such a loss over them
    assert logs["learning_rate"] == [float(monitor.series()["learning_rate"][batches < n][-1]) for n in (11, 22, 33)]


def test_a_second_fit_counts_from_0_and_initial_epoch_counts_for_epochs():
    for unit, counts in {"update": np.arange(11), "epoch": np.full(11, 4)}.items():
        scheduled = ScheduleLearningRate(schedule(), unit)
        model = line(keras.optimizers.SGD(0.5))
        fit(model, [scheduled])
        moved, _ = fit(model, [scheduled], initial_epoch=4, epochs=5)
        np.testing.assert_allclose(moved, rates(schedule(), counts).sum(), **GATE)


# --- the monitor ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", few(SETTINGS, "xla", "steps_per_execution 8"))
def test_the_monitor_records_a_schedule_in_the_optimizer(settings):
    monitor = LearningRateMonitor()
    moved, logs = fit(line(keras.optimizers.SGD(OneCycle(0.1, 30)), **settings), [monitor])
    want = rates(OneCycle(0.1, 30), range(34))
    np.testing.assert_allclose(monitor.series()["learning_rate"], want[:-1], **GATE)
    np.testing.assert_allclose(moved, want[:-1].sum(), **GATE)
    np.testing.assert_allclose(logs["learning_rate"], want[UPDATES::UPDATES], **GATE)


def test_the_monitor_reads_its_ring_before_it_is_full(monkeypatch):
    monkeypatch.setattr("keras_opt.callbacks.learning_rate_monitor.RING_ROWS", 16)
    monitor = LearningRateMonitor()
    fit(line(keras.optimizers.SGD(OneCycle(0.1, 30)), steps_per_execution=4), [monitor])
    np.testing.assert_allclose(monitor.series()["learning_rate"], rates(OneCycle(0.1, 30), range(33)), **GATE)


class LastUpdate(keras.callbacks.Callback):
    """Per epoch, the change of each weight in the last update over what the optimizer multiplies, by layer."""

    def __init__(self, divisor):
        super().__init__()
        self.divisor = divisor
        self.rates = {"hidden": [], "head": []}

    def on_train_batch_begin(self, batch, logs=None):
        if batch == STEPS - 1:
            self.before = [variable.numpy() for variable in self.model.trainable_variables]

    def on_epoch_end(self, epoch, logs=None):
        found = {"hidden": [], "head": []}
        slots = {variable.name: variable.numpy() for variable in self.model.optimizer.variables}
        for variable, before in zip(self.model.trainable_variables, self.before, strict=True):
            name = f"{variable.path.replace('/', '_')}_{self.divisor}"
            found[variable.path.split("/")[-2]].append(((before - variable.numpy()) / slots[name]).ravel())
        for layer, each in found.items():
            self.rates[layer].append(np.median(np.concatenate(each)))


ADAPTIVE = {
    "Adam": lambda rate: keras.optimizers.Adam(rate, beta_1=0.75, beta_2=0.9375, epsilon=1e-3),
    "Adam amsgrad": lambda rate: keras.optimizers.Adam(rate, beta_1=0.75, beta_2=0.5, amsgrad=True),
    "AdamW without decay": lambda rate: keras.optimizers.AdamW(rate, weight_decay=0.0, beta_1=0.875, beta_2=0.9375),
    "RMSprop": lambda rate: keras.optimizers.RMSprop(rate, momentum=1e-300, epsilon=1e-3),
    "RMSprop centered": lambda rate: keras.optimizers.RMSprop(rate, momentum=1e-300, centered=True, epsilon=1e-3),
}


@pytest.mark.parametrize("make", ADAPTIVE.values(), ids=ADAPTIVE)
@pytest.mark.parametrize("rate", few({"constant": 0.01, "schedule": OneCycle(0.01, 30)}, "schedule"))
def test_the_effective_rate_is_the_last_change_of_each_weight_over_its_first_moment(make, rate):
    """Adam's w_before - w_after over m, by layer; for RMSprop over the gradient.

    Within 1e-8, since the change is a difference of weights. With betas that float32 holds exactly: Keras rounds them
    to it, which in Adam's bias correction with beta_2 = 0.999 is 7e-6.
    """
    optimizer = make(rate)
    model = build("sequential")
    model.compile(optimizer, "mse")
    monitor = LearningRateMonitor(effective=True)
    last = LastGradient() if isinstance(optimizer, keras.optimizers.RMSprop) else LastUpdate("momentum")
    history = model.fit(dataset(*data("sequential")), epochs=EPOCHS, verbose=0, callbacks=[monitor, last])
    series = monitor.series()
    for layer, want in last.rates.items():
        np.testing.assert_allclose(series[f"effective_learning_rate/net/{layer}"], want, rtol=1e-8)
    assert list(series["effective_step"]) == [STEPS - 1, 2 * STEPS - 1, 3 * STEPS - 1]
    np.testing.assert_array_equal(history.history["effective_learning_rate"], series["effective_learning_rate"])


class LastGradient(LastUpdate):
    """The same for RMSprop, whose last gradient a tape gives."""

    def __init__(self):
        super().__init__("")

    def on_train_batch_begin(self, batch, logs=None):
        super().on_train_batch_begin(batch)
        if batch == STEPS - 1:
            x, y = (array[batch * BATCH_SIZE :] for array in data("sequential"))
            self.gradients = gradients(self.model, x, y)

    def on_epoch_end(self, epoch, logs=None):
        found = {"hidden": [], "head": []}
        triples = zip(self.model.trainable_variables, self.before, self.gradients, strict=True)
        for variable, before, gradient in triples:
            change = (before - variable.numpy()) / gradient.numpy()
            found[variable.path.split("/")[-2]].append(change.ravel())
        for layer, each in found.items():
            self.rates[layer].append(np.median(np.concatenate(each)))


# --- resume --------------------------------------------------------------------------------------------------------


class BreakOff(keras.callbacks.Callback):
    """An exception after so many batches."""

    def __init__(self, batches):
        super().__init__()
        self.left = batches

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if self.left == 0:
            raise ConnectionAbortedError

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        """Count from the resumption on."""


def trained(folder, unit, breaks_after):
    """All that a run ends with; a run of 5 epochs, whose rate a plateau cuts twice."""
    optimizer = keras.optimizers.Adam(StepDecay(0.1, 7, 0.8) if unit == "schedule in the optimizer" else 0.1)
    model = build("sequential")
    model.compile(optimizer, "mse")
    monitor, cut = LearningRateMonitor(effective=True), ReduceLROnPlateau("loss", 0.5, 1, cooldown=2, min_delta=0.05)
    scheduled = [ScheduleLearningRate(StepDecay(0.1, 2 if unit == "epoch" else 7, 0.8), unit)] if unit in COUNTS else []
    backup = BackupAndRestore(folder, save_freq=3)
    callbacks = [monitor, *scheduled, cut, GradientAccumulation(2), backup, BreakOff(breaks_after)]
    history = model.fit(dataset(*data("sequential")), epochs=5, verbose=0, callbacks=callbacks)
    series = {name: values.tolist() for name, values in monitor.series().items()}
    return history.history, series, [weight.tolist() for weight in model.get_weights()], cut.state_dict()


@pytest.mark.parametrize("unit", ["batch", "schedule in the optimizer", full("epoch"), full("update")])
def test_a_run_broken_off_in_the_middle_of_an_epoch_ends_bit_equal(unit, tmp_path):
    """Broken off after 17 batches of 55; resumed after 14, where a micro-batch waits for its update."""
    whole = trained(tmp_path / "whole", unit, breaks_after=0)
    with pytest.raises(ConnectionAbortedError):
        trained(tmp_path / "broken", unit, breaks_after=17)
    assert trained(tmp_path / "broken", unit, breaks_after=0) == whole
    assert whole[3]["multipliers"][0] < 1
