"""WeightAveraging equals a replay in NumPy of the weights that a fit without it goes through, in float64 to 1e-10."""

import contextlib
import functools

import keras
import numpy as np
import oracle_models
import pytest
from full_rows import full

from keras_opt.callbacks import WeightAveraging
from keras_opt.training import StepHooks
from keras_opt.training.accumulation import GradientAccumulator

GATE = 1e-10
EPOCHS = 2
UPDATES = EPOCHS * oracle_models.STEPS
ACCUMULATED = 4  # eleven micro-batches: the last update of an epoch has three

MODES = {
    "plain": {},
    "steps_per_execution": {"steps_per_execution": 8},
    "jit": {"jit_compile": True},
    "eager": {"run_eagerly": True},
    "accumulation": {},
    "two_replicas": {},
}

KINDS = {
    "ema": {"ema_momentum": 0.8},
    "ema_later": {"kind": "ema", "ema_momentum": 0.8, "start": 3, "every": 2},
    "ema_half": {"kind": "ema", "ema_momentum": 0.8, "start": 0.5},
    "swa": {"kind": "swa", "start": 0.5},
    "swa_often": {"kind": "swa", "start": 1, "every": 3},
    "lookahead": {"kind": "lookahead", "every": 3, "slow_step_size": 0.4},
    "lookahead_later": {"kind": "lookahead", "start": 2, "every": 2},
}


class Accumulation(keras.callbacks.Callback):
    """Merges micro-batches; somebody else has to see to what is left over at the end of the epoch."""

    def on_train_begin(self, logs=None):
        self.hooks, self.plugin = StepHooks.of(self.model), GradientAccumulator("sum_over_batch_size")
        self.plugin.set_steps(ACCUMULATED)
        self.hooks.add(self.plugin)

    def on_train_end(self, logs=None):
        self.hooks.remove(self.plugin)


class Recorder(keras.callbacks.Callback):
    """Keeps the weights after each update; with `settings` of a lookahead it makes that by hand.

    It must see every batch, so it needs steps_per_execution 1.
    """

    def __init__(self, settings=None):
        super().__init__()
        self.settings = settings

    def on_train_begin(self, logs=None):
        self.states = [self.model.get_weights()]
        self.slow = None
        self._after_update()

    def on_train_batch_end(self, batch, logs=None):
        self._look()

    def on_epoch_end(self, epoch, logs=None):
        StepHooks.of(self.model).flush()
        self._look()

    def _look(self):
        if int(self.model.optimizer.iterations) == len(self.states):
            self.states.append(self.model.get_weights())
            self._after_update()

    def _after_update(self):
        if self.settings is None:
            return
        since, weights = len(self.states) - 1 - self.settings.get("start", 0), self.states[-1]
        if since == 0:
            self.slow = weights
        elif since > 0 and since % self.settings["every"] == 0:
            step = self.settings.get("slow_step_size", 0.5)
            trained = [each.trainable for each in self.model.weights]
            triples = zip(self.slow, weights, trained, strict=True)
            self.slow = [slow + step * (fast - slow) if moves else fast for slow, fast, moves in triples]
            self.model.set_weights(self.slow)
        pairs = zip(self.slow or weights, weights, self.model.weights, strict=True)
        self.averaged = [slow if weight.trainable else fast for slow, fast, weight in pairs]


def fitted(callbacks, mode="plain", strategy=None, epochs=EPOCHS, **arguments):
    model = oracle_models.build("batch_norm", strategy)
    with strategy.scope() if strategy is not None else contextlib.nullcontext():
        model.compile(keras.optimizers.Adam(0.05), "mse", **MODES[mode])
    x, y = oracle_models.data("batch_norm")
    first = [Accumulation()] if mode == "accumulation" else []
    model.fit(oracle_models.dataset(x, y), epochs=epochs, verbose=0, callbacks=first + callbacks, **arguments)
    return model


@functools.cache
def recorded(name, accumulates):
    settings = KINDS[name] if name.startswith("lookahead") else None
    recorder = Recorder(settings)
    with oracle_models.float64():
        fitted([recorder], "accumulation" if accumulates else "plain")
    return recorder


def replayed(name, accumulates):
    """The averaged weights."""
    settings, recorder = KINDS[name], recorded(name if name.startswith("lookahead") else "ema", accumulates)
    states = recorder.states
    if name.startswith("lookahead"):
        return recorder.averaged
    updates_an_epoch = (len(states) - 1) // EPOCHS
    start = settings.get("start", 0)
    start = int(start * EPOCHS) * updates_an_epoch if isinstance(start, float) else start
    every = settings.get("every", updates_an_epoch if name == "swa" else 1)
    taken = states[start + every :: every]
    if name.startswith("swa"):
        return [np.mean(snapshots, axis=0) for snapshots in zip(*taken, strict=True)]
    average, momentum = states[start], settings["ema_momentum"]
    for state in taken:
        average = [momentum * a + (1 - momentum) * w for a, w in zip(average, state, strict=True)]
    return average


def rows():
    """Every kind in every mode with `--full`; by default the plain average is, the others where the modes part."""
    modes = {"ema": set(MODES), "swa_often": {"two_replicas"}, "lookahead": {"jit", "accumulation", "two_replicas"}}
    for name in KINDS:
        for mode in MODES:
            always = mode == "steps_per_execution" or mode in modes.get(name, ())
            yield (name, mode) if always else full(name, mode)


@pytest.mark.parametrize(("name", "mode"), list(rows()))
def test_averages_equal_the_replay(name, mode, request):
    strategy = request.getfixturevalue("two_replicas") if mode == "two_replicas" else None
    settings = {"kind": name, **KINDS[name]}
    with oracle_models.float64():
        model = fitted([WeightAveraging(**settings)], mode, strategy)
    assert oracle_models.deviation(model.get_weights(), replayed(name, mode == "accumulation")) < GATE


@pytest.mark.parametrize("name", ["lookahead", full("ema"), full("swa")])
def test_the_raw_weights_go_on_training_beside_validation(name):
    settings = {"kind": name, **KINDS[name]}
    x, y = oracle_models.data("batch_norm", 8)
    with oracle_models.float64():
        model = fitted([WeightAveraging(**settings)], validation_data=(x, y), validation_batch_size=8)
    assert oracle_models.deviation(model.get_weights(), replayed(name, False)) < GATE


def test_validation_is_that_of_the_replayed_average():
    x, y = oracle_models.data("batch_norm", 8)
    with oracle_models.float64():
        model = fitted([WeightAveraging(**KINDS["ema"])], validation_data=(x, y), validation_batch_size=8)
        reported = model.history.history["val_loss"][-1]
        plain = oracle_models.build("batch_norm")
        plain.set_weights(replayed("ema", False))
        expected = float(np.mean((plain(x).numpy() - y) ** 2))
    assert reported == pytest.approx(expected, rel=1e-6)  # Keras keeps metrics in float32


def test_a_second_fit_averages_from_the_weights_that_it_starts_with():
    x, y = oracle_models.data("batch_norm")
    averaging = WeightAveraging(ema_momentum=0.8)
    with oracle_models.float64():
        model = fitted([averaging])
        twin = fitted([WeightAveraging(ema_momentum=0.8)])
        model.fit(oracle_models.dataset(x, y), epochs=1, verbose=0, callbacks=[averaging])
        states = [twin.get_weights()]
        for batch in oracle_models.dataset(x, y):
            twin.train_on_batch(*batch)
            states.append(twin.get_weights())
    average = states[0]
    for state in states[1:]:
        average = [0.8 * a + 0.2 * w for a, w in zip(average, state, strict=True)]
    assert oracle_models.deviation(model.get_weights(), average) < GATE
