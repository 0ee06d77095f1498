import math

import keras
import numpy as np
import pytest

from keras_opt.callbacks import EarlyStopping, suggest_patience

LOSSES = [0.9, 0.5, 0.6, math.nan, 0.4, 0.41, 0.42, 0.43, 0.44, 0.45]


def test_the_rows_say_what_each_patience_would_have_saved_and_lost():
    table = suggest_patience({"val_loss": LOSSES})
    assert table.suggestion == 3
    assert table.rows == (
        (1, 2, 0.5, 1, 7),
        (2, 3, 0.5, 1, 6),
        (3, 7, 0.4, 4, 2),
        (5, 9, 0.4, 4, 0),
        (8, 9, 0.4, 4, 0),
    )
    assert table.rows[2].epochs_saved == 2


def test_each_row_is_what_early_stopping_would_have_done():
    values = (np.random.default_rng(0).normal(size=60).cumsum()).tolist()
    for row in suggest_patience({"score": values}, "score", mode="max", min_delta=0.1).rows:
        found = EarlyStopping("score", 0.1, row.patience, mode="max").replay({"score": values})
        assert (row.best_epoch, row.best) == (found.best_epoch, found.best)
        assert row.epoch == (59 if found.epoch is None else found.epoch)


def test_a_long_suggestion_is_always_shown():
    values = [1.0] + [2.0] * 17 + [0.5]
    table = suggest_patience({"val_loss": values})
    assert table.suggestion == 18
    assert [row.patience for row in table.rows] == [1, 2, 3, 5, 8, 13, 18]


def test_it_reads_a_history_and_the_direction_of_a_compiled_metric():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", metrics=[keras.metrics.MeanAbsoluteError(name="ranking")])
    data = np.ones((4, 1)), np.ones((4, 1))
    history = model.fit(*data, validation_data=data, validation_freq=2, epochs=6, verbose=0)
    table = suggest_patience(history, "val_ranking", validation_freq=2)
    assert table.rows[-1].best == min(history.history["val_ranking"])


def test_it_prints_a_table():
    lines = str(suggest_patience({"val_loss": LOSSES})).splitlines()
    assert lines[0] == "patience  stopped after  best val_loss  at epoch  epochs saved"
    assert lines[3] == "       3              8            0.4         5             2  <"
    assert len({len(line.removesuffix("  <")) for line in lines}) == 1


@pytest.mark.parametrize(
    ("history", "settings", "message"),
    [
        ({}, {}, "`monitor` must be in the logs"),
        ({"val_los": [1.0]}, {}, "Did you mean 'val_los'"),
        ({"val_loss": []}, {}, "must have a finite value of 'val_loss'"),
        ({"val_loss": [math.nan, math.inf]}, {}, "must have a finite value of 'val_loss'"),
        ({"ranking": [1.0]}, {"monitor": "ranking"}, '`mode` must be "min" or "max" here'),
        ({"val_loss": [1.0]}, {"mode": "mini"}, "Did you mean 'min'"),
        ({"val_loss": [1.0]}, {"validation_freq": 0}, "`validation_freq` must be an integer of at least 1"),
    ],
)
def test_bad_arguments(history, settings, message):
    with pytest.raises(ValueError, match=message):
        suggest_patience(history, **settings)
