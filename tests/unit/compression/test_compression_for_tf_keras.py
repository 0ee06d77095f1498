"""for_tf_keras: callbacks of Keras 3 and keras_opt in a tf_keras fit."""

import csv

import keras
import numpy as np
import pytest
from keras import layers

from keras_opt import callbacks, compression
from keras_opt.compression import for_tf_keras, to_tf_keras
from keras_opt.compression.bridge.tf_keras_import import tf_keras
from keras_opt.core.errors import InputError
from keras_opt.schedules import CosineDecay, StepDecay

X, Y = np.linspace(-1, 1, 32).reshape(8, 4).astype("float32"), np.ones((8, 2), "float32")


@pytest.fixture(scope="module")
def compiled():
    """A tf_keras model whose step is traced once for all tests."""
    model = to_tf_keras(keras.Sequential([keras.Input((4,)), layers.Dense(2)]))
    model.compile(tf_keras().optimizers.SGD(0.1), "mse")
    return model


@pytest.fixture
def model(compiled):
    compiled.set_weights([np.zeros((4, 2)), np.zeros(2)])
    compiled.optimizer.learning_rate = 0.1
    return compiled


class Scripted(keras.callbacks.Callback):
    """Writes losses into the logs, as a callback that evaluates something may."""

    def __init__(self, losses):
        super().__init__()
        self.losses = losses

    def on_epoch_end(self, epoch, logs=None):
        logs["scripted_loss"] = self.losses[epoch]


def fit(model, *used, epochs=5):
    return model.fit(X, Y, batch_size=4, epochs=epochs, verbose=0, callbacks=for_tf_keras(used))


def test_early_stopping_stops_at_its_epoch_and_puts_the_best_weights_back(model):
    weights = []
    note = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: weights.append(model.get_weights()[0]))
    stop = callbacks.EarlyStopping("scripted_loss", patience=2, restore_best_weights=True)
    history = fit(model, Scripted([3.0, 1.0, 2.0, 2.0, 0.0]), note, stop)
    assert history.epoch == [0, 1, 2, 3]
    assert history.history["scripted_loss"] == [3.0, 1.0, 2.0, 2.0]
    assert history.stop_reason == stop.stopped_because
    assert stop.best_epoch == 1
    assert np.array_equal(model.get_weights()[0], weights[1])


def test_best_weights_may_lie_in_a_file(model, tmp_path):
    stop = callbacks.EarlyStopping(
        "scripted_loss", patience=1, restore_best_weights=True, filepath=tmp_path / "best.weights.h5"
    )
    fit(model, Scripted([1.0, 2.0, 3.0, 3.0, 3.0]), stop)
    assert (tmp_path / "best.weights.h5").exists()
    assert stop.best_epoch == 0


@pytest.mark.parametrize(
    "criterion",
    [
        callbacks.Target("scripted_loss", 1.5),
        callbacks.Divergence("scripted_loss", above=2.5),
        callbacks.OverfitGap("loss", "scripted_loss", above=0.1, mode="min"),
        callbacks.GeneralizationLoss(20.0, monitor="scripted_loss"),
        callbacks.SuccessiveIncreases(1, strip=1, monitor="scripted_loss"),
        callbacks.ProgressQuotient(0.01, strip=2, monitor="scripted_loss"),
        callbacks.TimeBudget(1e-9),
    ],
    ids=lambda criterion: type(criterion).__name__,
)
def test_every_criterion_stops_a_tf_keras_fit(model, criterion):
    history = fit(model, Scripted([1.0, 3.0, 4.0, 5.0, 9.0]), callbacks.EarlyStopping(criterion))
    assert len(history.epoch) < 5
    assert history.stop_reason


def test_a_schedule_sets_the_rate_of_each_epoch(model):
    rates = []
    note = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: rates.append(float(model.optimizer.learning_rate)))
    fit(model, callbacks.ScheduleLearningRate(StepDecay(0.4, 1, 0.5)), note, epochs=3)
    assert rates == pytest.approx([0.4, 0.2, 0.1])


@pytest.mark.parametrize("unit", ["batch", "update"])
def test_a_schedule_sets_the_rate_of_each_batch(model, unit):
    rates = []
    note = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda *_: rates.append(float(model.optimizer.learning_rate))
    )
    fit(model, callbacks.ScheduleLearningRate(StepDecay(0.4, 1, 0.5), unit=unit), note, epochs=2)
    assert rates == pytest.approx([0.4, 0.2, 0.1, 0.05])


@pytest.mark.parametrize("kind", [callbacks.ReduceLROnPlateau, keras.callbacks.ReduceLROnPlateau])
def test_a_plateau_cuts_the_rate(model, kind):
    """tf_keras's metrics do not say their direction; the name does."""
    cut = kind("scripted_loss", factor=0.5, patience=2)
    history = fit(model, Scripted([1.0, 2.0, 2.0, 2.0, 2.0]), cut)
    assert history.history["learning_rate"] == pytest.approx([0.1, 0.1, 0.1, 0.05, 0.05])
    assert float(model.optimizer.learning_rate) == pytest.approx(0.025)


@pytest.mark.parametrize(
    "callback",
    [callbacks.ScheduleLearningRate(StepDecay(0.4, 1, 0.5)), callbacks.ReduceLROnPlateau("loss")],
    ids=lambda callback: type(callback).__name__,
)
def test_two_that_set_the_rate_are_refused_before_training(callback):
    model = to_tf_keras(keras.Sequential([keras.Input((4,)), layers.Dense(2)]))
    model.compile(tf_keras().optimizers.SGD(for_tf_keras(CosineDecay(0.1, 10))), "mse")
    with pytest.raises(InputError, match=f"follows the schedule .* so {type(callback).__name__} cannot"):
        fit(model, callback)


def test_loggers_and_checkpoints_write_their_files(model, tmp_path):
    history = fit(
        model,
        Scripted([3.0, 2.0]),
        keras.callbacks.CSVLogger(tmp_path / "log.csv"),
        keras.callbacks.TensorBoard(tmp_path / "board"),
        callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras", monitor="scripted_loss", keep=1),
        callbacks.ModelCheckpoint(tmp_path / "{epoch}.weights.h5", monitor="scripted_loss", save_weights_only=True),
        keras.callbacks.ModelCheckpoint(tmp_path / "last.keras"),
        keras.callbacks.TerminateOnNaN(),
        keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.5),
        callbacks.ProgressBar(),
        epochs=2,
    )
    with (tmp_path / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["scripted_loss"]) for row in rows] == [3.0, 2.0]
    assert history.history["learning_rate"] == pytest.approx([0.05, 0.025])
    assert {path.name for path in tmp_path.iterdir()} >= {"2.keras", "1.weights.h5", "2.weights.h5", "last.keras"}
    assert list((tmp_path / "board").rglob("events*"))
    loaded = tf_keras().models.load_model(tmp_path / "2.keras")
    np.testing.assert_allclose(loaded(X), model(X), rtol=1e-5)


def test_callbacks_of_tf_keras_are_passed_on():
    given = tf_keras().callbacks.CSVLogger("log.csv")
    assert for_tf_keras([given]) == [given]


@pytest.mark.parametrize(
    "callback",
    [
        callbacks.GradientMonitor(),
        callbacks.GradientClipping(clipnorm=1.0),
        callbacks.GradientAccumulation(2),
        callbacks.SharpnessAwareMinimization(),
        callbacks.WeightAveraging(),
        callbacks.SparseGradientFix(),
        callbacks.LearningRateMonitor(),
        callbacks.BackupAndRestore("backup"),
        callbacks.GradualUnfreezing({0: "all"}),
        compression.PruneLowMagnitude(compression.ConstantSparsity(0.5)),
        keras.callbacks.SwapEMAWeights(),
        keras.callbacks.BackupAndRestore("backup"),
    ],
    ids=lambda callback: f"{type(callback).__module__.partition('.')[0]}.{type(callback).__name__}",
)
def test_what_needs_the_step_of_keras_3_is_refused_by_name(callback):
    with pytest.raises(InputError, match=rf"^for_tf_keras: {type(callback).__name__} works in the training step"):
        for_tf_keras([callback])
