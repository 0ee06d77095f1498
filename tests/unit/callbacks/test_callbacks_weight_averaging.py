import os
import signal

import keras
import numpy as np
import oracle_models
import pytest

from keras_opt import callbacks
from keras_opt.callbacks import WeightAveraging
from keras_opt.compression import PolynomialSparsity, PruneLowMagnitude, sparsity
from keras_opt.core.errors import InputError, NoEffectWarning
from keras_opt.training import StepHooks, attach

MOMENTUM = 0.7
X, Y = (each.astype("float32") for each in oracle_models.data("batch_norm"))
BATCHES = oracle_models.dataset(X, Y)


def compiled(kind="batch_norm", optimizer=None, **settings):
    model = oracle_models.build(kind)
    model.compile(optimizer or keras.optimizers.SGD(0.1), "mse", **settings)
    return model


def fit(listed, epochs=2, model=None, batches=BATCHES, **arguments):
    model = model or compiled()
    model.fit(batches, epochs=epochs, verbose=0, callbacks=listed, **arguments)
    return model


def replay(states, momentum=MOMENTUM):
    average = states[0]
    for state in states[1:]:
        average = [momentum * a + (1 - momentum) * w for a, w in zip(average, state, strict=True)]
    return average


def same(found, expected, tolerance=1e-5):
    return oracle_models.deviation(found, expected) < tolerance


def equal(found, expected):
    return all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def flat(states):
    return [weight for state in states for weight in state]


class Watch(keras.callbacks.Callback):
    """Notes the weights at each call, and the raw ones after each update."""

    def __init__(self):
        super().__init__()
        self.seen = {}
        self.states = []

    def note(self, event):
        self.seen.setdefault(event, []).append(self.model.get_weights())

    def on_train_begin(self, logs=None):
        self.states = [self.model.get_weights()]

    def on_train_batch_end(self, batch, logs=None):
        self.states.append(self.model.get_weights())

    def on_epoch_begin(self, epoch, logs=None):
        self.note("epoch_begin")

    def on_test_batch_begin(self, batch, logs=None):
        self.note("test")

    def on_test_end(self, logs=None):
        self.note("test_end")

    def on_epoch_end(self, epoch, logs=None):
        self.note("epoch_end")

    def on_train_end(self, logs=None):
        self.note("train_end")


def states_without_averaging(epochs=2):
    watch = Watch()
    fit([watch], epochs)
    return watch.states


# --- what is in place, and when --------------------------------------------------------------------------------------


def test_each_callback_sees_the_weights_it_should():
    first, last = Watch(), Watch()
    model = fit([first, WeightAveraging(ema_momentum=MOMENTUM), last], validation_data=(X, Y))
    states = states_without_averaging()
    assert equal(flat(last.states), flat(states))  # training is as if there were no averages
    for epoch, updates in enumerate((11, 22)):
        raw, averaged = states[updates], replay(states[: updates + 1])
        assert equal(first.seen["epoch_end"][epoch], raw)
        assert same(last.seen["epoch_end"][epoch], averaged)
        assert same(last.seen["test"][2 * epoch], averaged)
        assert same(first.seen["test"][2 * epoch], averaged)
        assert equal(last.seen["test_end"][epoch], raw)
        assert same(first.seen["test_end"][epoch], averaged)
        assert equal(last.seen["epoch_begin"][epoch], states[updates - 11])
    assert same(model.get_weights(), averaged)
    assert same(first.seen["train_end"][0], averaged)


def test_checkpoints_within_an_epoch_are_raw_and_those_at_its_end_averaged(tmp_path):
    within = keras.callbacks.ModelCheckpoint(tmp_path / "{batch}.weights.h5", save_freq=4, save_weights_only=True)
    at_end = keras.callbacks.ModelCheckpoint(tmp_path / "end.weights.h5", save_weights_only=True)
    fit([within, WeightAveraging(ema_momentum=MOMENTUM), at_end], epochs=1)
    states, loaded = states_without_averaging(1), compiled()
    loaded.load_weights(tmp_path / "4.weights.h5")
    assert equal(loaded.get_weights(), states[4])
    loaded.load_weights(tmp_path / "end.weights.h5")
    assert same(loaded.get_weights(), replay(states))


def test_best_weights_of_a_stopping_after_it_are_averages():
    stop = callbacks.EarlyStopping("val_loss", patience=0, min_delta=1e9, restore_best_weights=True)
    model = fit([WeightAveraging(ema_momentum=MOMENTUM), stop], epochs=3, validation_data=(X, Y))
    assert same(model.get_weights(), replay(states_without_averaging(1)))


def test_swa_takes_the_end_of_each_epoch_once_and_in_its_own_validation():
    watch = Watch()
    model = fit([WeightAveraging("swa", start=0.5), watch], epochs=4, validation_data=(X, Y))
    states = states_without_averaging(4)
    assert equal(watch.seen["test"][2], states[22])  # not started
    assert same(watch.seen["test"][4], states[33])
    assert same(model.get_weights(), [np.mean(pair, axis=0) for pair in zip(states[33], states[44], strict=True)])


def test_an_evaluation_by_another_callback_within_an_epoch_judges_the_raw_weights():
    class Judge(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            before = self.model.get_weights()
            self.model.evaluate(X, Y, verbose=0)
            self.model.predict(X, verbose=0)
            assert equal(self.model.get_weights(), before)

    model = fit([WeightAveraging(ema_momentum=MOMENTUM), Judge()], epochs=1, validation_data=(X, Y))
    assert same(model.get_weights(), replay(states_without_averaging(1)))


def test_after_training_an_evaluation_or_prediction_with_the_callback_changes_nothing():
    averaging = WeightAveraging(ema_momentum=MOMENTUM)
    model = fit([averaging], epochs=1)
    before = model.get_weights()
    model.evaluate(X, Y, verbose=0, callbacks=[averaging])
    model.predict(X, verbose=0, callbacks=[averaging])
    assert equal(model.get_weights(), before)


def test_it_averages_in_a_loop_of_ones_own():
    model = compiled()
    states = [model.get_weights()]
    with attach(model, WeightAveraging(ema_momentum=MOMENTUM)):
        for x, y in BATCHES:
            model.train_on_batch(x, y)
            states.append(model.get_weights())
    assert same(model.get_weights(), replay(states))
    assert "train_step" not in vars(model)


# --- statistics ------------------------------------------------------------------------------------------------------


def test_statistics_are_taken_from_the_dataset_once_an_update():
    passes = []

    class Batches:
        def __iter__(self):
            passes.append(1)
            return iter([X[:20], X[20:]])

    first, last = Watch(), Watch()
    averaging = WeightAveraging(ema_momentum=MOMENTUM, reestimate_batch_norm=Batches())
    model = fit([first, averaging, last], validation_data=(X, Y))
    states = states_without_averaging()
    hidden = X @ replay(states)[0]
    for weights in (model.get_weights(), last.seen["epoch_end"][1], last.seen["test"][2]):
        assert np.allclose(weights[3], hidden.mean(0), atol=1e-5)
        assert np.allclose(weights[4], hidden.var(0), atol=1e-5)
    assert equal(flat(first.states), flat(states))
    assert len(passes) == 2


def test_lookahead_keeps_the_fast_weights_statistics():
    watch = Watch()
    model = fit([WeightAveraging("lookahead", every=4), watch], epochs=1)
    assert equal(model.get_weights()[3:5], watch.states[-1][3:5])
    assert equal(model.get_weights()[:1], watch.states[8][:1])


def test_weights_of_other_types_are_left_alone():
    class Counter(keras.layers.Layer):
        def build(self, shape):
            self.count = self.add_weight(shape=(), dtype="int32", initializer="zeros", trainable=False)

        def call(self, x):
            self.count.assign_add(1)
            return x

    model = keras.Sequential([keras.Input((3,)), Counter(), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    fit([WeightAveraging(ema_momentum=MOMENTUM)], epochs=1, model=model)
    assert int(model.layers[0].count) == 11


def test_a_validation_leaves_the_averages_where_they_were_before_it():
    averaging, model = WeightAveraging(ema_momentum=MOMENTUM), compiled()
    with attach(model, averaging) as running:
        model.train_on_batch(X, Y)
        raw = model.get_weights()
        running.on_test_begin()
        averages = model.get_weights()
        running.on_test_end()
        assert equal(model.get_weights(), raw)
        running.on_epoch_end(0, {})
        running.on_test_begin()
        running.on_test_end()
        assert equal(model.get_weights(), averages)
    assert equal(model.get_weights(), averages)


class DriftingNorm(keras.callbacks.Callback):
    """Notes the statistics of each replica, which drift apart without `synchronized`."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        strategy, mean = self.model.distribute_strategy, self.model.layers[1].moving_mean
        self.seen.append([part.numpy() for part in strategy.experimental_local_results(mean.value)])


def test_every_replica_gets_its_own_raw_statistics_back(two_replicas):
    seen = []
    for averages in ([], [WeightAveraging(ema_momentum=MOMENTUM, reestimate_batch_norm=BATCHES)]):
        keras.utils.set_random_seed(0)
        with two_replicas.scope():
            layers = [keras.layers.Dense(4), keras.layers.BatchNormalization(momentum=0.9), keras.layers.Dense(1)]
            model = keras.Sequential([keras.Input((3,)), *layers])
            model.compile(keras.optimizers.SGD(0.1), "mse")
        drifting = DriftingNorm()
        fit(
            [*averages, drifting], model=model, batches=BATCHES.take(2), validation_data=(X, Y), validation_batch_size=4
        )
        seen.append(drifting.seen)
    assert np.allclose(seen[0], seen[1], atol=1e-6)
    assert not np.allclose(seen[1][-1][0], seen[1][-1][1], atol=1e-3)
    hidden = X @ model.get_weights()[0] + model.get_weights()[1]
    assert np.allclose(model.layers[1].moving_mean, hidden.mean(0), atol=1e-5)


# --- interrupts ------------------------------------------------------------------------------------------------------


class Interrupt(Watch):
    """A real Ctrl-C at one event, or an exception."""

    def __init__(self, event, batch=6, error=None):
        super().__init__()
        self.event, self.batch, self.error = event, batch, error

    def strike(self, event, batch):
        if (event, batch) == (self.event, self.batch):
            if self.error is not None:
                raise self.error
            os.kill(os.getpid(), signal.SIGINT)

    def on_train_batch_begin(self, batch, logs=None):
        self.strike("train", batch)

    def on_test_batch_begin(self, batch, logs=None):
        self.strike("test", batch)


@pytest.mark.parametrize(("event", "batch", "updates"), [("train", 6, 6), ("test", 1, 11)])
def test_after_a_real_ctrl_c_the_averages_are_in_the_model(event, batch, updates):
    interrupt, model = Interrupt(event, batch), compiled()
    with pytest.raises(KeyboardInterrupt):
        fit([WeightAveraging(ema_momentum=MOMENTUM), interrupt], model=model, validation_data=(X, Y))
    assert len(interrupt.states) == updates + 1
    assert same(model.get_weights(), replay(interrupt.states))
    assert "train_step" not in vars(model)
    assert "apply" not in vars(model.optimizer)


def test_a_ctrl_c_before_averaging_has_started_leaves_the_raw_weights():
    interrupt, model = Interrupt("train"), compiled()
    with pytest.raises(KeyboardInterrupt):
        fit([WeightAveraging("swa"), interrupt], model=model)
    assert equal(model.get_weights(), interrupt.states[-1])


def test_a_ctrl_c_in_the_middle_of_a_trace_or_a_swap():
    for batch in (0, 6):

        class Layer(keras.layers.Layer):
            armed = False

            def call(self, x):
                if self.armed:
                    os.kill(os.getpid(), signal.SIGINT)
                return x

        layer = Layer()
        model = keras.Sequential([keras.Input((3,)), layer, keras.layers.Dense(1)])
        model.compile("sgd", "mse", run_eagerly=batch > 0)
        watch = Watch()

        def arm(at, logs=None, layer=layer, batch=batch):
            layer.armed = at == batch

        arming = keras.callbacks.LambdaCallback(on_train_batch_begin=arm)
        with pytest.raises(KeyboardInterrupt):
            fit([WeightAveraging(ema_momentum=MOMENTUM), watch, arming], model=model)
        layer.armed = False
        assert same(model.get_weights(), replay(watch.states))


def test_what_an_exception_left_behind_is_put_right_at_the_next_fit():
    interrupt, model = Interrupt("test", 1, error=OSError("disk")), compiled()
    with pytest.raises(OSError, match="disk"):
        fit([WeightAveraging(ema_momentum=MOMENTUM), interrupt], model=model, validation_data=(X, Y))
    watch = Watch()
    fit([WeightAveraging(ema_momentum=MOMENTUM), watch], epochs=1, model=model)
    assert same(watch.states[0], replay(interrupt.states))
    assert same(model.get_weights(), replay(watch.states))


# --- pruning ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("averages_first", [True, False])
def test_pruned_weights_are_zero_in_the_averages(averages_first, recwarn):
    prune = PruneLowMagnitude(PolynomialSparsity(0.0, 0.5, begin_step=0, end_step=16), every=4)
    averaging, watch = WeightAveraging(ema_momentum=0.9), Watch()
    listed = [averaging, prune] if averages_first else [prune, averaging]
    model = fit([*listed, watch], validation_data=(X, Y))
    assert sparsity(model)["total"] == 0.5
    assert all(np.mean(watch.seen["epoch_end"][1][place] == 0) == 0.5 for place in (0, 5))
    assert not [each for each in recwarn if "PruneLowMagnitude" in str(each.message)]


# --- errors and warnings ---------------------------------------------------------------------------------------------


def test_a_fit_too_short_to_average_says_so_and_keeps_the_raw_weights():
    with pytest.warns(NoEffectWarning, match="made 11 updates, and none of them was averaged with start=50 and"):
        model = fit([WeightAveraging(start=50)], epochs=1)
    assert equal(model.get_weights(), states_without_averaging(1)[-1])


def test_an_average_that_is_mostly_the_first_weights_is_warned_of_with_a_better_momentum():
    with pytest.warns(UserWarning, match="the start still make up 90% of the average.* 0.66 would leave 1%"):
        fit([WeightAveraging(ema_momentum=0.99)], epochs=1)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"kind": "polyak"}, "kind"),
        ({"ema_momentum": 1.0}, "ema_momentum"),
        ({"ema_momentum": -0.1}, "ema_momentum"),
        ({"ema_momentum": float("nan")}, "ema_momentum"),
        ({"start": -1}, "start"),
        ({"start": 1.0}, "start"),
        ({"start": 0.0}, "start"),
        ({"start": float("nan")}, "start"),
        ({"start": True}, "start"),
        ({"start": "half"}, "start"),
        ({"every": 0}, "every"),
        ({"every": 1.5}, "every"),
        ({"slow_step_size": 0}, "slow_step_size"),
        ({"slow_step_size": 1.1}, "slow_step_size"),
        ({"reestimate_batch_norm": True}, "reestimate_batch_norm"),
    ],
)
def test_bad_arguments_are_named(arguments, name):
    with pytest.raises(InputError, match=f"WeightAveraging: argument `{name}` must be"):
        WeightAveraging(**arguments)


ORDERS = {
    "early_stopping": (
        lambda: [callbacks.EarlyStopping("loss"), WeightAveraging()],
        "[WeightAveraging, EarlyStopping]",
    ),
    "keras_stopping": (
        lambda: [keras.callbacks.EarlyStopping("loss"), WeightAveraging()],
        "[WeightAveraging, EarlyStopping]",
    ),
    "checkpoint": (
        lambda: [keras.callbacks.ModelCheckpoint("x.keras"), WeightAveraging()],
        "[WeightAveraging, ModelCheckpoint]",
    ),
    "backup": (
        lambda: [WeightAveraging(), keras.callbacks.BackupAndRestore("x")],
        "[BackupAndRestore, WeightAveraging]",
    ),
    "swap": (lambda: [WeightAveraging(), keras.callbacks.SwapEMAWeights()], "SwapEMAWeights in the same list"),
    "twice": (lambda: [WeightAveraging(), WeightAveraging("swa")], "WeightAveraging in the same list"),
}


@pytest.mark.parametrize("name", ORDERS)
def test_a_wrong_list_of_callbacks_is_refused_and_leaves_nothing_behind(name):
    make, message = ORDERS[name]
    model = compiled()
    with pytest.raises(InputError) as caught:
        fit(make(), model=model)
    assert message in str(caught.value)
    assert "train_step" not in vars(model)
    assert "apply" not in vars(model.optimizer)


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: keras.optimizers.Adam(use_ema=True),
        lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(use_ema=True)),
    ],
)
def test_an_optimizer_that_averages_is_refused(optimizer):
    model = compiled(optimizer=optimizer())
    with pytest.raises(InputError, match="use_ema=True"):
        fit([WeightAveraging()], model=model)
    assert "train_step" not in vars(model)
    assert "apply" not in vars(model.optimizer)


def test_beginning_twice_without_an_end_keeps_one_plugin():
    averaging, model = WeightAveraging(ema_momentum=MOMENTUM), compiled()
    averaging.set_model(model)
    averaging.set_params({"epochs": 1})
    averaging.on_train_begin()
    averaging.on_train_begin()
    assert len(StepHooks.of(model).plugins) == 1
    with pytest.warns(NoEffectWarning):
        averaging.on_train_end()
    assert StepHooks.of(model).plugins == ()
