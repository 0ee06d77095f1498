"""Keras's own callbacks, broken off and resumed: the same stop, rates, rows and events as without the break."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from full_rows import full

from keras_opt.callbacks import EarlyStopping, ProgressBar
from keras_opt.callbacks.backup.keras_states import is_known, load_state_of, state_of
from keras_opt.callbacks.siblings import siblings

EPOCHS = 10
SCORES = [5.0, 3.0] + 8 * [4.0]  # patience 4 is at its end after epoch 5, from 0
rng = np.random.default_rng(0)
X, Y = rng.normal(size=(20, 3)).astype("float32"), rng.normal(size=(20, 1)).astype("float32")


class Died(Exception):
    """The end of a run, in place of kill -9."""


class Score(keras.callbacks.Callback):
    """A monitored value by script, so that every stop and cut can be counted by hand."""

    def on_epoch_end(self, epoch, logs=None):
        logs["score"] = SCORES[epoch]


class Die(keras.callbacks.Callback):
    """Breaks training off in an epoch: at its third batch, or when all loggers have written their rows."""

    def __init__(self, epoch=None, batch=None):
        super().__init__()
        self.at, self.epoch = (epoch, batch), None

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == self.at:
            raise Died

    def on_epoch_end(self, epoch, logs=None):
        if (epoch, None) == self.at:
            raise Died


class Backup(keras.callbacks.Callback):
    """What BackupAndRestore does with these functions: a backup before one epoch, or a resumed training from it."""

    def __init__(self, epoch=None, restore=None):
        super().__init__()
        self.epoch, self.restore, self.kept = epoch, restore, None

    def set_model(self, model):
        super().set_model(model)
        self.all = siblings(self)

    @property
    def others(self):
        return [callback for callback in self.all if callback is not self]

    @property
    def variables(self):
        return self.model.variables + self.model.optimizer.variables

    def on_epoch_begin(self, epoch, logs=None):
        if self.restore is not None:
            self.model.optimizer.build(self.model.trainable_variables)
            for variable, value in zip(self.variables, self.restore["values"], strict=True):
                variable.assign(value)
            for _ in range(2):  # loading twice is the same as once
                for callback, state in zip(self.others, self.restore["states"], strict=True):
                    load_state_of(callback, state)
            self.restore = None
        if epoch == self.epoch:
            self.kept = {
                "values": [keras.ops.convert_to_numpy(variable).copy() for variable in self.variables],
                "states": [state_of(callback) for callback in self.others],
            }


class Rates(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        self.rates = []

    def on_epoch_begin(self, epoch, logs=None):
        self.rates.append(float(self.model.optimizer.learning_rate))


def fit(callbacks, initial_epoch=0, epochs=EPOCHS, optimizer="adam"):
    keras.utils.set_random_seed(1)
    layers = [keras.layers.Dense(4, "tanh", name="hidden"), keras.layers.Dense(1, name="head")]
    model = keras.Sequential([keras.Input((3,)), *layers], name="net")
    model.compile(optimizer() if callable(optimizer) else optimizer, "mse")
    data = {"batch_size": 4, "shuffle": False, "validation_data": (X[:8], Y[:8]), "verbose": 0}
    model.fit(X, Y, callbacks=callbacks, initial_epoch=initial_epoch, epochs=epochs, **data)
    return model


def run_unbroken(make, **settings):
    callbacks = make()
    rates = Rates()
    return fit([Score(), *callbacks, rates], **settings), callbacks, rates.rates


def run_broken(make, backup_at=3, died_at=(4, None), resume=True, **settings):
    """Backed up before epoch `backup_at`, broken off in a later one; then anew, with fresh callbacks and their states.

    An exception, unlike kill -9, leaves TensorBoard's writer and its `record_if` in force until the garbage collector
    finds them, in the middle of the next fit. So that callback alone is told of the end, and writes all that it has.
    """
    backup, rates, broken = Backup(backup_at), Rates(), make()
    with pytest.raises(Died):
        fit([backup, Score(), *broken, rates, Die(*died_at)], **settings)
    for callback in broken:
        if isinstance(callback, keras.callbacks.TensorBoard):
            callback.on_train_end()
    callbacks, later = make(), Rates()
    kept = backup.kept if resume else backup.kept | {"states": [None] * len(backup.kept["states"])}
    model = fit([Backup(restore=kept), Score(), *callbacks, later, Die()], initial_epoch=backup_at, **settings)
    return model, callbacks, rates.rates[:backup_at] + later.rates


def series_in(folder):
    """Every point of every series in all event files, by its step: a gap or a repeat shows in the steps."""
    series = {}
    for path in folder.glob("*/*tfevents*"):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                points = series.setdefault((path.parent.name, value.tag), [])
                points.append((event.step, value.tensor.SerializeToString()))
    return {name: sorted(points) for name, points in series.items()}


def drop_graph(series):
    return {key: points for key, points in series.items() if key[1] != "keras"}


def arrays_equal(left, right):
    return all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))


def stopper():
    return keras.callbacks.EarlyStopping("score", patience=4, mode="min", restore_best_weights=True)


# --- whole trainings -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("died_at", [(4, None), (4, 2)], ids=["after the rows of epoch 4", "in epoch 4"])
@pytest.mark.parametrize("update_freq", [3, full("epoch"), full("batch")])
def test_all_together_go_on_as_if_never_broken_off(tmp_path, died_at, update_freq):
    def callbacks_in(folder):
        folder.mkdir()
        return lambda: [
            keras.callbacks.ReduceLROnPlateau("score", factor=0.5, patience=2, mode="min", cooldown=1),
            keras.callbacks.ModelCheckpoint(folder / "{epoch}.weights.h5", "score", 0, True, True, "min"),
            stopper(),
            keras.callbacks.CSVLogger(folder / "log.csv"),
            keras.callbacks.TensorBoard(folder / "events", update_freq=update_freq, histogram_freq=1),
        ]

    whole, left, left_rates = run_unbroken(callbacks_in(tmp_path / "whole"))
    resumed, right, right_rates = run_broken(callbacks_in(tmp_path / "broken"), died_at=died_at)

    assert whole.history.epoch == resumed.history.epoch == list(range(6))
    assert whole.history.history == resumed.history.history
    assert left_rates == right_rates
    assert len(set(left_rates)) > 1
    assert left[2].stopped_epoch == right[2].stopped_epoch == 5
    assert arrays_equal(whole.get_weights(), resumed.get_weights())
    for name in ("log.csv", "1.weights.h5", "2.weights.h5"):
        assert (tmp_path / "whole" / name).is_file()
        assert (tmp_path / "broken" / name).is_file()
    assert len(list((tmp_path / "broken").glob("*.h5"))) == 2
    assert (tmp_path / "whole" / "log.csv").read_bytes() == (tmp_path / "broken" / "log.csv").read_bytes()
    expected, found = (drop_graph(series_in(tmp_path / name / "events")) for name in ("whole", "broken"))
    assert found == expected
    # Keras leaves out what an epoch writes too, unless the number of its last batch is a multiple of `update_freq`.
    written = [2, 5] if update_freq == 3 else list(range(6))
    assert [step for step, _ in found["validation", "epoch_loss"]] == written


def test_without_their_states_the_same_callbacks_stop_late_and_cut_the_rate_late(tmp_path):
    def make():
        return [stopper(), keras.callbacks.ReduceLROnPlateau("score", factor=0.5, patience=2, mode="min")]

    _, (whole, _), whole_rates = run_unbroken(make)
    _, (resumed, _), resumed_rates = run_broken(make, resume=False)
    assert (whole.stopped_epoch, resumed.stopped_epoch) == (5, 7)  # its best is epoch 3, its first
    assert whole_rates != resumed_rates[: len(whole_rates)]


def test_the_rate_is_left_alone_for_the_rest_of_a_cooldown():
    """Cut after epoch 2, before the backup; three epochs of rest, then patience is at its end again after epoch 5."""

    def make():
        return [keras.callbacks.ReduceLROnPlateau("score", factor=0.5, patience=1, mode="min", cooldown=3)]

    _, _, whole = run_unbroken(make, epochs=7)
    _, _, resumed = run_broken(make, epochs=7)
    assert resumed == whole
    assert [rate / whole[0] for rate in whole] == pytest.approx([1, 1, 1, 0.5, 0.5, 0.5, 0.25])


@pytest.mark.parametrize("append", [True, False])
def test_what_keras_own_backup_gives(tmp_path, append):
    """Its EarlyStopping stops after epoch 8 and not 5; the log repeats epoch 4, or loses all epochs before it."""

    def make():
        log = keras.callbacks.CSVLogger(tmp_path / "log.csv", append=append)
        return [stopper(), log]

    kept = tmp_path / "backup"
    with pytest.raises(Died):
        fit([Score(), *make(), Die(4), keras.callbacks.BackupAndRestore(kept)])
    early_stopping, log = make()
    fit([Score(), early_stopping, log, keras.callbacks.BackupAndRestore(kept)])
    assert early_stopping.stopped_epoch == 8
    epochs = [row.split(",")[0] for row in (tmp_path / "log.csv").read_text().splitlines()]
    before = ["epoch", *"01234"] if append else ["epoch"]
    assert epochs == [*before, *"45678"]


@pytest.mark.parametrize("swap_on_epoch", [True, False])
def test_averaged_weights_that_are_in_the_model_are_swapped_out_again(swap_on_epoch):
    def make():
        return [keras.callbacks.SwapEMAWeights(swap_on_epoch=swap_on_epoch)]

    settings = {"epochs": 5, "optimizer": lambda: keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.9)}
    whole, _, _ = run_unbroken(make, **settings)
    resumed, _, _ = run_broken(make, **settings)
    assert arrays_equal(whole.get_weights(), resumed.get_weights())
    assert whole.history.history == resumed.history.history


def test_a_user_history_given_to_fit_is_resumed_too():
    def make():
        return [keras.callbacks.History()]

    _, (whole,), _ = run_unbroken(make)
    _, (resumed,), _ = run_broken(make)
    assert resumed.history == whole.history
    assert resumed.epoch == whole.epoch == list(range(EPOCHS))


# --- the directions of a monitor -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "worse"), [("min", 4.0), ("max", 2.0)])
def test_a_checkpoint_in_the_middle_of_an_epoch_knows_best_and_direction(tmp_path, mode, worse):
    """Keras finds the direction out at the end of an epoch; a fresh callback that knows only `best` would fail."""

    def make():
        checkpoint = keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}-{batch}.keras", "loss", 0, True, mode=mode)
        checkpoint.save_freq = 3
        checkpoint.set_model(keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)]))
        checkpoint.on_train_begin()
        return checkpoint

    first = make()
    first.on_epoch_begin(0)
    first.on_train_batch_end(2, {"loss": 3.0})
    first.on_epoch_end(0, {"loss": 3.0})
    first.on_epoch_begin(1)
    first.on_train_batch_end(0, {"loss": 3.0})
    state = state_of(first)

    second = make()
    load_state_of(second, state)
    second.on_epoch_begin(1)
    load_state_of(second, state)
    second.on_train_batch_end(1, {"loss": worse})
    second.on_train_batch_end(2, {"loss": worse})
    assert [path.name for path in tmp_path.iterdir()] == ["1-3.keras"]
    second.on_train_batch_end(5, {"loss": 6.0 - worse})  # counted on: batches 3, 4 and 5 are the next three
    assert {path.name for path in tmp_path.iterdir()} == {"1-3.keras", "2-6.keras"}


@pytest.mark.parametrize("mode", ["min", "max"])
def test_the_smallest_change_keeps_its_sign_however_often_a_state_is_loaded(mode):
    monitor = keras.callbacks.EarlyStopping("score", min_delta=0.5, mode=mode)
    monitor.on_train_begin()
    monitor.on_epoch_end(0, {"score": 1.0})
    expected = monitor.min_delta
    fresh = keras.callbacks.EarlyStopping("score", min_delta=0.5, mode=mode)
    fresh.on_train_begin()
    for callback in (fresh, monitor):
        load_state_of(callback, state_of(monitor))
        load_state_of(callback, state_of(monitor))
        assert callback.min_delta == expected
        assert callback.monitor_op is monitor.monitor_op


def test_a_state_of_before_the_first_epoch_leaves_the_direction_open():
    monitor = keras.callbacks.EarlyStopping("loss")
    monitor.on_train_begin()
    load_state_of(monitor, state_of(monitor))
    assert monitor.monitor_op is None


# --- CSV files -------------------------------------------------------------------------------------------------------


def log_rows(logger, *epochs, keys=("loss", "val_loss")):
    for epoch in epochs:
        logger.on_epoch_end(epoch, dict.fromkeys(keys, epoch + 0.5))


@pytest.mark.parametrize("append", [True, False])
@pytest.mark.parametrize("separator", [",", ";"])
@pytest.mark.parametrize("rows", [0, 2], ids=["before the first row", "after two rows"])
def test_a_csv_file_has_no_gap_and_no_repeat(tmp_path, append, separator, rows):
    def make(name):
        logger = keras.callbacks.CSVLogger(tmp_path / name, separator, append)
        logger.on_train_begin()
        return logger

    for name in ("whole.csv", "broken.csv"):
        (tmp_path / name).write_bytes(b"epoch,loss,val_loss\r\n0,7.0,7.0\r\n")
    whole = make("whole.csv")
    log_rows(whole, *range(5))
    whole.on_train_end()
    first = make("broken.csv")
    log_rows(first, *range(rows))
    state = state_of(first)
    log_rows(first, *range(rows, 4))
    for _ in range(2):  # the second time it is broken off again before the next backup
        second = make("broken.csv")
        load_state_of(second, state)
        load_state_of(second, state)
        log_rows(second, *range(rows, 5))
    second.on_train_end()
    assert (tmp_path / "broken.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()

    second.on_train_begin()  # a second fit of the same object starts as in Keras
    whole.on_train_begin()
    for logger in (second, whole):
        log_rows(logger, 0)
        logger.on_train_end()
    assert (tmp_path / "broken.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_a_csv_file_keeps_its_columns_when_the_logs_have_more_later(tmp_path):
    logger = keras.callbacks.CSVLogger(tmp_path / "log.csv")
    logger.on_train_begin()
    log_rows(logger, 0)
    state = state_of(logger)
    resumed = keras.callbacks.CSVLogger(tmp_path / "log.csv")
    resumed.on_train_begin()
    load_state_of(resumed, state)
    log_rows(resumed, 1, keys=("loss", "val_loss", "another"))
    assert (tmp_path / "log.csv").read_text().splitlines() == ["epoch,loss,val_loss", "0,0.5,0.5", "1,1.5,1.5"]


# --- TensorBoard in the middle of an epoch ---------------------------------------------------------------------------


def board(folder, **settings):
    callback = keras.callbacks.TensorBoard(folder, write_graph=False, **settings)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    callback.set_model(model)
    callback.on_train_begin()
    return callback


def batches(callback, numbers):
    for number in numbers:
        callback.on_train_batch_begin(number)
        callback.on_train_batch_end(number, {"loss": float(number)})


@pytest.mark.parametrize("update_freq", [1, 3])
@pytest.mark.parametrize("listed", ["before", "after"])
def test_batches_of_an_epoch_that_was_broken_off_are_there_once(tmp_path, update_freq, listed):
    """Listed before BackupAndRestore, TensorBoard has been told of a batch when the states of that batch are taken."""
    whole = board(tmp_path / "whole", update_freq=update_freq)
    batches(whole, range(10))
    whole.on_train_end()

    state = None
    for last in (8, 8, 10):  # broken off twice, the second time before the next backup
        callback = board(tmp_path / "broken", update_freq=update_freq)
        if state is None:
            batches(callback, range(5))
        else:
            load_state_of(callback, state)  # before the epoch
        if listed == "before":
            callback.on_train_batch_begin(5)
        if state is None:
            state = state_of(callback)
        else:
            load_state_of(callback, state)  # before the batch
        if listed == "after":
            callback.on_train_batch_begin(5)
        callback.on_train_batch_end(5, {"loss": 5.0})
        batches(callback, range(6, last))
        callback.on_train_end()
    assert series_in(tmp_path / "broken") == series_in(tmp_path / "whole")


def test_events_of_a_validation_that_began_after_the_backup_are_not_repeated(tmp_path):
    """The first validation opens a file that the backup knows nothing of."""
    first = board(tmp_path)
    state = state_of(first)
    first.on_epoch_end(0, {"val_loss": 1.0})
    first.on_train_end()
    second = board(tmp_path)
    load_state_of(second, state)
    second.on_epoch_end(0, {"val_loss": 1.0})
    load_state_of(second, state)  # its own file stays
    second.on_train_end()
    assert [step for step, _ in series_in(tmp_path)["validation", "epoch_loss"]] == [0]


# --- which callbacks -------------------------------------------------------------------------------------------------


class Counting(keras.callbacks.Callback):
    """A user's callback that speaks for itself."""

    count = 0

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"]


class HalfSpeaking(keras.callbacks.Callback):
    def state_dict(self):
        return {}


class Derived(keras.callbacks.EarlyStopping):
    """A user's class that may carry more than Keras's."""


class DerivedSpeaking(keras.callbacks.EarlyStopping):
    """One whose own methods come before the adapter."""

    def state_dict(self):
        return {"own": 1}

    def load_state_dict(self, state):
        self.own = state["own"]


def every_keras_callback(tmp_path):
    return [
        keras.callbacks.Callback(),
        keras.callbacks.CSVLogger(tmp_path / "log.csv"),
        keras.callbacks.EarlyStopping(),
        keras.callbacks.History(),
        keras.callbacks.LambdaCallback(),
        keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate),
        keras.callbacks.ModelCheckpoint(tmp_path / "model.keras"),
        keras.callbacks.ProgbarLogger(),
        keras.callbacks.ReduceLROnPlateau(),
        keras.callbacks.RemoteMonitor(),
        keras.callbacks.SwapEMAWeights(),
        keras.callbacks.TensorBoard(tmp_path / "events"),
        keras.callbacks.TerminateOnNaN(),
    ]


def test_every_callback_of_keras_is_known(tmp_path):
    callbacks = every_keras_callback(tmp_path)
    assert all(map(is_known, callbacks))
    classes = {value for value in vars(keras.callbacks).values() if isinstance(value, type)}
    names = {kind.__name__ for kind in classes - {type(callback) for callback in callbacks}}
    # A list is no callback of its own; two backups are never together; Orbax is its own way to resume.
    assert names <= {"BackupAndRestore", "CallbackList", "OrbaxCheckpoint"}


def test_which_other_callbacks_are_known():
    assert all(map(is_known, [Counting(), DerivedSpeaking(), EarlyStopping(), ProgressBar()]))
    assert not any(map(is_known, [HalfSpeaking(), Score(), Derived()]))


def test_a_callback_speaks_for_itself_first():
    counting, derived = Counting(), DerivedSpeaking()
    counting.count = 3
    assert state_of(counting) == {"count": 3}
    assert state_of(derived) == {"own": 1}
    fresh = Counting()
    load_state_of(fresh, {"count": 3})
    assert fresh.count == 3


def test_of_a_derived_class_what_is_keras_own_is_kept():
    first, second = Derived("score", mode="min"), Derived("score", mode="min")
    for callback in (first, second):
        callback.on_train_begin()
    first.on_epoch_end(0, {"score": 2.0})
    load_state_of(second, state_of(first))
    assert second.best == 2.0


def test_what_carries_nothing_has_no_state():
    assert state_of(Score()) is None
    assert state_of(keras.callbacks.TerminateOnNaN()) is None
    load_state_of(Score(), None)


def test_a_state_for_a_callback_that_takes_none_is_refused():
    with pytest.raises(ValueError, match="load_state_of: argument `callback` must be of the class that the state"):
        load_state_of(Score(), {"best": 1.0})


def test_states_are_copies_in_plain_words():
    """Numbers that other callbacks put into the logs come as NumPy and TensorFlow have them."""
    history = keras.callbacks.History()
    history.on_train_begin()
    history.set_model(keras.Sequential())
    history.on_epoch_end(0, {"loss": np.float32(0.1), "rate": keras.ops.convert_to_tensor(2.0), "counts": np.arange(2)})
    state = state_of(history)
    history.on_epoch_end(1, {"loss": 1.0})
    loss, rate, counts = (state["history"][name][0] for name in ("loss", "rate", "counts"))
    assert (type(loss), loss) == (float, float(np.float32(0.1)))
    assert (type(rate), rate) == (float, 2.0)
    assert isinstance(counts, np.ndarray)
    assert state["epoch"] == [0]
    resumed = keras.callbacks.History()
    resumed.on_train_begin()
    load_state_of(resumed, state)
    resumed.epoch.append(1)
    assert state["epoch"] == [0]


def test_every_state_holds_plain_words_only(tmp_path):
    def words(value):
        if isinstance(value, dict):
            assert all(type(name) is str for name in value)
            return all(map(words, value.values()))
        if isinstance(value, list):
            return all(map(words, value))
        return value is None or type(value) in (bool, int, float, str, np.ndarray)

    optimizer = keras.optimizers.Adam(use_ema=True)
    callbacks = every_keras_callback(tmp_path)
    backup = Backup(1)
    fit([backup, *[each for each in callbacks if not isinstance(each, keras.callbacks.RemoteMonitor)]], 0, 2, optimizer)
    assert all(words(state) for state in backup.kept["states"])
    assert sum(state is not None for state in backup.kept["states"]) == 7
