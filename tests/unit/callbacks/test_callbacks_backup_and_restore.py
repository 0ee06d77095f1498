"""A training that an exception ends, and that the same code begins again, ends as one that nothing has ended."""

import math
import random
import shutil
import warnings
from collections import Counter

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from full_rows import few, full

from keras_opt.callbacks import (
    BackupAndRestore,
    EarlyStopping,
    GradientAccumulation,
    WeightAveraging,
    backup_and_restore,
)
from keras_opt.callbacks.backup import finished
from keras_opt.callbacks.backup.backup_folder import BackupFolder
from keras_opt.callbacks.backup.fingerprint import differences, fingerprint
from keras_opt.core.errors import InputError
from keras_opt.data import arrays
from keras_opt.training import attach

GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(50, 6)).astype(np.float32)
Y = X[:, :1] * 2 + GENERATOR.normal(size=(50, 1)).astype(np.float32)
EPOCHS = 4


class Broken(Exception):
    """What ends a training here."""


class Breaking(keras.callbacks.Callback):
    def __init__(self, batch):
        super().__init__()
        self.batch = batch

    def on_train_batch_end(self, batch, logs=None):
        self.batch -= 1
        if self.batch == 0:
            raise Broken

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        self.batch = 0


def layers():
    norm = [keras.layers.BatchNormalization(), keras.layers.Dropout(0.3)]
    return [keras.layers.Dense(8, activation="relu"), *norm, keras.layers.Dense(1)]


def built(steps_per_execution=1, optimizer="adam", deferred=False, **compiled):
    model = keras.Sequential([*([] if deferred else [keras.Input((6,))]), *layers()])
    model.compile(optimizer, "mse", metrics=["mae"], steps_per_execution=steps_per_execution, **compiled)
    return model


def another_process(monkeypatch):
    """Let the next training be that of a process which has finished none yet."""
    monkeypatch.setattr(finished, "_removable", {})
    monkeypatch.setattr(finished, "_counts", Counter())


def folder_of(directory):
    return sorted(path.name for path in directory.iterdir())


def fit(directory, data, broken_after=None, callbacks=(), epochs=EPOCHS, settings=None, **model_settings):
    """Train a new model; `data` makes the arguments of `fit` that bear data."""
    keras.utils.set_random_seed(1)
    model = built(**model_settings)
    settings = {"save_freq": 2, "verbose": 0} | (settings or {})
    callbacks = [
        *callbacks,
        *([Breaking(broken_after)] if broken_after else []),
        BackupAndRestore(directory, **settings),
    ]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*shuffle=True. was passed")
        warnings.filterwarnings("ignore", "Your input ran out of data")
        history = model.fit(**data(), epochs=epochs, validation_data=(X, Y), verbose=0, callbacks=callbacks)
    return model, history


def assert_same(one, other):
    (model, history), (other_model, other_history) = one, other
    assert history.history == other_history.history
    assert history.epoch == other_history.epoch
    for a, b in zip(values(model), values(other_model), strict=True):
        assert np.array_equal(a, b)


def values(model):
    return [variable.numpy() for variable in [*model.variables, *model.optimizer.variables]]


def ours(**settings):
    return {"x": arrays(X, Y, batch_size=8, **({"seed": 3} | settings)), "shuffle": False}


def on_disk(tmp_path):
    np.save(tmp_path / "x.npy", X)
    return {"x": arrays(np.load(tmp_path / "x.npy", mmap_mode="r"), Y, batch_size=8, seed=3), "shuffle": False}


def shuffled(seed=2):
    return tf.data.Dataset.from_tensor_slices((X, Y)).shuffle(50, seed=seed)


def by_function():
    positions = tf.data.Dataset.range(50).batch(8)
    return positions.map(
        lambda i: (tf.ensure_shape(tf.numpy_function(lambda j: X[j], [i], tf.float32), (None, 6)), tf.gather(Y, i))
    )


DATA = {
    "keras_opt": ours,
    "keras_opt_seed_of_process": lambda: ours(seed=None),
    "tf_data": lambda: {"x": shuffled().batch(8).prefetch(2)},
    "tf_data_cached": lambda: {"x": tf.data.Dataset.from_tensor_slices((X, Y)).cache().shuffle(9, seed=1).batch(8)},
    "tf_data_order_cached": lambda: {"x": shuffled().batch(8).cache()},
    "tf_data_endless": lambda: {"x": shuffled().repeat().batch(8).prefetch(2), "steps_per_epoch": 5},
    "tf_data_of_unknown_length": lambda: {"x": shuffled().filter(lambda x, y: y[0] < 1).batch(8)},
    "tf_data_by_function": lambda: {"x": by_function()},
    "arrays": lambda: {"x": X, "y": Y, "batch_size": 8},
    "arrays_in_order": lambda: {"x": X, "y": Y, "batch_size": 8, "shuffle": False},
    "arrays_with_weights": lambda: {"x": X, "y": Y, "batch_size": 8, "sample_weight": np.arange(50.0)},
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Trainings that nothing ends, by data."""
    runs = {}

    def whole_of(kind):
        if kind not in runs:
            runs[kind] = fit(tmp_path_factory.mktemp("whole"), DATA[kind])
        return runs[kind]

    return whole_of


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only when told."""

    class Clock:
        seconds = 0.0

        def perf_counter(self):
            return self.seconds

    clock = Clock()
    monkeypatch.setattr(backup_and_restore, "time", clock)
    return clock


def pytest_generate_tests(metafunc):
    if "broken_after" in metafunc.fixturenames:
        # In an epoch of seven batches: in the first one, at the last batch of the second, in the third.
        is_full = metafunc.config.getoption("full")
        metafunc.parametrize("broken_after", [4, 13, 17] if is_full else [13])


OTHERS = (
    "tf_data_cached",
    "tf_data_of_unknown_length",
    "tf_data_by_function",
    "arrays_in_order",
    "arrays_with_weights",
)


@pytest.mark.parametrize("kind", [full(kind) if kind in OTHERS else kind for kind in DATA])
def test_it_ends_as_if_nothing_had_happened(kind, broken_after, whole, tmp_path):
    with pytest.raises(Broken):
        fit(tmp_path, DATA[kind], broken_after)
    assert_same(fit(tmp_path, DATA[kind]), whole(kind))


@pytest.mark.parametrize("settings", [{}, {"deferred": True}], ids=["built", "built by the first step"])
def test_a_training_broken_off_before_its_second_batch(settings, tmp_path):
    expected = fit(tmp_path / "whole", ours, **settings)
    with pytest.raises(Broken):
        fit(tmp_path / "backup", ours, 1, [Counting()], **settings)
    assert folder_of(tmp_path / "backup") == ["backup-00000001-epoch.npz"]
    counting = Counting()
    assert_same(fit(tmp_path / "backup", ours, callbacks=[counting], **settings), expected)
    assert counting.count == 28


def test_a_backup_from_before_the_first_batch_keeps_no_other_training_out(tmp_path, whole):
    with pytest.raises(Broken):
        fit(tmp_path, ours, 1, optimizer="sgd")
    assert_same(fit(tmp_path, ours), whole("keras_opt"))


def test_a_model_that_has_outgrown_the_backup_begins_anew(tmp_path):
    model = built()
    for broken_after in (1, 0):
        callbacks = [*([Breaking(1)] if broken_after else []), BackupAndRestore(tmp_path, 2, verbose=0)]
        with pytest.raises(Broken) if broken_after else pytest.warns(UserWarning, match="training begins anew with it"):
            history = model.fit(**ours(), epochs=2, verbose=0, callbacks=callbacks)
    assert history.epoch == [0, 1]
    assert int(model.optimizer.iterations) == 15


def test_a_fit_without_an_epoch_leaves_no_backup(tmp_path):
    fit(tmp_path, ours, epochs=0)
    assert folder_of(tmp_path) == []


@pytest.mark.parametrize("broken_off_at", [7, 8, full(14)])
def test_an_order_that_is_cached(broken_off_at, tmp_path):
    def data():
        return {"x": shuffled().cache().batch(8)}

    expected = fit(tmp_path / "whole", data, epochs=3)
    with pytest.raises(Broken):
        fit(tmp_path / "backup", data, broken_off_at, epochs=3, settings={"save_freq": 1})
    assert_same(fit(tmp_path / "backup", data, epochs=3), expected)


def test_a_cache_beside_a_shuffle_begins_its_epoch_again_and_says_so(tmp_path):
    def data():
        both = tf.data.Dataset.zip(tf.data.Dataset.from_tensor_slices(X).cache(), shuffled())
        return {"x": both.map(lambda _, pair: pair).batch(8)}

    with pytest.warns(UserWarning, match="begins with the epoch it was in"):
        fit(tmp_path, data, epochs=1)


@pytest.mark.parametrize(
    "several_orders",
    [lambda: shuffled().repeat(2).batch(8), full(lambda: shuffled().batch(8).repeat(2)),
     full(lambda: shuffled().concatenate(shuffled(3)).batch(8))],
    ids=["repeated", "batches repeated", "concatenated"],
)  # fmt: skip
def test_several_orders_in_one_epoch_begin_again_and_say_so(several_orders, tmp_path):
    """TensorFlow restores them, but not the orders of the epochs that follow."""
    with pytest.warns(UserWarning, match="begins with the epoch it was in"):
        fit(tmp_path, lambda: {"x": several_orders()}, epochs=1)


def test_another_pipeline_is_refused(tmp_path):
    with pytest.raises(Broken):
        fit(tmp_path, DATA["tf_data"], 5)
    with pytest.raises(InputError, match=r"is that of another tf.data pipeline.* Build the pipeline as before, or"):
        fit(tmp_path, lambda: {"x": tf.data.Dataset.from_tensor_slices((X, Y)).batch(8)})


def test_a_list_of_callbacks_that_is_used_again_begins_at_the_first_epoch(tmp_path):
    with pytest.raises(Broken):
        fit(tmp_path, ours, 10, epochs=2)
    keras.utils.set_random_seed(1)
    model = built()
    callbacks = [BackupAndRestore(tmp_path, 2, verbose=0, callbacks=[Breaking(0)])]
    callbacks = keras.callbacks.CallbackList(callbacks, add_history=True, model=model)
    settings = {"validation_data": (X, Y), "verbose": 0, "epochs": 2, "callbacks": callbacks}
    assert [model.fit(**ours(), **settings).epoch for _ in range(2)] == [[0, 1], [0, 1]]


def test_a_memory_mapped_array(tmp_path):
    def data():
        return on_disk(tmp_path)

    expected = fit(tmp_path / "whole", data)
    with pytest.raises(Broken):
        fit(tmp_path / "backup", data, 13)
    assert_same(fit(tmp_path / "backup", data), expected)


MODES = {
    "executions of 3": {"steps_per_execution": 3},
    "deferred build": {"deferred": True},
    "jit": {"optimizer": keras.optimizers.SGD, "jit_compile": True},
    "loss scale": {"optimizer": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.01))},
    "schedule": {"optimizer": lambda: keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.1, 30))},
    "eager": {"run_eagerly": True},
    "ema": {"optimizer": lambda: keras.optimizers.Adam(use_ema=True, ema_overwrite_frequency=5)},
    "weighted metrics": {"weighted_metrics": ["mse"]},
}


@pytest.mark.parametrize("settings", few(MODES, "executions of 3", "deferred build", "loss scale", "ema"))
def test_in_every_mode(settings, tmp_path):
    def run(directory, broken_after=None):
        made = {name: value() if callable(value) else value for name, value in settings.items()}
        return fit(directory, ours, broken_after, **made)

    expected = run(tmp_path / "whole")
    broken_after = 5 if "steps_per_execution" in settings else 12
    with pytest.raises(Broken):
        run(tmp_path / "backup", broken_after)
    assert_same(run(tmp_path / "backup"), expected)


def test_backups_at_epochs_alone(tmp_path, whole, clock):
    expected = fit(tmp_path / "whole", ours, settings={"save_freq": "epoch"})
    with pytest.raises(Broken):
        fit(tmp_path / "backup", ours, 16, settings={"save_freq": "epoch"})
    assert folder_of(tmp_path / "backup") == ["backup-00000002-epoch.npz", "backup-00000003-epoch.npz"]
    assert_same(fit(tmp_path / "backup", ours, settings={"save_freq": "epoch"}), expected)
    assert_same(expected, whole("keras_opt"))  # how often backups are made changes nothing


def test_the_training_is_that_without_backups(whole):
    keras.utils.set_random_seed(1)
    model = built()
    history = model.fit(**ours(), epochs=EPOCHS, validation_data=(X, Y), verbose=0)
    assert_same((model, history), whole("keras_opt"))


def test_stopping_and_pending_micro_batches(tmp_path):
    def callbacks():
        return [
            GradientAccumulation(3),
            WeightAveraging(ema_momentum=0.5),
            EarlyStopping("val_loss", patience=1, mode="max"),
        ]

    def run(directory, broken_after=None):
        return fit(directory, ours, broken_after, callbacks(), epochs=9, settings={"save_freq": 1})

    expected = run(tmp_path / "whole")
    assert len(expected[1].epoch) < 9
    with pytest.raises(Broken):
        run(tmp_path / "backup", 9)
    assert_same(run(tmp_path / "backup"), expected)


class GAN(keras.Model):
    """Two optimizers of its own."""

    def __init__(self, is_built=True):
        super().__init__()
        self.one, self.other = keras.layers.Dense(1), keras.layers.Dense(1)
        self.fast, self.slow = keras.optimizers.Adam(0.1), keras.optimizers.Adam(0.01)
        self.tracker = keras.metrics.Mean("loss")
        self.build((None, 6))
        if is_built:
            self.fast.build(self.one.trainable_variables)
            self.slow.build(self.other.trainable_variables)

    def build(self, shape):
        self.one.build(shape)
        self.other.build(shape)
        self.built = True

    def call(self, x):
        return self.one(x) + self.other(x)

    @property
    def metrics(self):
        return [self.tracker]

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((self(x) - y) ** 2)
        count = len(self.one.trainable_variables)
        gradients = tape.gradient(loss, [*self.one.trainable_variables, *self.other.trainable_variables])
        self.fast.apply(gradients[:count], self.one.trainable_variables)
        self.slow.apply(gradients[count:], self.other.trainable_variables)
        self.tracker.update_state(loss)
        return {"loss": self.tracker.result()}


def fit_gan(directory, broken_after=None, is_built=True, **compiled):
    keras.utils.set_random_seed(1)
    model = GAN(is_built)
    model.compile(**compiled)
    callbacks = [*([Breaking(broken_after)] if broken_after else []), BackupAndRestore(directory, 2, verbose=0)]
    history = model.fit(**ours(), epochs=3, verbose=0, callbacks=callbacks)
    return history.history, [*values(model), *(each.numpy() for each in [*model.fast.variables, *model.slow.variables])]


@pytest.mark.parametrize("is_built", [True, False], ids=["built", "built by the first step"])
@pytest.mark.parametrize("batches", [full(1), 12])
def test_optimizers_of_a_models_own(is_built, batches, tmp_path):
    history, weights = fit_gan(tmp_path / "whole", is_built=is_built)
    with pytest.raises(Broken):
        fit_gan(tmp_path / "backup", batches, is_built)
    resumed_history, resumed_weights = fit_gan(tmp_path / "backup", is_built=is_built)
    assert resumed_history == history
    assert all(np.array_equal(a, b) for a, b in zip(weights, resumed_weights, strict=True))


def test_an_own_optimizer_that_no_trace_can_build_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"fast, slow of the model are not built.*model\.fast\.build"):
        fit_gan(tmp_path, is_built=False, run_eagerly=True)


@pytest.mark.parametrize("in_one_stream", [False, True])
def test_two_replicas_begin_the_epoch_again(two_replicas, tmp_path, in_one_stream):
    def run(directory, broken_after=None):
        keras.utils.set_random_seed(1)
        stream = tf.data.Dataset.from_tensor_slices((X, Y)).shuffle(len(X), seed=4).repeat().batch(8)
        data = {"x": stream, "steps_per_epoch": 6} if in_one_stream else {"x": X[:48], "y": Y[:48], "batch_size": 8}
        with two_replicas.scope():
            model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(1)])
            model.compile("adam", "mse")
        callbacks = [*([Breaking(broken_after)] if broken_after else []), BackupAndRestore(directory, 2, verbose=0)]
        return model, model.fit(**data, shuffle=False, epochs=3, verbose=0, callbacks=callbacks)

    with pytest.warns(UserWarning, match="begins with the epoch it was in"):
        expected = run(tmp_path / "whole")
    with pytest.warns(UserWarning, match="begins with the epoch it was in"), pytest.raises(Broken):
        run(tmp_path / "backup", 9)
    assert folder_of(tmp_path / "backup") == ["backup-00000001-epoch.npz", "backup-00000002-epoch.npz"]
    assert_same(run(tmp_path / "backup"), expected)


# --- data that have no place -----------------------------------------------------------------------------------------


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 7

    def __getitem__(self, number):
        return X[number * 7 : number * 7 + 7], Y[number * 7 : number * 7 + 7]


def endless():
    while True:
        yield X[:8], Y[:8]


@pytest.mark.parametrize(
    "data",
    [
        lambda: {"x": Batches(), "shuffle": False},
        lambda: {"x": endless(), "steps_per_epoch": 7},
        lambda: {"x": by_function().shuffle(2)},
    ],
    ids=["PyDataset", "generator", "function in an order of its own"],
)
def test_other_data_begin_their_epoch_again_and_say_so(data, tmp_path):
    with pytest.warns(UserWarning, match="begins with the epoch it was in"), pytest.raises(Broken):
        fit(tmp_path, data, 17)
    assert folder_of(tmp_path) == ["backup-00000002-epoch.npz", "backup-00000003-epoch.npz"]
    _, history = fit(tmp_path, data)
    assert history.epoch == [0, 1, 2, 3]


# --- the folder ------------------------------------------------------------------------------------------------------


@pytest.fixture
def broken_off(tmp_path):
    with pytest.raises(Broken):
        fit(tmp_path, ours, 13)
    assert folder_of(tmp_path) == ["backup-00000005-epoch.npz", "backup-00000006.npz", "backup-00000007.npz"]
    return tmp_path


@pytest.mark.parametrize("content", [b"", b"half a file"])
def test_a_damaged_backup_falls_back_to_the_one_before(content, broken_off, whole):
    (broken_off / "backup-00000007.npz").write_bytes(content)
    with pytest.warns(UserWarning, match="backup-00000007.npz was damaged"):
        resumed = fit(broken_off, ours)
    assert_same(resumed, whole("keras_opt"))


def test_all_backups_damaged(broken_off, whole):
    for path in broken_off.iterdir():
        path.write_bytes(b"no backup")
    with pytest.warns(UserWarning, match="damaged"):
        again = fit(broken_off, ours)
    assert_same(again, whole("keras_opt"))


def test_what_a_kill_in_mid_write_leaves_is_passed_over(broken_off, whole):
    (broken_off / ".backup-00000008-x7f.npz").write_bytes(b"half")
    assert_same(fit(broken_off, ours), whole("keras_opt"))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda model: model.add(keras.layers.Dense(1)), "number of layers was 5, is 6"),
        (lambda model: model.layers[2].__setattr__("rate", 0.5), r"layer 4 was .*0\.3.*, is .*0\.5"),
        (lambda model: model.compile("sgd", "mse"), "optimizer was Adam, is SGD"),
    ],
    ids=["layer", "setting", "optimizer"],
)
def test_another_model_is_refused(change, what, broken_off, monkeypatch):
    original = built

    def other(**settings):
        model = original(**settings)
        change(model)
        if model.optimizer.name == "adam":
            model.compile("adam", "mse", metrics=["mae"])
        return model

    monkeypatch.setitem(globals(), "built", other)
    with pytest.raises(InputError, match=what):
        fit(broken_off, ours)
    assert len(folder_of(broken_off)) == 3


def test_other_data_are_refused(broken_off):
    with pytest.raises(InputError, match="batches an epoch was 7, is 6"):
        fit(broken_off, lambda: {"x": arrays(X[:48], Y[:48], batch_size=8), "shuffle": False})


def test_arrays_of_other_values_are_refused(tmp_path):
    with pytest.raises(Broken):
        fit(tmp_path, DATA["arrays_in_order"], 9)
    with pytest.raises(InputError, match="first examples was"):
        fit(tmp_path, lambda: {"x": X + 1, "y": Y, "batch_size": 8, "shuffle": False})


def a_fit(**changes):
    tables = {"x": pd.DataFrame(X), "y": pd.Series(Y[:, 0]), "sample_weight": np.ones(50), "shuffle": False}
    return tables | {"validation_data": (X, Y)} | changes


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"x": pd.DataFrame(X + 1)}, "first examples was"),
        ({"y": pd.Series(Y[:, 0] + 1)}, "first examples was"),
        ({"sample_weight": np.arange(50.0)}, "first examples was"),
        ({"validation_data": (X, Y + 1)}, "validation data was"),
        ({"validation_data": None}, "validation data was"),
        ({"validation_data": tf.data.Dataset.from_tensors((X, Y))}, "validation data was .* is 1 batches of float32"),
    ],
    ids=["table", "series", "weights", "validation", "no validation", "validation of a set"],
)
def test_changed_tables_weights_and_validation_are_refused(changes, what, broken_off_table):
    with pytest.raises(InputError, match=what):
        built().fit(**a_fit(**changes), verbose=0, callbacks=[BackupAndRestore(broken_off_table, 1, verbose=0)])


@pytest.fixture(scope="module")
def broken_off_table(tmp_path_factory):
    folder = tmp_path_factory.mktemp("table")
    with pytest.raises(Broken):
        built().fit(**a_fit(), verbose=0, callbacks=[Breaking(2), BackupAndRestore(folder, 1, verbose=0)])
    return folder


def test_a_set_whose_first_batch_is_another_one_is_refused(tmp_path, monkeypatch):
    with pytest.raises(Broken):
        fit(tmp_path, DATA["tf_data_by_function"], 9)
    monkeypatch.setitem(globals(), "X", X + 1)
    with pytest.raises(InputError, match="the first batch of an epoch is another one"):
        fit(tmp_path, DATA["tf_data_by_function"])


def test_arrays_in_no_order_are_seen_once_an_epoch(tmp_path):
    seen = []

    class Adding(keras.layers.Layer):
        def call(self, x):
            tf.py_function(lambda rows: seen.extend(rows.numpy()), [x[:, 0]], [])
            return x

    def run(broken_after=None):
        model = keras.Sequential([keras.Input((1,)), Adding(), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        callbacks = [*([Breaking(broken_after)] if broken_after else []), BackupAndRestore(tmp_path, 1, verbose=0)]
        x = np.arange(40, dtype=np.float32)[:, None]
        model.fit(x, x, batch_size=8, epochs=2, verbose=0, callbacks=callbacks)

    tf.random.set_seed(None)
    with pytest.raises(Broken):
        run(3)
    del seen[16:]  # the third batch was not in the backup
    run()
    assert sorted(seen[:40]) == sorted(seen[40:]) == list(range(40))


def test_names_of_layers_may_differ(broken_off, whole):
    for _ in range(3):
        built()  # the next model's layers have other numbers
    assert_same(fit(broken_off, ours), whole("keras_opt"))


def test_texts_are_compared_by_their_letters(tmp_path):
    def run(broken_after=None):
        words = np.array(["good", "bad", "it is so"] * 8, dtype=object)
        text = keras.layers.TextVectorization(vocabulary=["good", "bad"], output_sequence_length=2)
        model = keras.Sequential([keras.Input((), dtype="string"), text, keras.layers.Embedding(4, 1)])
        model.compile("sgd", "mse")
        callbacks = [*([Breaking(broken_after)] if broken_after else []), BackupAndRestore(tmp_path, 1, verbose=0)]
        return model.fit(tf.constant(words), np.zeros((24, 2, 1)), 8, epochs=2, verbose=0, callbacks=callbacks)

    with pytest.raises(Broken):
        run(4)
    assert run().epoch == [0, 1]


def with_layer(make_layer):
    def run(directory, broken_after=None):
        model = keras.Sequential([keras.Input((6, 6, 1)), make_layer(), keras.layers.Flatten(), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        x = np.ones((24, 6, 6, 1), np.float32)
        callbacks = [*([Breaking(broken_after)] if broken_after else []), BackupAndRestore(directory, 1, verbose=0)]
        return model.fit(x, x[:, 0, 0], 8, epochs=2, verbose=0, callbacks=callbacks)

    return run


class Configured(keras.layers.Layer):
    """A layer whose settings are what `get_config` of users gives."""

    def __init__(self, setting=None, error=None):
        super().__init__()
        self.setting, self.error = setting, error

    def call(self, x):
        return x

    def get_config(self):
        if self.error is not None:
            raise self.error
        return {**super().get_config(), "setting": self.setting}


@pytest.mark.parametrize(
    ("layer", "again"),
    [
        (lambda: keras.layers.RandomCrop(4, 4), lambda: keras.layers.RandomCrop(4, 4)),  # its seed is drawn
        (
            lambda: keras.layers.Lambda(lambda x: x * 2),
            # The same on another line.
            lambda: keras.layers.Lambda(lambda x: x * 2),
        ),
        (lambda: Configured({1: 2, "a": 3}), lambda: Configured({1: 2, "a": 3})),
        (lambda: Configured({(1, 2): 3}), lambda: Configured({(1, 2): 3})),
        (lambda: Configured(error=OSError("no source")), lambda: Configured(error=OSError("no source"))),
    ],
    ids=["drawn seed", "code on another line", "keys of two kinds", "tuple keys", "no config"],
)
def test_what_is_no_other_model(layer, again, tmp_path):
    keras.utils.set_random_seed(1)
    with pytest.raises(Broken):
        with_layer(layer)(tmp_path, 4)
    assert with_layer(again)(tmp_path).epoch == [0, 1]


def wired(is_skipped, units=1):
    inputs = keras.Input((4,))
    one = keras.layers.Dense(4)(inputs)
    two = keras.layers.Dense(4)(one)
    model = keras.Model(inputs, keras.layers.Dense(units)((inputs if is_skipped else one) + two))
    model.compile("sgd", "mse")
    return model


def test_the_wiring_is_part_of_a_model():
    fingerprints = [fingerprint(wired(is_skipped), {}) for is_skipped in (True, True, False)]
    assert differences(fingerprints[0], fingerprints[1]) == []
    (difference,) = differences(fingerprints[0], fingerprints[2])
    assert "4 Add from 1, 3" in difference
    assert "4 Add from 2, 3" in difference


def test_the_wiring_of_a_model_in_a_model_counts():
    around = [keras.Sequential([wired(is_skipped), keras.layers.Dense(1)]) for is_skipped in (True, False)]
    assert "wiring" in differences(*(fingerprint(model, {}) for model in around))[0]


def test_another_precision_is_another_model(tmp_path):
    with pytest.raises(Broken):
        with_layer(lambda: keras.layers.Conv2D(2, 3))(tmp_path, 4)
    with pytest.raises(InputError, match=r"float32.*float16"):
        with_layer(lambda: keras.layers.Conv2D(2, 3, dtype="mixed_float16"))(tmp_path)


def test_a_model_that_was_not_built_goes_on_in_the_same_process(tmp_path):
    model = keras.Sequential(layers())
    model.compile("sgd", "mse")
    for broken in ([Breaking(9)], []):
        callbacks = [*broken, BackupAndRestore(tmp_path, 1, verbose=0)]
        if broken:
            with pytest.raises(Broken):
                model.fit(**ours(), epochs=3, verbose=0, callbacks=callbacks)
    assert model.fit(**ours(), epochs=3, verbose=0, callbacks=callbacks).epoch == [0, 1, 2]


def test_other_executions_are_refused(tmp_path):
    with pytest.raises(Broken):
        fit(tmp_path, ours, 5)
    with pytest.raises(InputError, match="steps_per_execution was 1, is 4"):
        fit(tmp_path, ours, steps_per_execution=4)


def test_a_folder_that_goes_away_ends_no_training(tmp_path, whole):
    remove = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: shutil.rmtree(tmp_path / "backup", True))
    with pytest.warns(UserWarning, match="no backup could be written"):
        assert_same(fit(tmp_path / "backup", ours, callbacks=[remove]), whole("keras_opt"))


def test_what_kills_in_mid_write_left_does_not_pile_up(broken_off):
    (broken_off / ".backup-00000008-x7f.npz").write_bytes(b"half")
    fit(broken_off, ours)
    assert not [name for name in folder_of(broken_off) if name.startswith(".")]


def test_the_folder_stays_the_same_when_the_process_goes_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fit("backup", ours)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    finished._clear_at_exit()
    assert not (tmp_path / "backup").exists()


def test_a_finished_training_says_so(tmp_path, monkeypatch, capsys):
    fit(tmp_path, ours)
    another_process(monkeypatch)
    fit(tmp_path, ours, settings={"verbose": 1})
    assert "had come to its end" in capsys.readouterr().out


def test_a_finished_training_begins_anew_in_the_same_process(tmp_path, whole):
    first = fit(tmp_path, ours)
    assert "training_is_done" in folder_of(tmp_path)
    assert_same(fit(tmp_path, ours), first)


def test_a_process_that_dies_after_training_loses_nothing(tmp_path, whole, monkeypatch):
    first = fit(tmp_path, ours)
    another_process(monkeypatch)
    calls = []
    again = fit(tmp_path, ours, callbacks=[keras.callbacks.LambdaCallback(on_epoch_begin=lambda *_: calls.append(1))])
    assert calls == []
    assert_same(again, first)


def test_a_finished_training_of_another_model_is_no_obstacle(tmp_path, monkeypatch):
    fit(tmp_path, ours)
    another_process(monkeypatch)
    _, history = fit(tmp_path, ours, optimizer="sgd")
    assert history.epoch == [0, 1, 2, 3]


def test_a_training_that_goes_on_from_its_end_is_not_at_its_end(tmp_path):
    folder = BackupFolder(tmp_path, keep=2)
    folder.write({}, is_epoch=True)
    folder.mark_done()
    folder.write({}, is_epoch=True)
    assert not folder.is_done


def test_more_epochs_go_on_from_the_end(tmp_path):
    settings = {"delete_checkpoint": False}
    expected = fit(tmp_path / "whole", DATA["arrays"], epochs=6)
    fit(tmp_path / "backup", DATA["arrays"], epochs=4, settings=settings)
    assert_same(fit(tmp_path / "backup", DATA["arrays"], epochs=6, settings=settings), expected)


def test_an_early_stop_stays_one(tmp_path, monkeypatch):
    def run():
        stop = EarlyStopping("val_loss", patience=0, mode="max")
        return *fit(tmp_path, ours, callbacks=[stop], settings={"delete_checkpoint": False}), stop

    first_model, first_history, first_stop = run()
    model, history, stop = run()
    assert_same((model, history), (first_model, first_history))
    assert (stop.stopped_epoch, stop.stopped_because) == (first_stop.stopped_epoch, first_stop.stopped_because)


def test_nothing_of_it_stays_on_the_model(broken_off):
    model, _ = fit(broken_off, ours)
    assert model._initial_epoch is None
    assert len(model.fit(X, Y, epochs=3, verbose=0).epoch) == 3


def test_nothing_of_it_stays_on_the_model_if_another_callback_cannot_begin(broken_off):
    models = []

    class Failing(Counting):
        def on_train_begin(self, logs=None):
            models.append(self.model)
            raise Broken

    with pytest.raises(Broken):
        fit(broken_off, ours, callbacks=[Failing()])
    assert models[0]._initial_epoch is None


def test_keras_replays_the_epoch_and_leaves_its_first_epoch_behind(tmp_path):
    """What this callback is for: 32 updates are due, and the next fit should run."""
    keras.utils.set_random_seed(1)
    callbacks = [Breaking(12), keras.callbacks.BackupAndRestore(str(tmp_path / "keras"), save_freq=3)]
    with pytest.raises(Broken):
        built().fit(X, Y, batch_size=8, epochs=4, verbose=0, callbacks=callbacks)
    model = built()
    model.fit(X, Y, batch_size=8, epochs=4, verbose=0, callbacks=callbacks[1:])
    assert int(model.optimizer.iterations) > 28
    assert len(model.fit(X, Y, epochs=1, verbose=0).epoch) == 0

    keras.utils.set_random_seed(1)
    callbacks = [Breaking(12), BackupAndRestore(tmp_path / "ours", save_freq=3, verbose=0)]
    with pytest.raises(Broken):
        built().fit(X, Y, batch_size=8, epochs=4, verbose=0, callbacks=callbacks)
    keras.utils.set_random_seed(1)
    model = built()
    model.fit(X, Y, batch_size=8, epochs=4, verbose=0, callbacks=callbacks[1:])
    assert int(model.optimizer.iterations) == 28
    assert len(model.fit(X, Y, epochs=1, verbose=0).epoch) == 1


def test_a_full_disk_ends_no_training(tmp_path, whole, monkeypatch):
    def full(path, state):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("keras_opt.callbacks.backup.backup_folder.write_state", full)
    with pytest.warns(UserWarning, match="No space left on device.*Training goes on"):
        run = fit(tmp_path, ours)
    assert_same(run, whole("keras_opt"))


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"argument `backup_dir` must be a folder that can be written"):
        fit(tmp_path / "file" / "backup", ours)


def test_trainings_that_share_a_folder_are_told_apart(tmp_path, monkeypatch):
    fit(tmp_path, ours)
    with pytest.raises(Broken):
        fit(tmp_path, ours, 9)
    another_process(monkeypatch)
    with pytest.warns(UserWarning, match="another of the trainings that share this folder"):
        fit(tmp_path, ours)


def test_another_rate_is_named(broken_off):
    with pytest.warns(UserWarning, match=r"the learning rate was 0\.001.*, is 0\.1"):
        fit(broken_off, ours, optimizer=keras.optimizers.Adam(0.1))


def test_a_backup_of_another_layout_is_refused(broken_off, monkeypatch):
    monkeypatch.setattr(backup_and_restore, "_FORMAT", 0)
    with pytest.raises(InputError, match="another version of keras_opt"):
        fit(broken_off, ours)


def test_a_state_that_no_file_can_hold_is_named_before_training(tmp_path):
    class Odd(Counting):
        def state_dict(self):
            return {"model": object()}

    with pytest.raises(TypeError, match=r"\['model'\] is a object"):
        fit(tmp_path, ours, callbacks=[Odd()])


def test_a_stateful_layer_goes_on(tmp_path):
    x, y = np.repeat(X[:48, None], 2, 1), Y[:48]

    def run(directory, broken_after=None):
        keras.utils.set_random_seed(1)
        model = keras.Sequential(
            [keras.Input((2, 6), batch_size=8), keras.layers.LSTM(3, stateful=True), keras.layers.Dense(1)]
        )
        model.compile("adam", "mse")
        callbacks = [*([Breaking(broken_after)] if broken_after else []), BackupAndRestore(directory, 2, verbose=0)]
        return model, model.fit(x, y, 8, shuffle=False, epochs=3, verbose=0, callbacks=callbacks)

    expected = run(tmp_path / "whole")
    with pytest.raises(Broken):
        run(tmp_path / "backup", 9)
    assert_same(run(tmp_path / "backup"), expected)


class Encoder(keras.Model):
    """A model that is never called, and built by its first step."""

    def __init__(self):
        super().__init__()
        self.inner = keras.Sequential([keras.layers.Dense(1)])
        self.tracker = keras.metrics.Mean("loss")

    @property
    def metrics(self):
        return [self.tracker]

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((self.inner(x) - y) ** 2)
        self.optimizer.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
        self.tracker.update_state(loss)
        return {"loss": self.tracker.result()}


def test_a_model_without_a_call(tmp_path):
    def run(directory, broken_after=None):
        keras.utils.set_random_seed(1)
        model = Encoder()
        model.compile("adam")
        callbacks = [*([Breaking(broken_after)] if broken_after else []), BackupAndRestore(directory, 2, verbose=0)]
        return model, model.fit(X, Y, 8, epochs=3, verbose=0, callbacks=callbacks)

    expected = run(tmp_path / "whole")
    with pytest.raises(Broken):
        run(tmp_path / "backup", 9)
    assert_same(run(tmp_path / "backup"), expected)


# --- callbacks -------------------------------------------------------------------------------------------------------


class Counting(keras.callbacks.Callback):
    """A user's own, with a state."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def on_train_batch_end(self, batch, logs=None):
        self.count += 1

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"]


def test_a_callback_of_ones_own_goes_on_counting(tmp_path):
    with pytest.raises(Broken):
        fit(tmp_path, ours, 12, [Counting()])
    counting = Counting()
    fit(tmp_path, ours, callbacks=[counting])
    assert counting.count == 28


def test_a_callback_whose_state_is_not_known_is_named(tmp_path):
    class Forgetful(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.best = 0

    with pytest.warns(UserWarning, match="what Forgetful remember is not saved"):
        fit(tmp_path, ours, callbacks=[Forgetful()])


def test_a_callback_that_came_later_is_named(broken_off):
    with pytest.warns(UserWarning, match="Counting began anew"):
        fit(broken_off, ours, callbacks=[Counting()])


def test_it_goes_to_the_front(tmp_path):
    order = []

    class Noting(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            order.append("other")

    class Backup(BackupAndRestore):
        def on_epoch_begin(self, epoch, logs=None):
            order.append("backup")
            super().on_epoch_begin(epoch, logs)

    keras.utils.set_random_seed(1)
    built().fit(**ours(), epochs=1, verbose=0, callbacks=[Noting(), Backup(tmp_path)])
    assert order == ["backup", "other"]


def test_a_rate_that_is_cut_where_an_epoch_begins_is_cut_once(tmp_path):
    def callbacks():
        return [keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.5)]

    expected = fit(tmp_path / "whole", ours, callbacks=callbacks())
    with pytest.raises(Broken):
        fit(tmp_path / "backup", ours, 12, callbacks())
    assert_same(fit(tmp_path / "backup", ours, callbacks=callbacks()), expected)


def test_random_generators_of_python_and_numpy(tmp_path):
    drawn = []

    class Drawing(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            drawn.append((random.random(), np.random.normal()))

    fit(tmp_path / "whole", ours, callbacks=[Drawing()])
    expected = drawn[:]
    drawn.clear()
    with pytest.raises(Broken):
        fit(tmp_path / "backup", ours, 12, [Drawing()])
    drawn.clear()
    fit(tmp_path / "backup", ours, callbacks=[Drawing()])
    assert drawn == expected[-len(drawn) :]


def test_callbacks_that_are_given(tmp_path):
    counting = Counting()
    with pytest.raises(Broken):
        fit(tmp_path, ours, 12, settings={"callbacks": [counting]})
    counting.count = 5
    fit(tmp_path, ours, settings={"callbacks": [counting]})
    assert counting.count == 0


def test_beside_the_callback_of_keras_it_is_refused(tmp_path):
    with pytest.raises(RuntimeError, match="Keras's callback of this name"):
        fit(tmp_path, ours, callbacks=[keras.callbacks.BackupAndRestore(str(tmp_path / "keras"))])


def test_in_a_loop_of_ones_own_it_is_refused(tmp_path):
    with (
        pytest.raises(RuntimeError, match="`fit` of the model is not what calls"),
        attach(built(), BackupAndRestore(tmp_path)),
    ):
        raise AssertionError


def test_evaluate_with_it_in_the_list_does_nothing(tmp_path):
    built().evaluate(X, Y, verbose=0, callbacks=[BackupAndRestore(tmp_path / "backup")])
    assert not (tmp_path / "backup").exists()


def test_it_says_where_it_goes_on(broken_off, capsys):
    fit(broken_off, ours, settings={"verbose": 1})
    assert capsys.readouterr().out == f"Resumed in epoch 2 after 4 of its batches, from {broken_off}.\n"


# --- when ------------------------------------------------------------------------------------------------------------


def times_of_backups(clock, monkeypatch, tmp_path, cost, seconds_a_batch, **settings):
    """The batches of one long epoch before which a backup was made, each of which takes `cost` seconds."""
    batches, made = [0], []
    original = backup_and_restore.BackupFolder.write

    def write(self, state, is_epoch):
        made.append(batches[0])
        clock.seconds += cost
        original(self, state, is_epoch)

    def next_batch(batch, logs):
        batches[0] += 1
        clock.seconds += seconds_a_batch

    monkeypatch.setattr(backup_and_restore.BackupFolder, "write", write)
    counting = keras.callbacks.LambdaCallback(on_train_batch_end=next_batch)
    backup = BackupAndRestore(tmp_path, verbose=0, **settings)
    built().fit(np.repeat(X, 4, 0), np.repeat(Y, 4, 0), batch_size=1, verbose=0, callbacks=[counting, backup])
    return made[1:-1]  # the first one is that of the begin, the last one that of the end


def test_backups_in_an_epoch_cost_one_percent(clock, monkeypatch, tmp_path):
    made = times_of_backups(clock, monkeypatch, tmp_path, cost=0.2, seconds_a_batch=1.0)
    assert made[0] == 30
    assert 0.2 * len(made) <= 0.01 * 200 + 0.2
    assert len(made) >= 9


def test_backups_every_so_many_seconds(clock, monkeypatch, tmp_path):
    made = times_of_backups(clock, monkeypatch, tmp_path, cost=0.0, seconds_a_batch=1.0, every_seconds=50)
    assert made == [50, 100, 150]


def test_backups_every_so_many_batches(clock, monkeypatch, tmp_path):
    made = times_of_backups(clock, monkeypatch, tmp_path, cost=0.0, seconds_a_batch=1.0, save_freq=60)
    assert made == [60, 120, 180]


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"backup_dir": ""}, "`backup_dir` must be a path"),
        ({"backup_dir": 3}, "`backup_dir` must be a path"),
        ({"save_freq": 0}, "`save_freq` must be an integer of at least 1"),
        ({"save_freq": "batch"}, "`save_freq` must be"),
        ({"every_seconds": 0}, "`every_seconds` must be a finite number above 0"),
        ({"every_seconds": math.inf}, "`every_seconds` must be a finite number above 0"),
        ({"every_seconds": 3, "save_freq": 4}, "`every_seconds` must be None with save_freq"),
        ({"keep": 0}, "`keep` must be an integer of at least 1"),
    ],
)
def test_bad_arguments(settings, what):
    with pytest.raises(InputError, match=what):
        BackupAndRestore(**({"backup_dir": "backup"} | settings))
