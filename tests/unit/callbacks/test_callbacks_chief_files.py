"""Who writes, of several workers. They are pretended here; real ones are in tests/e2e."""

import keras
import numpy as np
import pytest

from keras_opt import callbacks
from keras_opt.callbacks.backup import chief_files
from keras_opt.callbacks.backup.chief_files import is_left_to_chief, leave_files_to_chief
from keras_opt.callbacks.backup.keras_states import state_of
from keras_opt.core.errors import InputError
from keras_opt.core.replicas import Worker


@pytest.fixture
def as_worker(monkeypatch):
    """A fit of the worker of that number, of two; `leave_files_to_chief` is called where `distribute` calls it."""

    def fit(index, *used):
        for module in ("callbacks.model_checkpoint", "callbacks.gradient_monitor", "callbacks.backup.chief_files"):
            monkeypatch.setattr(f"keras_opt.{module}.this_worker", lambda strategy: Worker(index, 2))
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        build = model._maybe_symbolic_build

        def begin(*args, **kwargs):
            leave_files_to_chief(model)
            build(*args, **kwargs)

        model._maybe_symbolic_build = begin
        model.compile("sgd", "mse")
        return model.fit(np.ones((8, 3)), np.ones((8, 1)), verbose=0, callbacks=list(used))

    return fit


def writers(folder):
    return [
        callbacks.GradientMonitor(log_dir=folder / "norms", warn=False, histograms=1),
        callbacks.ModelCheckpoint(folder / "model.keras", monitor="loss"),
        keras.callbacks.CSVLogger(folder / "log.csv"),
        keras.callbacks.ModelCheckpoint(folder / "keras.weights.h5", save_weights_only=True),
        keras.callbacks.TensorBoard(folder / "events"),
    ]


def test_the_chief_writes_as_ever(as_worker, tmp_path):
    as_worker(0, *writers(tmp_path))
    names = ["events", "index.json", "keras.weights.h5", "log.csv", "model.keras", "norms"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_another_worker_writes_nothing_and_knows_what_the_chief_has_written(as_worker, tmp_path):
    used = writers(tmp_path)
    history = as_worker(1, *used)
    assert list(tmp_path.iterdir()) == []
    assert used[1].best == history.history["loss"][0]
    assert used[1].last_path == tmp_path / "model.keras"
    assert "grad_norm" in history.history
    assert [is_left_to_chief(each) for each in used] == [False, False, True, True, True]
    assert [state_of(each) for each in used[2:]] == [None, None, None]


def test_what_decides_or_restores_is_left_as_it_is(as_worker):
    used = [keras.callbacks.EarlyStopping("loss"), keras.callbacks.ReduceLROnPlateau("loss")]
    as_worker(1, *used)
    assert not any(map(is_left_to_chief, used))


@pytest.mark.parametrize("index", [0, 1])
def test_a_backup_of_keras_is_refused(as_worker, tmp_path, index):
    with pytest.raises(InputError, match=r"Take keras_opt\.callbacks\.BackupAndRestore, with one `backup_dir` for all"):
        as_worker(index, keras.callbacks.BackupAndRestore(tmp_path / "backup"))


def test_one_worker_alone_refuses_nothing(monkeypatch):
    monkeypatch.setattr(chief_files, "_callbacks_of_fit", lambda model: pytest.fail("there is nothing to look for"))
    leave_files_to_chief(keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)]))
