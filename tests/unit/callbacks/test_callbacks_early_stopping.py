"""EarlyStopping against Keras's on random sequences, and where Keras is at fault."""

import math

import keras
import numpy as np
import pytest

from keras_opt.callbacks import EarlyStopping, Plateau, Target
from keras_opt.core.errors import NoEffectWarning


class StubModel:
    """What EarlyStopping asks of a model; its one weight is the epoch."""

    def __init__(self):
        self.stop_training = False
        self.weights = 0
        self.trainable_variables = []

    def get_weights(self):
        return [self.weights]

    def set_weights(self, weights):
        (self.weights,) = weights


def drive(callback, sequence, monitor):
    """Feed the callback as `fit` would; return what it decided."""
    model = StubModel()
    callback.set_model(model)
    callback.on_train_begin()
    for epoch, value in enumerate(sequence):
        model.weights = epoch
        callback.on_epoch_end(epoch, {monitor: value})
        if model.stop_training:
            break
    callback.on_train_end()
    return {
        "epochs": epoch + 1,
        "stopped_epoch": callback.stopped_epoch,
        "best": callback.best,
        "best_epoch": callback.best_epoch,
        "wait": callback.wait,
        "weights": model.weights,
    }


def settings_and_sequence(rng):
    mode = str(rng.choice(["min", "max"]))
    settings = {
        "monitor": "loss",
        "mode": mode,
        "patience": int(rng.integers(0, 5)),
        "min_delta": float(rng.choice([0.0, 0.125, 0.25])),
        "baseline": [None, 0.375, 0.625][rng.integers(3)],
        "start_from_epoch": int(rng.integers(0, 4)),
        "restore_best_weights": bool(rng.integers(2)),
    }
    epochs = int(rng.integers(2, 25))
    trend = np.linspace(0, rng.normal(scale=0.5), epochs)
    # Eighths: many ties, and exact in the float32 in which Keras compares.
    return settings, (((0.5 + trend + rng.normal(scale=0.2, size=epochs)) * 8).round() / 8).tolist()


def test_500_random_sequences_are_decided_as_in_keras():
    rng = np.random.default_rng(0)
    stopped = 0
    for _ in range(500):
        settings, sequence = settings_and_sequence(rng)
        theirs = drive(keras.callbacks.EarlyStopping(**settings), sequence, "loss")
        assert drive(EarlyStopping(**settings), sequence, "loss") == theirs, (settings, sequence)
        stopped += theirs["stopped_epoch"] > 0
    assert 100 < stopped < 500  # both outcomes were seen


def test_a_first_nan_stays_best_in_keras_and_not_here():
    sequence = [math.nan, 3.0, 2.0, 1.0, 0.5]
    settings = {"monitor": "loss", "mode": "min", "patience": 2, "restore_best_weights": True}
    theirs = drive(keras.callbacks.EarlyStopping(**settings), sequence, "loss")
    ours = drive(EarlyStopping(**settings), sequence, "loss")
    assert theirs["epochs"] < 5  # Keras stops a training that improves in every epoch
    assert math.isnan(theirs["best"])
    assert (ours["epochs"], ours["best"], ours["best_epoch"], ours["weights"]) == (5, 0.5, 4, 4)


def test_a_combination_stops_fit_and_leaves_its_reason_in_the_history(capsys):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    stop = EarlyStopping(Plateau("loss", patience=2) | Target("loss", -1.0), verbose=1)
    history = model.fit(np.ones((4, 2)), np.ones((4, 1)), epochs=9, verbose=0, callbacks=[stop])
    assert len(history.epoch) == 3
    assert stop.stopped_epoch == 2
    assert history.stop_reason == stop.stopped_because
    assert stop.stopped_because.startswith("loss has not improved for 2 epochs; best ")
    assert capsys.readouterr().out == f"Stopped after epoch 3: {stop.stopped_because}.\n"


def test_the_best_weights_come_back_also_when_nothing_stopped():
    result = drive(EarlyStopping("loss", patience=9, restore_best_weights=True), [3, 1, 2], "loss")
    assert result == {"epochs": 3, "stopped_epoch": 0, "best": 1, "best_epoch": 1, "wait": 1, "weights": 1}


def test_a_second_fit_starts_anew():
    stop = EarlyStopping("loss", patience=1)
    drive(stop, [1, 2], "loss")
    assert drive(stop, [5, 4, 3], "loss")["stopped_epoch"] == 0
    assert stop.stopped_because == ""


def test_validation_freq_counts_only_epochs_with_validation():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    data = np.ones((4, 2)), np.ones((4, 1))
    stop = EarlyStopping("val_loss", patience=2)
    with pytest.warns(NoEffectWarning, match="epoch 1 had no validation, so 'val_loss' is not in its logs") as caught:
        history = model.fit(*data, validation_data=data, validation_freq=2, epochs=20, verbose=0, callbacks=[stop])
    assert len([warning for warning in caught if warning.category is NoEffectWarning]) == 1
    assert len(history.epoch) == 6


def ranked(metric, stop):
    """The epochs of a fit of constant weights with a metric named "ranking"."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, activation="sigmoid")])
    model.compile(keras.optimizers.SGD(0.0), "mse", metrics=[metric])
    data = np.ones((4, 2)), np.ones((4, 1))
    model.fit(*data, validation_data=data, epochs=6, verbose=0, callbacks=[stop])
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


def test_a_misspelt_monitor_stops_the_fit_at_the_first_epoch():
    with pytest.raises(ValueError, match="Did you mean 'loss'"):
        drive(EarlyStopping("losss", mode="min"), [1.0], "loss")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"monitor": Target("loss", 0.1), "patience": 3}, "`patience` must be left out beside a criterion"),
        ({"monitor": Target("loss", 0.1), "baseline": 0.0}, "`baseline` must be left out beside a criterion"),
        (
            {"monitor": Target("loss", 0.1), "restore_best_weights": True},
            "`restore_best_weights` must be False",
        ),
        ({"monitor": 3}, "`monitor` must be a name in the logs or a criterion"),
        ({"monitor": {"loss": 1}}, "`monitor` must be a name in the logs or a criterion"),
        ({"monitor": "loss", "patience": -1}, "`patience` must be an integer of at least 0"),
    ],
)
def test_bad_arguments(settings, message):
    with pytest.raises(ValueError, match=message):
        EarlyStopping(**settings)


def test_a_fit_that_runs_to_its_end_says_so_in_the_history():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    stop = EarlyStopping(Target("loss", -1.0))
    history = model.fit(np.ones((4, 2)), np.ones((4, 1)), epochs=2, verbose=0, callbacks=[stop])
    assert stop.stopped_because == ""
    assert history.stop_reason == "all 2 epochs were run"
