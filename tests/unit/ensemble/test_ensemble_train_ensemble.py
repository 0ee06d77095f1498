"""train_ensemble: what members differ in, resuming, processes, errors."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from ensemble_builds import build

from keras_opt.ensemble import train_ensemble
from keras_opt.ensemble.member_data import MemberData

DRAW = np.random.default_rng(0)
X = DRAW.normal(size=(24, 3)).astype("float32")
Y = (X[:, 0] > 0).astype("int32")


def train(*arguments, **more):
    return train_ensemble(*arguments, **{"verbose": 0, "batch_size": 12, **more})


def same(first, second):
    return all(np.array_equal(a, b) for a, b in zip(first.get_weights(), second.get_weights(), strict=True))


class Calls:
    """Counts how many models were built; can fail."""

    def __init__(self, fails_at=None):
        self.count, self.fails_at = 0, fails_at

    def __call__(self):
        self.count += 1
        if self.count == self.fails_at:
            raise KeyboardInterrupt
        return build()


def test_a_member_is_what_a_fit_from_its_seed_gives():
    members = train(build, 2, (X, Y), seed=5, epochs=2)
    keras.utils.set_random_seed(6)
    model = build()
    model.fit(X, Y, batch_size=12, epochs=2, verbose=0)
    assert same(members[1], model)
    assert not same(members[0], model)


def test_a_finished_member_is_never_trained_again(tmp_path):
    whole = train(build, 2, (X, Y))
    cut = Calls(fails_at=2)
    with pytest.raises(KeyboardInterrupt):
        train(cut, 2, (X, Y), folder=tmp_path)
    again = Calls()
    resumed = train(again, 2, (X, Y), folder=tmp_path)
    assert again.count == 1
    assert all(same(a, b) for a, b in zip(whole, resumed, strict=True))
    assert resumed[0].evaluate(X, Y, verbose=0, return_dict=True).keys() == {"accuracy", "loss"}
    more = Calls()
    train(more, 3, (X, Y), folder=tmp_path)
    assert more.count == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 3}, r"fit was \{'batch_size': 12\} and is \{'batch_size': 12, 'epochs': 3\}"),
        ({"seed": 1}, "seed was 0 and is 1"),
        ({"data": (X + 1, Y)}, "data was '24 rows"),
        ({"class_weight": {0: 1.0, 1: 3.0}}, r"fit was .*and is .*'class_weight': '\{0: 1.0, 1: 3.0\}'"),
    ],
)
def test_a_folder_of_other_settings_is_refused(changes, message, tmp_path):
    settings = {"data": MemberData((X, Y), "seed", 1, 0).fingerprint(), "vary": "seed", "seed": 0}
    settings = {"build": "ensemble_builds.build", **settings, "fit": {"batch_size": 12}}
    (tmp_path / "ensemble.json").write_text(json.dumps(settings))
    (tmp_path / "member_0.keras").touch()
    with pytest.raises(ValueError, match=f"other settings: {message}"):
        train(**{"build": build, "n": 1, "data": (X, Y), "folder": tmp_path, **changes})


def test_bootstraps_and_folds():
    column = np.arange(24)
    drawn = [MemberData((column, column), "bootstrap", 3, 0).of(member)[0] for member in range(3)]
    assert all(np.array_equal(x, y) and len(x) == 24 and len(set(x)) < 24 for x, y in drawn)
    assert not np.array_equal(drawn[0][0], drawn[1][0])
    folds = [MemberData((column, column), "fold", 3, 0).of(member) for member in range(3)]
    assert sorted(np.concatenate([left_out[0] for _, left_out in folds])) == list(range(24))
    assert all(set(rest[0]) | set(left_out[0]) == set(range(24)) for rest, left_out in folds)
    assert all(len(rest[0]) == 16 for rest, _ in folds)
    (member, _) = train(build, 2, (X, Y, np.ones(24)), vary="fold")
    assert "val_accuracy" in member.history.history


def test_batches_callbacks_and_the_bar(capsys):
    seen = []

    class Stops(keras.callbacks.Callback):
        epochs = 0

        def on_epoch_end(self, epoch, logs=None):
            self.epochs += 1
            seen.append(self.epochs)
            self.model.stop_training = True

    batches = tf.data.Dataset.from_tensor_slices((X, Y)).batch(12)
    train_ensemble(build, 2, batches, epochs=3, callbacks=Stops())
    assert seen == [1, 1]
    assert "train_ensemble: 6/6 in" in capsys.readouterr().err.splitlines()[-1]


def test_the_checksum_of_texts_is_that_of_what_they_say():
    texts = [np.array(each, dtype=object) for each in (["one", "two"], ["one", "two"], ["one", "too"])]
    first, same, other = (MemberData((text, Y[:2]), "seed", 1, 0).fingerprint() for text in texts)
    assert first == same != other


@pytest.mark.full
def test_processes_train_the_same_members(tmp_path):
    members = train(build, 3, (X, Y), epochs=2)
    apart = train(build, 3, (X, Y), epochs=2, processes=2, folder=tmp_path)
    assert all(same(a, b) for a, b in zip(members, apart, strict=True))
    assert sorted(path.name for path in tmp_path.glob("*.keras")) == [f"member_{n}.keras" for n in range(3)]


def test_bad_input():
    batches = tf.data.Dataset.from_tensor_slices((X, Y)).batch(12)
    for arguments, message in (
        ((lambda: build(), 2, (X, Y)), "`build` must be a function of a module for processes > 1"),
        ((build, 2, batches), "`data` must be arrays and plain objects for processes > 1"),
    ):
        with pytest.raises(ValueError, match=message):
            train(*arguments, processes=2)
    with pytest.raises(ValueError, match=r"\(x, y\) in arrays for vary='bootstrap'"):
        train(build, 2, batches, vary="bootstrap")
    with pytest.raises(ValueError, match='`n` must be from 2 to 24, the number of rows, for vary="fold"'):
        train(build, 1, (X, Y), vary="fold")
    with pytest.raises(ValueError, match=r"`validation_data` must be left out for vary=.fold"):
        train(build, 2, (X, Y), vary="fold", validation_data=(X, Y))
    with pytest.raises(ValueError, match=r"columns of one length. Received: \[23, 24\] rows"):
        train(build, 2, (X, Y[1:]))
    with pytest.raises(TypeError, match="`build` must be a function that returns a compiled model"):
        train(lambda: keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]), 2, (X, Y))


def test_a_function_that_returns_one_model_again_and_again():
    model = build()
    with pytest.raises(ValueError, match="`build` must be a function that returns a new model each time"):
        train(lambda: model, 2, (X, Y))


@pytest.mark.parametrize("vary", ["bootstrap", "fold"])
def test_rows_that_were_drawn_are_not_validated_on(vary):
    with pytest.raises(ValueError, match=f"`validation_split` must be left out for vary='{vary}'"):
        train(build, 2, (X, Y), vary=vary, validation_split=0.25)


def test_a_call_that_failed_at_once_leaves_no_settings_behind(tmp_path):
    with pytest.raises(TypeError, match="epoch"):
        train(build, 1, (X, Y), folder=tmp_path, epoch=2)
    assert len(train(build, 1, (X, Y), folder=tmp_path)) == 1


def test_a_damaged_member_is_named(tmp_path):
    train(build, 1, (X, Y), folder=tmp_path)
    (tmp_path / "member_0.keras").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"train_ensemble: the member in '.*member_0\.keras' cannot be.*Delete it"):
        train(build, 1, (X, Y), folder=tmp_path)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"data": X}, TypeError, r"`data` must be \(x, y\) in NumPy arrays, or a dataset"),
        ({"data": [X, Y]}, TypeError, r"`data` must be \(x, y\) in NumPy arrays, or a dataset"),
        ({"data": iter([(X, Y)])}, TypeError, r"`data` must be \(x, y\) in NumPy arrays, or a dataset"),
        ({"seed": 2**32 - 1}, ValueError, "`seed` must be at most 4294967294"),
    ],
)
def test_data_and_seeds_that_do_not_last_for_all_members(arguments, error, message):
    with pytest.raises(error, match=message):
        train(**{"build": build, "n": 2, "data": (X, Y), **arguments})
