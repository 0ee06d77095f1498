"""EarlyStopping's decisions, weights, state and messages, in scripted epochs and in fits."""

import json
import math
import pickle
import signal
import sys
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_opt.callbacks import (
    Divergence,
    EarlyStopping,
    GradientAccumulation,
    GradientMonitor,
    LearningRateMonitor,
    Plateau,
    Target,
    TimeBudget,
)
from keras_opt.callbacks.criteria import training_meter
from keras_opt.core.errors import NoEffectWarning


class StubModel:
    """What EarlyStopping asks of a model; its one weight is the epoch."""

    distribute_strategy = tf.distribute.get_strategy()
    steps_per_execution = 1

    def __init__(self):
        self.stop_training = False
        self.weights = [keras.Variable(0.0)]

    @property
    def weight(self):
        return float(self.weights[0].numpy())


def drive(callback, sequence, monitor="loss"):
    """Feed the callback as `fit` would; return the model."""
    model = StubModel()
    callback.set_params({"epochs": len(sequence)})
    callback.set_model(model)
    callback.on_train_begin()
    for epoch, value in enumerate(sequence):
        model.weights[0].assign(float(epoch))
        callback.on_epoch_end(epoch, value if isinstance(value, dict) else {monitor: value})
        if model.stop_training:
            break
    callback.on_train_end()
    return model


def one_dense(rate=0.0, **settings):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(rate), "mse", **settings)
    return model


DATA = np.ones((4, 2)), np.ones((4, 1))


class Logs(keras.callbacks.Callback):
    """Adds scripted values to the logs, one dict an epoch."""

    def __init__(self, *logs):
        super().__init__()
        self.logs = logs

    def on_epoch_end(self, epoch, logs=None):
        logs.update(self.logs[epoch])


# --- stopping --------------------------------------------------------------------------------------------------------


def test_a_combination_stops_fit_and_leaves_its_reason_in_the_history(capsys):
    stop = EarlyStopping(Plateau("loss", patience=2) | Target("loss", -1.0), verbose=1)
    history = one_dense().fit(*DATA, epochs=9, verbose=0, callbacks=[stop])
    assert len(history.epoch) == 3
    assert stop.stopped_epoch == 2
    assert history.stop_reason == stop.stopped_because
    assert stop.stopped_because.startswith("loss has not improved for 2 epochs; best ")
    assert capsys.readouterr().out == f"Stopped after epoch 3: {stop.stopped_because}.\n"


def test_a_fit_that_runs_to_its_end_says_so_in_the_history():
    stop = EarlyStopping(Target("loss", -1.0))
    history = one_dense().fit(*DATA, epochs=2, verbose=0, callbacks=[stop])
    assert stop.stopped_because == ""
    assert history.stop_reason == "all 2 epochs were run"


@pytest.mark.parametrize("own_first", [False, True])
def test_a_fit_that_another_callback_stopped_is_not_said_to_have_run_to_its_end(own_first):
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = epoch == 1

    listed = [EarlyStopping(Target("loss", -1.0)), Stop()]
    history = one_dense().fit(*DATA, epochs=9, verbose=0, callbacks=listed if own_first else listed[::-1])
    assert history.stop_reason == "another callback stopped it after epoch 2"


@pytest.mark.parametrize("stopping_first", [False, True])
def test_of_two_the_one_that_stopped_the_fit_says_why(stopping_first):
    stop = EarlyStopping(Target("loss", 1e9))
    listed = [stop, EarlyStopping(Target("loss", -1.0))]
    history = one_dense().fit(*DATA, epochs=9, verbose=0, callbacks=listed if stopping_first else listed[::-1])
    assert history.stop_reason == stop.stopped_because


def test_after_a_fit_it_can_be_pickled():
    stop = EarlyStopping("loss", patience=1, restore_best_weights=True)
    one_dense().fit(*DATA, epochs=2, verbose=0, callbacks=[stop])
    assert pickle.loads(pickle.dumps(stop)).best == stop.best


def test_it_can_be_pickled_where_an_earlier_fit_failed_and_handles_ctrl_c_still():
    class Broken(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise OSError("broken off")

    handler, first = signal.getsignal(signal.SIGINT), EarlyStopping("loss", patience=1, restore_best_weights=True)
    first.cannot_be_pickled = lambda: None
    try:
        with pytest.raises(OSError, match="broken off"):
            one_dense().fit(*DATA, verbose=0, callbacks=[first, Broken()])
        assert signal.getsignal(signal.SIGINT) is not handler
        stop = EarlyStopping("loss", patience=1, restore_best_weights=True)
        one_dense().fit(*DATA, epochs=2, verbose=0, callbacks=[stop])
        assert pickle.loads(pickle.dumps(stop)).best == stop.best
    finally:
        signal.signal(signal.SIGINT, handler)


def test_a_second_fit_starts_anew():
    stop = EarlyStopping("loss", patience=1, restore_best_weights=True)
    drive(stop, [1, 2])
    assert drive(stop, [5, 4, 3]).weight == 2
    assert (stop.stopped_epoch, stop.stopped_because, stop.best) == (0, "", 3)


def test_a_criterion_of_ones_own_is_enough():
    class Third:
        reason = ""

        def reset(self):
            self.reason = ""

        def update(self, epoch, logs):
            self.reason = "it is the third" if epoch == 2 else ""
            return bool(self.reason)

    stop = EarlyStopping(Third())
    drive(stop, [1, 1, 1, 1])
    assert (stop.stopped_epoch, stop.stopped_because) == (2, "it is the third")
    with pytest.raises(TypeError, match="the criterion Third cannot be resumed"):
        stop.state_dict()


def test_validation_freq_counts_only_epochs_with_validation():
    stop = EarlyStopping("val_loss", patience=2)
    with pytest.warns(NoEffectWarning, match="epoch 1 had no validation, so 'val_loss' is not in its logs") as caught:
        history = one_dense().fit(
            *DATA, validation_data=DATA, validation_freq=2, epochs=20, verbose=0, callbacks=[stop]
        )
    assert len([warning for warning in caught if warning.category is NoEffectWarning]) == 1
    assert len(history.epoch) == 6


def test_patience_counts_updates_of_the_weights_not_micro_batches():
    x, y = np.ones((24, 2)), np.ones((24, 1))  # six batches an epoch, three updates
    for callbacks in ([], [GradientAccumulation(2)]):
        stop = EarlyStopping(Plateau("loss", patience=6, patience_unit="update"))
        model = one_dense()
        for _ in range(2):  # the optimizer's count does not start at 0 in the second fit
            history = model.fit(x, y, batch_size=4, epochs=9, verbose=0, callbacks=[stop, *callbacks])
            assert len(history.epoch) == (3 if callbacks else 2)
            assert "for 6 updates" in history.stop_reason


@pytest.mark.parametrize("steps", [1, 8])
def test_steps_per_execution_changes_no_decision(steps):
    x, y = np.ones((44, 2)), np.ones((44, 1))
    stop = EarlyStopping(Plateau("loss", patience=22, patience_unit="update") & Plateau("val_loss", patience=2))
    model = one_dense(steps_per_execution=steps)
    history = model.fit(x, y, batch_size=4, validation_data=(x, y), epochs=9, verbose=0, callbacks=[stop])
    assert len(history.epoch) == 3


# --- time ------------------------------------------------------------------------------------------------------------


class FakeClock:
    now = 0.0


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still unless a test moves it."""

    class Stopwatch:
        def __init__(self):
            self.begin = FakeClock.now

        @property
        def seconds(self):
            return FakeClock.now - self.begin

    FakeClock.now = 100.0
    monkeypatch.setattr(training_meter, "Stopwatch", Stopwatch)
    return FakeClock


class Work(keras.callbacks.Callback):
    """Lets a step and a validation batch take their time; the first of each is slow, as if it were traced."""

    def __init__(self, clock, step=1.0, validation_batch=0.0):
        super().__init__()
        self.clock, self.step, self.validation_batch = clock, step, validation_batch
        self.steps = 0
        self.validations = 0

    def on_train_batch_end(self, batch, logs=None):
        self.clock.now += self.step if self.steps else 5 * self.step
        self.steps += 1

    def on_test_batch_end(self, batch, logs=None):
        self.clock.now += self.validation_batch

    def on_test_end(self, logs=None):
        self.validations += 1


def fit_in_time(budget, work, **settings):
    x, y = np.ones((40, 2)), np.ones((40, 1))
    stop = EarlyStopping(budget)
    settings = {"batch_size": 4, "epochs": 9, "verbose": 0} | settings
    history = one_dense(steps_per_execution=settings.pop("steps_per_execution", 1)).fit(
        x, y, callbacks=[work, stop], **settings
    )
    return history, stop


def test_a_time_budget_stops_within_an_epoch(clock):
    work = Work(clock)
    history, stop = fit_in_time(TimeBudget(26), work)  # 14 seconds in the first epoch, then 10 an epoch
    assert (work.steps, len(history.epoch), stop.stopped_epoch) == (22, 3, 2)
    assert history.stop_reason == "26.0 s of the 26 s to train are used"


def test_a_time_budget_stops_after_an_execution(clock):
    work = Work(clock, step=5.0)  # five steps, two executions an epoch, the first one five times as long
    fit_in_time(TimeBudget(31), work, steps_per_execution=5)
    assert (work.steps, clock.now) == (3, 135)


def test_a_time_budget_holds_back_the_last_validation(clock):
    work = Work(clock, validation_batch=0.5)  # a validation takes 5 s: 19 s the first epoch, then 15
    x, y = np.ones((40, 2)), np.ones((40, 1))
    history, stop = fit_in_time(TimeBudget(30), work, validation_data=(x, y))
    assert (work.steps, work.validations, clock.now) == (16, 2, 130)
    assert history.stop_reason == "25.0 s of the 30 s to train are used, and 5.0 s are kept for a validation"
    assert stop.stopped_epoch == 1


def validation(kind):
    x, y = np.ones((40, 2)), np.ones((40, 1))
    if kind == "arrays":
        return {"validation_data": (x, y), "validation_batch_size": 10}
    if kind == "tf.data":
        return {"validation_data": tf.data.Dataset.from_tensor_slices((x, y)).batch(10)}
    if kind == "steps":
        return {"validation_data": (x, y), "validation_steps": 4}
    return {"validation_split": 0.25, "validation_batch_size": 3}


@pytest.mark.parametrize("kind", ["arrays", "tf.data", "steps", "split"])
def test_before_the_first_validation_a_batch_of_it_counts_as_half_a_step(clock, kind):
    work = Work(clock, step=2.0, validation_batch=1.0)
    # After k steps 2 * k + 8 s are gone, and 4 validation batches take 4 s.
    fit_in_time(TimeBudget(24), work, **validation(kind))
    assert (work.steps, work.validations, clock.now) == (6, 1, 124)


def test_a_validation_of_unknown_length_is_not_held_back_before_the_first(clock):
    def batches():
        while True:
            yield np.ones((4, 2)), np.ones((4, 1))

    signature = (tf.TensorSpec((None, 2)), tf.TensorSpec((None, 1)))
    endless = tf.data.Dataset.from_generator(batches, output_signature=signature).take(4)
    work = Work(clock, step=2.0, validation_batch=1.0)
    fit_in_time(TimeBudget(24), work, validation_data=endless)
    assert (work.steps, clock.now) == (8, 128)


def test_both_of_a_plateau_and_a_time_budget(clock):
    work = Work(clock)
    _, stop = fit_in_time(Plateau("loss", patience=1) & TimeBudget(27), work)
    assert (work.steps, stop.stopped_epoch) == (23, 2)
    assert stop.stopped_because.startswith("loss has not improved for 1 epoch; best ")
    assert stop.stopped_because.endswith(" at epoch 1 and 27.0 s of the 27 s to train are used")


def test_seconds_add_up_over_resumes(clock):
    stop = EarlyStopping(TimeBudget(60) | Plateau("loss", patience=1000, patience_unit="second"))
    stop.set_model(StubModel())
    stop.on_train_begin()
    clock.now += 40
    state = json.loads(json.dumps(stop.state_dict()))
    clock.now += 1000  # the process was dead
    stop.on_train_begin()
    stop.load_state_dict(state)
    clock.now += 19
    stop.on_train_batch_begin(0)
    stop.on_train_batch_end(0)
    assert not stop.model.stop_training
    clock.now += 1
    stop.on_train_batch_end(1)
    assert stop.model.stop_training
    assert stop.stopped_because == "60.0 s of the 60 s to train are used"


def test_a_real_time_budget_of_a_second_is_kept():
    class Slow(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            threading.Event().wait(0.02)

    stop = EarlyStopping(TimeBudget(max_seconds=1.0))
    history = one_dense().fit(np.ones((400, 2)), np.ones((400, 1)), 2, epochs=50, verbose=0, callbacks=[Slow(), stop])
    assert len(history.epoch) == 1
    assert 0.8 <= stop.state_dict()["meter"]["seconds"] <= 1.5  # on a busy machine


def test_workers_that_have_clocks_of_their_own_would_not_stop_alike():
    class Cluster(StubModel):
        class distribute_strategy:
            cluster_resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
                tf.train.ClusterSpec({"worker": ["a:1", "b:1"]}), task_type="worker", task_id=1
            )

    for criterion in (TimeBudget(3), Plateau("loss", 3, patience_unit="second") & Target("loss", 1)):
        with pytest.raises(ValueError, match="2 workers train together, each with a clock of its own"):
            EarlyStopping(criterion).set_model(Cluster())
    EarlyStopping(Plateau("loss", 3, patience_unit="update")).set_model(Cluster())


# --- best weights ----------------------------------------------------------------------------------------------------


@pytest.fixture(params=["memory", "file"])
def place(request, tmp_path):
    return {"filepath": tmp_path / "best.weights.h5"} if request.param == "file" else {}


class Weigh(keras.callbacks.Callback):
    """Sets the weights to the number of the epoch, from 1, before EarlyStopping looks."""

    def on_epoch_end(self, epoch, logs=None):
        fill(self.model, epoch + 1)


def fill(model, number):
    model.set_weights([np.full_like(weight, number) for weight in model.get_weights()])


def numbers(model):
    return {float(number) for weight in model.get_weights() for number in np.ravel(weight)}


def scripted(*values):
    return [Weigh(), Logs(*({"score": value} for value in values))]


def test_the_best_weights_come_back_with_a_sentence(place, capsys):
    stop = EarlyStopping("score", patience=2, verbose=1, mode="max", restore_best_weights=True, **place)
    model = one_dense()
    history = model.fit(*DATA, epochs=9, verbose=0, callbacks=[*scripted(1, 3, 2, 2), stop])
    assert numbers(model) == {2}
    assert (stop.best, stop.best_epoch, stop.stopped_epoch) == (3, 1, 3)
    assert (
        capsys.readouterr().out == f"Stopped after epoch 4: {history.stop_reason}. The weights are those of epoch 2.\n"
    )


def test_the_best_weights_come_back_also_when_nothing_stopped(place, capsys):
    stop = EarlyStopping("score", patience=9, verbose=1, mode="max", restore_best_weights=True, **place)
    model = one_dense()
    model.fit(*DATA, epochs=3, verbose=0, callbacks=[*scripted(1, 3, 2), stop])
    assert numbers(model) == {2}
    assert (stop.stopped_epoch, stop.wait) == (0, 1)
    assert capsys.readouterr().out == "The weights are those of epoch 2.\n"


def test_the_constraint_of_a_frozen_layer_does_not_change_its_weights(place):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, kernel_constraint="non_neg")])
    model.layers[0].trainable = False
    model.compile("sgd", "mse")
    model.set_weights([np.full((2, 1), -1.0), np.zeros(1)])
    stop = EarlyStopping("loss", patience=9, restore_best_weights=True, **place)
    model.fit(*DATA, epochs=2, verbose=0, callbacks=[stop])
    np.testing.assert_array_equal(model.get_weights()[0], np.full((2, 1), -1.0))


def test_the_optimizer_and_the_seeds_go_on(place):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dropout(0.5), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    stop = EarlyStopping("score", patience=9, mode="max", restore_best_weights=True, **place)
    ends = []
    look = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: ends.append(others(model)))
    model.fit(*DATA, epochs=3, verbose=0, callbacks=[*scripted(1, 3, 2), stop, look])
    np.testing.assert_array_equal(others(model), ends[-1])
    assert int(model.optimizer.iterations) == 3


def others(model):
    """The state that is no weight: optimizer and seeds."""
    weights = {id(weight) for weight in model.weights}
    seeds = [variable for variable in model.variables if id(variable) not in weights]
    return np.concatenate([np.ravel(variable.numpy()) for variable in [*model.optimizer.variables, *seeds]])


def test_the_copy_in_memory_is_written_over_in_place():
    stop = EarlyStopping("loss", patience=9, restore_best_weights=True)
    copies = []
    look = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: copies.append(stop.best_weights))
    one_dense(0.1).fit(*DATA, epochs=3, verbose=0, callbacks=[stop, look])
    assert stop.best_epoch == 2
    assert all(array is first for copy in copies for array, first in zip(copy, copies[0], strict=True))


def test_the_file_holds_the_best_weights_and_stays(tmp_path):
    stop = EarlyStopping(
        "score", mode="max", patience=9, restore_best_weights=True, filepath=tmp_path / "best.weights.h5"
    )
    model = one_dense()
    model.fit(*DATA, epochs=3, verbose=0, callbacks=[*scripted(1, 3, 2), stop])
    fill(model, 7)
    model.load_weights(tmp_path / "best.weights.h5")
    assert numbers(model) == {2}
    assert stop.best_weights is None
    assert [path.name for path in tmp_path.iterdir()] == ["best.weights.h5"]


def test_another_value_may_say_which_epoch_is_best():
    logs = [{"a": 1.0, "my_accuracy": 0.1}, {"a": 2.0, "my_accuracy": 0.9}, {"a": 3.0, "my_accuracy": 0.3}]
    model = one_dense()
    stop = EarlyStopping(Target("a", 3.0, "max"), restore_best_weights=True, best="my_accuracy")
    model.fit(*DATA, epochs=9, verbose=0, callbacks=[Weigh(), Logs(*logs), stop])
    assert numbers(model) == {2}
    assert (stop.best, stop.best_epoch, stop.wait, stop.stopped_epoch) == (0.9, 1, 0, 2)
    stop = EarlyStopping("a", mode="min", patience=1, restore_best_weights=True, best="my_accuracy", start_from_epoch=1)
    drive(stop, [{"a": 1.0, "my_accuracy": 0.9}, *logs])
    assert (stop.best_epoch, stop.stopped_epoch) == (2, 2)


def test_the_first_plateau_in_reading_order_says_which_epoch_is_best():
    criterion = Target("loss", -1) | (Divergence("loss") & Plateau("a", 5, mode="max")) | Plateau("b", 5, mode="max")
    stop = EarlyStopping(criterion, restore_best_weights=True)
    model = drive(stop, [{"loss": 0, "a": 1, "b": 9}, {"loss": 0, "a": 2, "b": 8}, {"loss": 0, "a": 0, "b": 7}])
    assert model.weight == stop.best_epoch == 1


def test_nothing_is_put_back_if_nothing_was_ever_finite():
    stop = EarlyStopping("loss", patience=1, restore_best_weights=True)
    assert drive(stop, [math.nan, math.inf]).weight == 1
    assert stop.best is None


class Interrupted(keras.callbacks.Callback):
    """Presses Ctrl-C at a batch."""

    def __init__(self, epoch):
        super().__init__()
        self.strike = epoch

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.epoch == self.strike:
            signal.raise_signal(signal.SIGINT)


@pytest.fixture
def default_handler():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler, "the handler from before is back"
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("default_handler")
def test_the_best_weights_come_back_after_ctrl_c_too(place):
    stop = EarlyStopping("score", patience=9, mode="max", restore_best_weights=True, **place)
    model = one_dense()
    with pytest.raises(KeyboardInterrupt):
        model.fit(*DATA, epochs=9, verbose=0, callbacks=[*scripted(1, 3, 2), Interrupted(3), stop])
    assert numbers(model) == {2}
    assert model.history.stop_reason == stop.stopped_because == "interrupted by Ctrl-C in epoch 4"


@pytest.mark.usefixtures("default_handler")
def test_ctrl_c_before_there_was_a_best_epoch_leaves_the_weights():
    stop = EarlyStopping("loss", restore_best_weights=True)
    model = one_dense()
    fill(model, 5)
    with pytest.raises(KeyboardInterrupt):
        model.fit(*DATA, verbose=0, callbacks=[Interrupted(0), stop])
    assert numbers(model) == {5}


@pytest.mark.usefixtures("default_handler")
def test_the_best_weights_come_back_when_ctrl_c_strikes_in_the_middle_of_a_trace(place):
    class Trap(keras.layers.Layer):
        armed = False

        def call(self, x):
            if Trap.armed:
                signal.raise_signal(signal.SIGINT)
            return x

    model = keras.Sequential([keras.Input((2,)), Trap(), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1), "mse")

    class Retrace(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                Trap.armed = True
                self.model.make_train_function(force=True)

    stop = EarlyStopping("score", patience=9, mode="max", restore_best_weights=True, **place)
    with pytest.raises(KeyboardInterrupt):
        model.fit(*DATA, epochs=9, verbose=0, callbacks=[Retrace(), *scripted(3, 1), stop])
    Trap.armed = False
    assert numbers(model) == {1}


@pytest.mark.usefixtures("default_handler")
def test_a_fit_that_an_exception_ended_does_not_leave_a_trap_for_the_next():
    model = one_dense()
    stop = EarlyStopping("score", patience=9, mode="max", restore_best_weights=True)
    with pytest.raises(IndexError):
        model.fit(*DATA, epochs=9, verbose=0, callbacks=[*scripted(3, 1), stop])  # has logs for two epochs only
    model.fit(*DATA, verbose=0, callbacks=[*scripted(3), stop])


def test_it_works_on_two_replicas(two_replicas, place):
    with two_replicas.scope():
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        model.compile(keras.optimizers.Adam(0.1), "mse")
    stop = EarlyStopping(Plateau("val_loss", patience=4, patience_unit="update"), restore_best_weights=True, **place)
    x, y = np.random.default_rng(0).normal(size=(16, 2)), np.ones((16, 1))
    losses = []
    look = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: losses.append(logs["val_loss"]))
    away = np.random.default_rng(1).normal(size=(8, 2)), np.zeros((8, 1))
    model.fit(x, y, batch_size=8, validation_data=away, epochs=12, verbose=0, callbacks=[stop, look])
    assert len(losses) == stop.best_epoch + 3  # two updates an epoch
    assert model.evaluate(*away, verbose=0) == pytest.approx(min(losses), rel=1e-6)
    kernel = two_replicas.experimental_local_results(model.weights[0].value)
    np.testing.assert_array_equal(kernel[0].numpy(), kernel[1].numpy())


# --- resume ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("epochs_before", range(1, 8))
def test_a_resumed_training_stops_as_one_that_was_never_killed(epochs_before, place):
    def stopping():
        criterion = Plateau("a", 3, mode="max", smoothing=0.3) & Plateau("b", 2, mode="max") | Target("b", 9.0, "max")
        return EarlyStopping(criterion, restore_best_weights=True, **place)

    values = [(1, 1), (3, 2), (2, 5), (2.5, 4), (2, 6), (1, 5), (1, 4), (1, 3), (1, 2), (9, 9)]
    logs = [{"a": a, "b": b} for a, b in values]
    model = one_dense()
    whole = stopping()
    model.fit(*DATA, epochs=10, verbose=0, callbacks=[Weigh(), Logs(*logs), whole])
    assert (whole.stopped_epoch, numbers(model)) == (6, {2})

    first = stopping()
    states = []
    save = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: states.append(first.state_dict()))
    one_dense().fit(*DATA, epochs=epochs_before, verbose=0, callbacks=[Weigh(), Logs(*logs), first, save])
    second, model = stopping(), one_dense()
    load = keras.callbacks.LambdaCallback(on_train_begin=lambda logs: second.load_state_dict(states[-1]))
    callbacks = [Weigh(), Logs(*logs), second, load]
    if epochs_before < 7:
        model.fit(*DATA, initial_epoch=epochs_before, epochs=10, verbose=0, callbacks=callbacks)
    else:  # it had stopped
        model.fit(*DATA, initial_epoch=10, epochs=10, verbose=0, callbacks=callbacks)
    assert numbers(model) == {2}
    for name in ("best", "best_epoch", "wait", "stopped_epoch", "stopped_because"):
        assert getattr(second, name) == getattr(whole, name)
    assert second.criterion.reason == whole.criterion.reason or epochs_before == 7


def test_a_state_is_numbers_texts_and_arrays_and_of_its_moment():
    stop = EarlyStopping("loss", patience=9, restore_best_weights=True, best="accuracy")
    drive(stop, [{"loss": 2.0, "accuracy": 0.5}])
    state = stop.state_dict()
    arrays = state["weights"].pop("arrays")
    assert all(isinstance(array, np.ndarray) for array in arrays)
    assert json.loads(json.dumps(state)) == state
    drive(stop, [{"loss": 2.0, "accuracy": 0.5}, {"loss": 1.0, "accuracy": 0.9}])
    assert arrays[0] == 0


def test_the_state_of_another_criterion_is_refused():
    state = EarlyStopping(Target("loss", 1) | Plateau("loss", 1)).state_dict()
    with pytest.raises(ValueError, match=r"`state` must be a state of \['Plateau'\]"):
        EarlyStopping("loss").load_state_dict(state)


# --- replay ----------------------------------------------------------------------------------------------------------


def test_a_replay_says_where_a_finished_training_would_have_stopped():
    history = {"val_loss": [3.0, 1.0, 2.0, math.nan, 2.0, 0.5], "loss": [1.0] * 6}
    assert EarlyStopping("val_loss", patience=2).replay(history) == (
        3,
        "val_loss has not improved for 2 epochs; best 1 at epoch 2",
        1,
        1.0,
    )
    assert EarlyStopping("val_loss", patience=9).replay(history) == (None, "", 5, 0.5)
    assert EarlyStopping(Target("val_loss", 1.0)).replay(history)[::2] == (1, None)
    best_elsewhere = EarlyStopping(Target("val_loss", 0.6), restore_best_weights=True, best="loss")
    assert best_elsewhere.replay(history)[2:] == (0, 1.0)


def test_a_replay_is_printed_as_a_sentence_that_counts_from_1():
    history = {"val_loss": [3.0, 1.0, 2.0, 2.0, 0.5]}
    assert str(EarlyStopping("val_loss", patience=2).replay(history)) == (
        "It would have stopped after epoch 4: val_loss has not improved for 2 epochs; best 1 at epoch 2. The best "
        "value, 1, is that of epoch 2."
    )
    whole = "It would not have stopped. The best value, 0.5, is that of epoch 5."
    assert str(EarlyStopping("val_loss", patience=9).replay(history)) == whole
    stopped = str(EarlyStopping(Target("val_loss", 1.0)).replay(history))
    assert stopped == "It would have stopped after epoch 2: val_loss reached 1 with 1 at epoch 2."


def test_a_replay_of_a_fit_decides_as_the_fit_did_and_disturbs_nothing():
    x = np.random.default_rng(0).normal(size=(16, 2))
    model = one_dense(0.3, metrics=[keras.metrics.MeanAbsoluteError(name="ranking")])
    stop = EarlyStopping(Plateau("ranking", patience=8, patience_unit="update"))
    history = model.fit(x, x[:, :1] * x[:, 1:], batch_size=4, epochs=40, verbose=0, callbacks=[stop])
    before = stop.state_dict()["criteria"]
    assert 0 < stop.stopped_epoch < 39
    for fresh in (stop, EarlyStopping(Plateau("ranking", patience=8, patience_unit="update"))):
        found = fresh.replay(history)
        assert found == (stop.stopped_epoch, stop.stopped_because, stop.best_epoch, stop.best)
    assert stop.state_dict()["criteria"] == before
    assert stop.criterion.meter is stop._meter


def test_a_replay_asks_for_what_a_history_does_not_hold():
    history = {"loss": [1.0] * 9}
    updates, seconds = Plateau("loss", 20, patience_unit="update"), TimeBudget(60)
    with pytest.raises(ValueError, match=r"`steps_per_epoch` must be known.* Give steps_per_epoch="):
        EarlyStopping(updates).replay(history)
    with pytest.raises(
        ValueError, match=r"`seconds_per_epoch` must be known.* Give seconds_per_epoch=, the seconds that one"
    ):
        EarlyStopping(seconds).replay(history)
    assert EarlyStopping(updates).replay(history, steps_per_epoch=10).epoch == 2
    assert EarlyStopping(seconds).replay(history, seconds_per_epoch=25).epoch == 2
    with pytest.raises(ValueError, match="Did you mean 'loss'"):
        EarlyStopping("val_loss").replay(history)


def test_a_replay_puts_sparse_validation_in_its_epochs():
    history = {"loss": [5, 4, 3, 2, 1], "val_loss": [1.0, 2.0]}
    with pytest.raises(ValueError, match=r"for each of its 5 epochs.* Give validation_freq="):
        EarlyStopping("val_loss", patience=1).replay(history)
    assert EarlyStopping("val_loss", patience=1).replay(history, validation_freq=2)[::2] == (3, 1)


# --- what is in the logs ---------------------------------------------------------------------------------------------


def ranked(metric, stop):
    """The epochs of a fit of constant weights with a metric named "ranking"."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, activation="sigmoid")])
    model.compile(keras.optimizers.SGD(0.0), "mse", metrics=[metric])
    model.fit(*DATA, validation_data=DATA, epochs=6, verbose=0, callbacks=[stop])
    return len(model.history.epoch)


@pytest.mark.parametrize(
    ("metric", "mode"), [(keras.metrics.AUC, "max"), (keras.metrics.MeanAbsoluteError, "min")], ids=["AUC", "MAE"]
)
@pytest.mark.parametrize("monitor", ["ranking", "val_ranking"])
def test_the_direction_of_a_metric_with_a_name_of_its_own_is_found_as_in_keras(metric, mode, monitor):
    stop = EarlyStopping(monitor, patience=2)
    theirs = keras.callbacks.EarlyStopping(monitor, patience=2)
    assert ranked(metric(name="ranking"), stop) == ranked(metric(name="ranking"), theirs)
    assert stop.criterion.mode == mode


def ranking(y_true, y_pred):
    """A metric function; Keras gives it no direction."""
    return y_pred


@pytest.mark.parametrize(
    ("monitor", "owner"),
    [("ranking", "EarlyStopping"), (Plateau("ranking", 2), "Plateau"), (Target("ranking", 2), "Target")],
)
def test_a_metric_without_a_direction_asks_for_the_mode(monitor, owner):
    with pytest.raises(ValueError, match=f'{owner}: argument `mode` must be "min" or "max" here'):
        ranked(ranking, EarlyStopping(monitor))


def test_a_best_value_without_a_direction_is_answered_with_the_way_out():
    with pytest.raises(ValueError, match=r"`best` must be a name whose direction is known.* let a Plateau\("):
        ranked(ranking, EarlyStopping("loss", patience=9, restore_best_weights=True, best="ranking"))


class SecondSet(keras.callbacks.Callback):
    """Evaluates a validation set under a prefix of its own, in every second epoch."""

    def on_epoch_end(self, epoch, logs=None):
        if epoch % 2 == 0:
            scores = self.model.evaluate(*DATA, verbose=0, return_dict=True)
            logs.update({f"night_{name}": value for name, value in scores.items()})


@pytest.mark.parametrize("monitor", ["night_loss", "night_ranking"])
def test_a_second_validation_set_has_a_prefix_of_its_own_and_may_be_looked_at_now_and_then(monitor):
    model = one_dense(metrics=[keras.metrics.MeanAbsoluteError(name="ranking")])
    stop = EarlyStopping(Plateau(monitor, patience=1) & Plateau("val_loss", patience=1))
    history = model.fit(*DATA, validation_data=DATA, epochs=9, verbose=0, callbacks=[SecondSet(), stop])
    assert len(history.epoch) == 3


def test_a_misspelt_monitor_stops_the_fit_at_the_first_epoch():
    with pytest.raises(ValueError, match="Did you mean 'loss'"):
        drive(EarlyStopping("losss", mode="min"), [1.0])


@pytest.mark.parametrize(
    ("monitor", "source"),
    [
        ("grad_norm", GradientMonitor),
        ("learning_rate", LearningRateMonitor),
        ("learning_rate", lambda: keras.callbacks.LearningRateScheduler(lambda epoch: 0.1)),
    ],
)
def test_a_monitor_that_a_later_callback_adds_is_answered_with_the_order(monitor, source):
    source = source()
    stop = EarlyStopping(Plateau(monitor, 1, mode="min"))
    name = type(source).__name__
    message = rf"{name} adds it, but is listed later: list them as callbacks=\[{name}, EarlyStopping\]\."
    with pytest.raises(ValueError, match=message):
        one_dense().fit(*DATA, epochs=9, verbose=0, callbacks=[stop, source])
    one_dense().fit(*DATA, epochs=2, verbose=0, callbacks=[source, stop])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"monitor": Target("loss", 0.1), "patience": 3}, "`patience` must be left out beside a criterion"),
        ({"monitor": Target("loss", 0.1), "baseline": 0.0}, "`baseline` must be left out beside a criterion"),
        (
            {"monitor": Target("loss", 0.1), "restore_best_weights": True},
            '`restore_best_weights` must be False without a Plateau.* or give best="val_loss"',
        ),
        ({"monitor": 3}, "`monitor` must be a name in the logs or a criterion"),
        ({"monitor": {"loss": 1}}, "`monitor` must be a name in the logs or a criterion"),
        ({"monitor": "loss", "patience": -1}, "`patience` must be an integer of at least 0"),
        ({"monitor": "loss", "best": "loss"}, "`best` must be None without restore_best_weights"),
        ({"filepath": "best.weights.h5"}, "`filepath` must be None without restore_best_weights"),
        (
            {"restore_best_weights": True, "filepath": "best.h5"},
            r"`filepath` must be a path that ends in \.weights\.h5",
        ),
        (
            {"restore_best_weights": True, "filepath": "no/such/folder/best.weights.h5"},
            "`filepath` must be in a folder that can be written",
        ),
    ],
)
def test_bad_arguments(settings, message):
    with pytest.raises(ValueError, match=message):
        EarlyStopping(**settings)


def test_it_works_outside_the_main_thread():
    failures = []

    def run():
        try:
            one_dense().fit(*DATA, verbose=0, callbacks=[EarlyStopping("loss", restore_best_weights=True)])
        except BaseException:
            failures.append(sys.exc_info())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert failures == []
