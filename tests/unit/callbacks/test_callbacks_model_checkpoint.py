import errno
import json
import re
import warnings

import keras
import numpy as np
import pytest

from keras_opt.callbacks import (
    BackupAndRestore,
    GradientAccumulation,
    GradientMonitor,
    ModelCheckpoint,
    WeightAveraging,
)
from keras_opt.callbacks.checkpoint_files import CheckpointFile, best_files
from keras_opt.core.errors import InputError, NoEffectWarning
from keras_opt.training import StepHooks

X, Y = np.ones((12, 2), "float32"), np.zeros((12, 1), "float32")


def small():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, name="head")])
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), "mse")
    return model


class Scripted(keras.callbacks.Callback):
    """Puts values of its own into the logs."""

    def __init__(self, values, name="val_loss"):
        super().__init__()
        self.values = values
        self.name = name

    def on_epoch_end(self, epoch, logs=None):
        if self.values[epoch] is not ...:
            logs[self.name] = self.values[epoch]


def run(folder, values, name="{epoch}.keras", model=None, callback=None, **arguments):
    """A fit of one step an epoch; what callback was used, and the files that are there in the end."""
    callback = callback or ModelCheckpoint(folder / name, **arguments)
    model = model or small()
    listed = [Scripted(values), callback]
    model.fit(X, Y, batch_size=12, epochs=len(values), verbose=0, validation_data=(X, Y), callbacks=listed)
    return callback, sorted(path.name for path in folder.iterdir() if path.name != "index.json")


def index(folder, name="{epoch}.keras"):
    return json.loads((folder / "index.json").read_text("utf-8"))[name]


# --- what is kept ----------------------------------------------------------------------------------------------------


def files(*values):
    return [CheckpointFile(str(place), place, None, value, "") for place, value in enumerate(values)]


@pytest.mark.parametrize(
    ("values", "mode", "best"),
    [
        ([3.0, 1.0, 2.0], "min", "120"),
        ([3.0, 1.0, 2.0], "max", "021"),
        ([1.0, 1.0, 1.0], "min", "012"),
        ([None, 2.0, None, 1.0], "min", "3120"),
        ([], "min", ""),
    ],
    ids=["min", "max", "ties: the earlier", "without a value: last, the later first", "none"],
)
def test_the_order_of_the_best(values, mode, best):
    assert "".join(one.file for one in best_files(files(*values), mode, 9)) == best


def test_the_best_and_the_last_stay(tmp_path):
    callback, left = run(tmp_path, [0.5, 0.2, 0.4, 0.3, 0.1, 0.9], keep=2)
    assert left == ["2.keras", "5.keras", "6.keras"]
    assert (callback.best_path, callback.last_path) == (tmp_path / "5.keras", tmp_path / "6.keras")
    assert callback.best == 0.1


def test_with_keep_none_all_stay_as_in_keras(tmp_path):
    assert run(tmp_path, [0.1, 0.2, 0.3, 0.4, 0.5], keep=None)[1] == [f"{epoch}.keras" for epoch in range(1, 6)]


def test_only_better_ones_are_saved_with_save_best_only(tmp_path):
    _, left = run(tmp_path, [0.5, 0.6, 0.4, 0.4, 0.3, 0.2], save_best_only=True, keep=2)
    assert left == ["5.keras", "6.keras"]
    assert [one["file"] for one in index(tmp_path)["files"]] == left


def test_one_file_without_fields_is_written_over(tmp_path):
    _, left = run(tmp_path, [0.5, 0.2, 0.4], "best.keras", save_best_only=True)
    assert left == ["best.keras"]
    assert index(tmp_path, "best.keras")["files"][0]["epoch"] == 2


def test_nan_and_inf_are_never_best_where_keras_keeps_a_first_nan_for_ever(tmp_path):
    values = [float("nan"), float("-inf"), 0.5, float("nan"), 0.4]
    theirs = run(tmp_path, values, callback=keras.callbacks.ModelCheckpoint(tmp_path / "k.keras", save_best_only=True))
    assert np.isnan(theirs[0].best)
    (tmp_path / "k.keras").unlink()
    ours, left = run(tmp_path, values, save_best_only=True)
    assert (ours.best, left) == (0.4, ["3.keras", "5.keras"])


def test_values_that_are_not_finite_come_last_and_are_null_in_the_index(tmp_path):
    callback, left = run(tmp_path, [float("nan"), 0.3, float("inf"), 0.5], keep=2)
    assert left == ["2.keras", "4.keras"]
    callback, _ = run(tmp_path, [float("nan")], name="n{epoch}.keras")
    assert index(tmp_path, "n{epoch}.keras")["files"][0]["value"] is None
    assert callback.best_path is None
    assert callback.last_path == tmp_path / "n1.keras"


def test_a_threshold_must_be_beaten_first(tmp_path):
    _, left = run(tmp_path, [0.5, 0.4, 0.3], save_best_only=True, initial_value_threshold=0.4)
    assert left == ["3.keras"]


@pytest.mark.parametrize(
    ("arguments", "values"),
    [
        ({"save_best_only": True}, [0.5, 0.6, 0.4, 0.4, 0.3, 0.7]),
        ({"save_best_only": True, "mode": "max"}, [0.5, 0.6, 0.4, 0.7, 0.3, 0.7]),
        ({}, [0.5, 0.6, 0.4]),
        ({"save_best_only": True, "initial_value_threshold": 0.45}, [0.5, 0.4, 0.43]),
    ],
)
def test_without_deleting_the_files_are_those_of_keras(tmp_path, arguments, values):
    (tmp_path / "ours").mkdir()
    (tmp_path / "theirs").mkdir()
    name = "{epoch:02d}-{val_loss:.2f}.weights.h5"
    theirs = keras.callbacks.ModelCheckpoint(tmp_path / "theirs" / name, save_weights_only=True, **arguments)
    expected = run(tmp_path / "theirs", values, callback=theirs)
    found = run(tmp_path / "ours", values, name, keep=None, save_weights_only=True, **arguments)
    assert found[1] == expected[1]
    assert found[0].best == expected[0].best or not arguments


# --- the index -------------------------------------------------------------------------------------------------------


def test_the_index_tells_what_is_there(tmp_path):
    run(tmp_path, [0.5, 0.2, 0.4], name="{epoch:02d}-{val_loss:.2f}.keras", keep=1)
    found = index(tmp_path, "{epoch:02d}-{val_loss:.2f}.keras")
    dates = [one.pop("date") for one in found["files"]]
    assert found == {
        "monitor": "val_loss",
        "mode": "min",
        "best": "02-0.20.keras",
        "last": "03-0.40.keras",
        "files": [
            {"file": "02-0.20.keras", "epoch": 2, "batch": None, "value": 0.2},
            {"file": "03-0.40.keras", "epoch": 3, "batch": None, "value": 0.4},
        ],
        "writing": None,
    }
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d", date) for date in dates)


def test_two_checkpoints_share_the_index_of_a_folder(tmp_path):
    listed = [
        ModelCheckpoint(tmp_path / "best.keras", "loss", save_best_only=True),
        ModelCheckpoint(tmp_path / "l.keras"),
    ]
    small().fit(X, Y, verbose=0, validation_data=(X, Y), callbacks=listed)
    assert set(json.loads((tmp_path / "index.json").read_text())) == {"best.keras", "l.keras"}


def test_fields_in_folders_leave_the_index_above_them(tmp_path):
    callback, left = run(tmp_path, [0.5, 0.4], name="run/{epoch}/model.keras", keep=1)
    assert left == ["run"]
    assert index(tmp_path / "run", "{epoch}/model.keras")["best"] == "2/model.keras"
    assert callback.best_path == tmp_path / "run/2/model.keras"


def test_files_of_an_earlier_training_are_never_deleted(tmp_path):
    run(tmp_path, [0.1, 0.2], keep=1)
    (tmp_path / "mine.keras").write_text("mine")
    _, left = run(tmp_path, [0.5, 0.4, 0.3], name="new-{epoch}.keras", keep=1)
    assert left == ["1.keras", "2.keras", "mine.keras", "new-3.keras"]


@pytest.mark.parametrize("content", ["no json", "[1]", '{"a": 1}'])
def test_an_index_of_somebody_else_is_an_error_before_training(tmp_path, content):
    (tmp_path / "index.json").write_text(content)
    with pytest.raises(InputError, match="is no index of checkpoints"):
        run(tmp_path, [0.1])
    assert (tmp_path / "index.json").read_text() == content


# --- whole or not at all ---------------------------------------------------------------------------------------------


def full_disk(self, filepath, **arguments):
    """What a save does on a full disk: a part of the file is there, and an error."""
    with open(filepath, "wb") as file:
        file.write(b"PK half of it")
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("is_ours", [False, True], ids=["Keras", "keras_opt"])
def test_a_full_disk_leaves_the_old_file_whole_but_not_in_keras(tmp_path, monkeypatch, is_ours):
    made = (ModelCheckpoint if is_ours else keras.callbacks.ModelCheckpoint)(tmp_path / "last.keras")
    run(tmp_path, [0.5], callback=made)
    before = (tmp_path / "last.keras").read_bytes()
    monkeypatch.setattr(keras.Sequential, "save", full_disk)
    with pytest.raises(OSError, match="No space left"):
        run(tmp_path, [0.4], callback=made)
    assert ((tmp_path / "last.keras").read_bytes() == before) == is_ours
    if is_ours:
        assert sorted(path.name for path in tmp_path.iterdir()) == ["index.json", "last.keras"]
        assert index(tmp_path, "last.keras")["files"][0]["value"] == 0.5


def test_what_a_kill_leaves_of_a_file_goes_as_the_next_training_begins(tmp_path, monkeypatch):
    run(tmp_path, [0.5])
    written = []

    def killed(self, filepath, **arguments):
        written.append(filepath)
        full_disk(self, filepath)

    with monkeypatch.context() as patch:
        patch.setattr(keras.Sequential, "save", killed)
        with pytest.raises(OSError, match="No space left"):
            run(tmp_path, [0.4])
    assert index(tmp_path)["best"] == "1.keras", "the files of before stay in the index"
    alike = written[0].with_name(".1-mine.keras")
    for path in (written[0], alike):  # a kill does not clear away
        path.write_bytes(b"PK half of it")
    run(tmp_path, [0.4], name="another.keras")
    assert written[0].exists()
    run(tmp_path, [0.3])
    assert alike.exists()
    assert not written[0].exists()


def test_an_error_before_the_rename_leaves_the_best_value_as_it_was(tmp_path, monkeypatch):
    callback, _ = run(tmp_path, [0.5], save_best_only=True)
    with monkeypatch.context() as patch:
        patch.setattr(keras.Sequential, "save", full_disk)
        with pytest.raises(OSError, match="No space left"):
            run(tmp_path, [0.4], callback=callback)
    assert (callback.best, callback.best_path.name) == (0.5, "1.keras")


def test_the_index_names_only_files_that_are_there_at_any_moment(tmp_path, monkeypatch):
    seen = []
    unlink = type(tmp_path).unlink

    def watched(path, missing_ok=False):
        if path.suffix == ".keras" and not path.name.startswith("."):
            listed = [one["file"] for one in index(tmp_path)["files"]]
            seen.append(path.name not in listed and all((tmp_path / name).exists() for name in listed))
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(type(tmp_path), "unlink", watched)
    run(tmp_path, [0.5, 0.4, 0.3], keep=1)
    assert seen == [True, True]


# --- when ------------------------------------------------------------------------------------------------------------


def batches_of(callback, steps_per_execution=1, epochs=2):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", steps_per_execution=steps_per_execution)
    x, y = np.ones((44, 2)), np.ones((44, 1))
    model.fit(x, y, batch_size=4, epochs=epochs, verbose=0, callbacks=[callback])  # eleven batches
    return [(one.epoch, one.batch) for one in callback._files.files]


@pytest.mark.parametrize(
    ("steps_per_execution", "expected"),
    [
        (1, [(1, 5), (1, 10), (2, 4), (2, 9)]),
        (4, [(1, 8), (1, 11), (2, 4), (2, 11)]),
        (8, [(1, 8), (1, 11), (2, 8), (2, 11)]),
    ],
)
def test_every_five_batches_whatever_the_steps_of_an_execution(tmp_path, steps_per_execution, expected):
    made = ModelCheckpoint(tmp_path / "{epoch}-{batch}.keras", "loss", save_freq=5, keep=None)
    assert batches_of(made, steps_per_execution) == expected


def test_the_last_ones_stay_if_what_is_monitored_is_not_known_within_an_epoch(tmp_path):
    made = ModelCheckpoint(tmp_path / "{epoch}-{batch}.weights.h5", save_weights_only=True, save_freq=3, keep=2)
    assert batches_of(made) == [(2, 7), (2, 10)]


def test_epochs_without_validation_are_saved_as_the_last_ones(tmp_path):
    values = [..., 0.4, ..., 0.6, ...]
    model, made = small(), ModelCheckpoint(tmp_path / "{epoch}.keras", keep=1)
    with pytest.warns(NoEffectWarning, match="epoch 1 had no validation"):
        model.fit(X, Y, epochs=5, verbose=0, callbacks=[Scripted(values), made])
    assert (made.best_path.name, made.last_path.name) == ("2.keras", "5.keras")


def test_epochs_whose_name_needs_a_validation_are_skipped(tmp_path):
    made = ModelCheckpoint(tmp_path / "{val_loss:.3f}.keras")
    with pytest.warns(NoEffectWarning, match="epoch 1 had no validation"):
        small().fit(X, Y, epochs=4, verbose=0, validation_data=(X, Y), validation_freq=2, callbacks=[made])
    assert [one.epoch for one in made._files.files] == [2, 4]


def test_micro_batches_are_updated_before_a_save(tmp_path):
    model, made = small(), ModelCheckpoint(tmp_path / "{epoch}.keras", "loss")
    model.fit(X, Y, batch_size=4, verbose=0, callbacks=[made, GradientAccumulation(2)])
    assert all(map(np.array_equal, keras.models.load_model(tmp_path / "1.keras").get_weights(), model.get_weights()))


def test_listed_after_weight_averaging_it_saves_the_averages_and_before_it_is_an_error(tmp_path):
    model, made = small(), ModelCheckpoint(tmp_path / "{epoch}.keras", "loss")
    average = WeightAveraging("ema", ema_momentum=0.5)
    model.fit(X, Y, batch_size=2, verbose=0, callbacks=[average, made])
    assert all(map(np.array_equal, keras.models.load_model(tmp_path / "1.keras").get_weights(), model.get_weights()))
    with pytest.raises(InputError, match=r"callbacks=\[WeightAveraging, ModelCheckpoint\]"):
        small().fit(X, Y, verbose=0, callbacks=[made, average])


def test_the_file_opens_in_plain_keras_with_the_state_of_the_optimizer_and_without_the_hooks(tmp_path):
    model = small()
    listed = [GradientMonitor(), ModelCheckpoint(tmp_path / "{epoch}.keras", "loss")]
    model.fit(X, Y, batch_size=4, epochs=2, verbose=0, callbacks=listed)
    loaded = keras.saving.load_model(tmp_path / "2.keras")
    assert "train_step" not in vars(loaded)
    assert "apply" not in vars(loaded.optimizer)
    pairs = zip(loaded.optimizer.variables, model.optimizer.variables, strict=True)
    assert all(np.array_equal(one, other) for one, other in pairs)
    assert "keras_opt" not in json.dumps(loaded.get_config())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded.fit(X, Y, verbose=0)


def test_verbose_says_what_is_saved(tmp_path, capsys):
    run(tmp_path, [0.5, 0.6], save_best_only=True, verbose=1)
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"Epoch 1: saved {str(tmp_path / '1.keras')!r}, the best so far: val_loss 0.5."
    assert second == "Epoch 2: val_loss is 0.6, the best is 0.5; nothing is saved."


# --- several fits and resuming ---------------------------------------------------------------------------------------


def test_a_second_fit_goes_on_from_the_best_as_in_keras(tmp_path):
    callback, _ = run(tmp_path, [0.3], save_best_only=True, name="{val_loss}.keras")
    _, left = run(tmp_path, [0.4, 0.2], callback=callback)
    assert left == ["0.2.keras", "0.3.keras"]


@pytest.mark.parametrize("stop", range(1, 6))
def test_resumed_at_any_epoch_it_ends_with_the_same_files(tmp_path, stop):
    values = [0.5, 0.2, 0.4, float("nan"), 0.3, 0.9]
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    whole.mkdir()
    resumed.mkdir()
    expected = run(whole, values, keep=2)
    begun, _ = run(resumed, values[:stop], keep=2)
    state = begun.state_dict()

    class Load(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            listed[1].load_state_dict(state)
            listed[1].load_state_dict(state)

    listed = [Scripted(values), ModelCheckpoint(resumed / "{epoch}.keras", keep=2), Load()]
    arguments = {"initial_epoch": stop, "epochs": len(values), "validation_data": (X, Y), "callbacks": listed}
    small().fit(X, Y, batch_size=12, verbose=0, **arguments)
    assert sorted(path.name for path in resumed.iterdir() if path.name != "index.json") == expected[1]
    found, wanted = index(resumed), index(whole)
    for one in (*found["files"], *wanted["files"]):
        del one["date"]
    assert found == wanted
    assert listed[1].best == expected[0].best


def test_files_that_were_deleted_after_the_state_was_taken_are_forgotten(tmp_path):
    callback, _ = run(tmp_path, [0.5, 0.4])
    state = callback.state_dict()
    (tmp_path / "2.keras").unlink()
    callback.load_state_dict(state)
    assert callback.best_path == callback.last_path == tmp_path / "1.keras"


def test_a_state_is_made_of_plain_things(tmp_path):
    callback, _ = run(tmp_path, [0.5, 0.4])
    assert json.loads(json.dumps(callback.state_dict())) == callback.state_dict()


def test_it_goes_with_backup_and_restore(tmp_path):
    listed = [BackupAndRestore(tmp_path / "backup"), ModelCheckpoint(tmp_path / "c" / "{epoch}.keras", "loss", keep=1)]
    small().fit(X, Y, epochs=2, verbose=0, callbacks=listed)
    assert listed[1].last_path.exists()


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "minimum"}, "argument `mode` must be one of 'auto', 'min', 'max'"),
        ({"save_freq": 0}, "argument `save_freq` must be an integer of at least 1"),
        ({"save_freq": "batch"}, "argument `save_freq` must be an integer of at least 1"),
        ({"keep": 0}, "argument `keep` must be an integer of at least 1"),
        ({"initial_value_threshold": "x"}, "argument `initial_value_threshold` must be a finite number"),
        ({"filepath": "a.h6"}, "must be a path ending in .keras"),
        ({"filepath": "a.keras", "save_weights_only": True}, "must be a path ending in .weights.h5"),
        ({"filepath": "{}.keras"}, "must be a path whose fields have names"),
        ({"filepath": "{epoch.keras"}, "must be a path with whole fields"),
        ({"filepath": "{batch}.keras"}, "must be without {batch} at save_freq"),
        ({"filepath": "gs://bucket/a.keras"}, "must be a path in the file system"),
        ({"save_freq": 3, "save_best_only": True}, "must be of training at an integer save_freq"),
    ],
)
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(InputError, match=re.escape(message)):
        ModelCheckpoint(**{"filepath": "{epoch}.keras"} | arguments)


def test_a_folder_that_cannot_be_made_is_an_error_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    model = small()
    with pytest.raises(InputError, match="must be in a folder that can be written"):
        model.fit(X, Y, verbose=0, callbacks=[ModelCheckpoint(tmp_path / "file" / "a.keras")])
    (tmp_path / "a.keras").mkdir()
    with pytest.raises(InputError, match="must be a file"):
        model.fit(X, Y, verbose=0, callbacks=[ModelCheckpoint(tmp_path / "a.keras")])
    assert int(model.optimizer.iterations) == 0


def test_a_folder_that_cannot_be_written_is_an_error_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr("keras_opt.callbacks.model_checkpoint.os.access", lambda path, mode: False)
    with pytest.raises(InputError, match="must be in a folder that can be written"):
        small().fit(X, Y, verbose=0, callbacks=[ModelCheckpoint(tmp_path / "a.keras")])


@pytest.mark.parametrize("arguments", [{"save_best_only": True}, {}], ids=["best only", "keep=3"])
def test_a_monitor_that_is_not_in_the_logs_is_an_error_at_the_first_epoch_end(tmp_path, arguments):
    model = small()
    with pytest.raises(InputError, match=r"`monitor` must be in the logs.*'val_loss'.*Did you mean"):
        run(tmp_path, [0.1] * 5, model=model, monitor="val_los", **arguments)
    assert int(model.optimizer.iterations) == 1


def test_best_only_without_any_validation_is_an_error_at_the_first_epoch_end(tmp_path):
    made = ModelCheckpoint(tmp_path / "a.keras", save_best_only=True)
    with pytest.raises(InputError, match=r"monitor='val_loss'; the logs hold 'loss'.*validation_data"):
        small().fit(X, Y, epochs=3, verbose=0, callbacks=[made])


def test_a_monitor_whose_source_is_listed_later_tells_the_order(tmp_path):
    made = ModelCheckpoint(tmp_path / "a.keras", "grad_norm", mode="min", save_best_only=True)
    with pytest.raises(InputError, match=r"callbacks=\[GradientMonitor, ModelCheckpoint\]"):
        small().fit(X, Y, verbose=0, callbacks=[made, GradientMonitor()])


def test_an_unknown_direction_is_an_error_only_where_files_are_ranked(tmp_path):
    with pytest.raises(InputError, match="argument `mode` must be"):
        small().fit(
            X, Y, verbose=0, callbacks=[Scripted([1.0], "speed"), ModelCheckpoint(tmp_path / "{epoch}.keras", "speed")]
        )
    made = ModelCheckpoint(tmp_path / "a.keras", "speed")
    small().fit(X, Y, verbose=0, callbacks=[Scripted([1.0], "speed"), made])
    assert made.last_path.exists()


def test_a_field_that_is_not_in_the_logs_names_those_that_are(tmp_path):
    made = ModelCheckpoint(tmp_path / "{epoch}-{val_acuracy:.2f}.keras", "loss")
    with pytest.raises(InputError, match=r"there are 'loss', 'epoch', and no 'val_acuracy'"):
        small().fit(X, Y, epochs=3, verbose=0, callbacks=[made])


def test_an_evaluation_leaves_it_alone(tmp_path):
    model, made = small(), ModelCheckpoint(tmp_path / "new" / "a.keras")
    model.evaluate(X, Y, verbose=0, callbacks=[made])
    assert not (tmp_path / "new").exists()
    assert StepHooks.of(model).plugins == ()
