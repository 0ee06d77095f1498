"""SnapshotEnsemble: its rates, its snapshots, its resuming, its errors."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_opt
from keras_opt.callbacks import BackupAndRestore, LearningRateMonitor, ReduceLROnPlateau, ScheduleLearningRate
from keras_opt.ensemble import PredictionEnsemble, SnapshotEnsemble
from keras_opt.schedules import CosineDecay

DRAW = np.random.default_rng(0)
X, Y = DRAW.normal(size=(12, 3)).astype("float32"), DRAW.normal(size=(12, 2)).astype("float32")


def compiled(optimizer=None):
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, "tanh"), keras.layers.Dense(2)])
    model.compile(optimizer or keras.optimizers.SGD(0.1, momentum=0.9), "mse")
    return model


class Weights(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.weights, self.rates = [], []

    def on_train_batch_end(self, batch, logs=None):
        self.rates.append(float(self.model.optimizer.learning_rate))

    def on_epoch_end(self, epoch, logs=None):
        self.weights.append(self.model.get_weights())


def fit(model, *used, epochs=4, **more):
    return model.fit(X, Y, batch_size=4, epochs=epochs, verbose=0, shuffle=False, callbacks=list(used), **more)


def assert_snapshots(snapshots, weights):
    for model, wanted in zip(snapshots.models, weights, strict=True):
        for found, array in zip(model.get_weights(), wanted, strict=True):
            np.testing.assert_array_equal(found, array)


def test_the_rates_of_the_paper_and_the_weights_at_the_end_of_each_cycle():
    model, snapshots, seen = compiled(), SnapshotEnsemble(2), Weights()
    fit(model, snapshots, seen)
    t = np.arange(12)
    np.testing.assert_allclose(seen.rates, 0.1 / 2 * (np.cos(np.pi * (t % 6) / 6) + 1), rtol=1e-5)
    assert_snapshots(snapshots, [seen.weights[1], seen.weights[3]])
    assert float(model.optimizer.learning_rate) == np.float32(0.1)
    assert not any(each.compiled for each in snapshots.models)
    ensemble = snapshots.ensemble("mean")
    assert isinstance(ensemble, PredictionEnsemble)
    np.testing.assert_allclose(ensemble(X), np.mean([each(X) for each in snapshots.models], axis=0), atol=1e-6)


@pytest.mark.parametrize("steps", [41, 47])
def test_the_first_update_of_each_cycle_has_the_full_rate_whatever_its_length(steps):
    """Keras's CosineDecayRestarts divides floats: for these lengths the rate is 0 there."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.compile(keras.optimizers.SGD(0.5), "mse")
    seen = Weights()
    ones = np.ones((steps, 1), "float32")
    model.fit(ones, ones, batch_size=1, epochs=5, verbose=0, callbacks=[SnapshotEnsemble(5), seen])
    one_cycle = 0.5 / 2 * (np.cos(np.pi * np.arange(steps) / steps) + 1)
    np.testing.assert_allclose(seen.rates, np.tile(one_cycle, 5), atol=1e-6)


def test_a_second_fit_starts_anew_at_the_same_rate_and_another_first_epoch_counts():
    model, snapshots, seen = compiled(), SnapshotEnsemble(2, max_learning_rate=0.02), Weights()
    fit(model, snapshots)
    fit(model, snapshots, seen)
    assert len(snapshots.models) == 2
    assert max(seen.rates) == np.float32(0.02)
    late = Weights()
    fit(model, snapshots, late, initial_epoch=1)
    np.testing.assert_allclose(late.rates, seen.rates[3:], rtol=1e-6)


def test_files(tmp_path):
    model, seen = compiled(), Weights()
    snapshots = SnapshotEnsemble(2, folder=tmp_path / "new" / "folder")
    fit(model, snapshots, seen)
    assert [path.name for path in snapshots.files] == ["snapshot_1.keras", "snapshot_2.keras"]
    assert_snapshots(snapshots, [seen.weights[1], seen.weights[3]])
    average = keras_opt.ensemble.average_weights(snapshots.files)
    np.testing.assert_allclose(average.get_weights()[0], (seen.weights[1][0] + seen.weights[3][0]) / 2, atol=1e-6)


@pytest.mark.parametrize("in_files", [False, True])
def test_a_resumed_training_has_the_same_snapshots(in_files, tmp_path):
    class Crash(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if int(self.model.optimizer.iterations) == 8:
                raise RuntimeError

    def snapshots(name):
        return SnapshotEnsemble(2, folder=tmp_path / name if in_files else None)

    whole, wanted = snapshots("whole"), Weights()
    fit(compiled(), whole, wanted)
    backup = {"save_freq": 2, "verbose": 0}
    with pytest.raises(RuntimeError):
        fit(compiled(), BackupAndRestore(tmp_path / "b", **backup), snapshots("cut"), Crash())
    model, resumed = compiled(), snapshots("cut")
    fit(model, BackupAndRestore(tmp_path / "b", **backup), resumed)
    assert_snapshots(resumed, [each.get_weights() for each in whole.models])
    assert float(model.optimizer.learning_rate) == np.float32(0.1)


def test_a_snapshot_that_is_gone(tmp_path):
    snapshots = SnapshotEnsemble(1, folder=tmp_path)
    with pytest.raises(ValueError, match=r"snapshot_1\.keras' is gone"):
        snapshots.load_state_dict(
            {"count": 3, "peak": 0.1, "rates": [0.1], "weights": [], "files": ["snapshot_1.keras"]}
        )


@pytest.mark.parametrize(
    ("used", "message"),
    [
        ([SnapshotEnsemble(3)], "`cycles` must be a divisor of the epochs, which are 4.*Train 6 epochs"),
        (
            [SnapshotEnsemble(2), ScheduleLearningRate(CosineDecay(0.1, 9))],
            "a ScheduleLearningRate, which sets the rate",
        ),
        ([ReduceLROnPlateau("loss"), SnapshotEnsemble(2)], "a ReduceLROnPlateau, which sets the rate too"),
        ([SnapshotEnsemble(2), SnapshotEnsemble(2)], "a SnapshotEnsemble, which sets the rate too"),
    ],
)
def test_what_does_not_fit_is_an_error_before_training(used, message):
    model = compiled()
    with pytest.raises(ValueError, match=message):
        fit(model, *used, LearningRateMonitor())
    assert int(model.optimizer.iterations) == 0
    assert "train_step" not in vars(model)


def test_a_schedule_in_the_optimizer_and_data_of_unknown_length():
    with pytest.raises(ValueError, match="follows CosineDecay already"):
        fit(compiled(keras.optimizers.SGD(CosineDecay(0.1, 9))), SnapshotEnsemble(2))
    endless = tf.data.Dataset.from_tensor_slices((X, Y)).batch(4).filter(lambda x, y: True)
    with pytest.raises(ValueError, match="the batches in an epoch are not known"):
        compiled().fit(endless, epochs=2, verbose=0, callbacks=[SnapshotEnsemble(2)])


def test_no_ensemble_before_the_first_snapshot():
    with pytest.raises(RuntimeError, match="there is no snapshot yet"):
        SnapshotEnsemble(2).ensemble()


@pytest.mark.parametrize("in_files", [False, True])
def test_class_names_go_along(in_files, tmp_path):
    model, snapshots = compiled(), SnapshotEnsemble(2, folder=tmp_path if in_files else None)
    model.class_names = ("a", "b")
    fit(model, snapshots)
    assert snapshots.ensemble().class_names == ("a", "b")
