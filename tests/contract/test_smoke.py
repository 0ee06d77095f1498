"""The part of the contract that also runs on the oldest supported TensorFlow and Keras."""

import keras
import numpy as np
import pytest
from public_names import EPOCHS, X, Y

import keras_opt
from keras_opt import callbacks, compression, export, models, schedules

pytestmark = pytest.mark.smoke


def test_one_fit_with_every_callback_and_a_schedule_then_a_file_and_back(tmp_path):
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(8, activation="tanh"), keras.layers.Dense(2)])
    model.compile(keras.optimizers.Adam(schedules.OneCycle(0.01, 33)), "mse")
    monitor = callbacks.GradientMonitor()
    stop = callbacks.EarlyStopping(
        callbacks.Plateau("val_loss", patience=9) | callbacks.Target("val_loss", 0.0), restore_best_weights=False
    )
    prune = compression.PruneLowMagnitude(compression.PolynomialSparsity(0.0, 0.5, 0, 20), every=5)
    every = [prune, monitor, callbacks.LearningRateMonitor(), stop, callbacks.ProgressBar()]
    history = model.fit(X, Y, validation_data=(X, Y), batch_size=4, epochs=EPOCHS, verbose=0, callbacks=every).history
    assert set(history) == {"loss", "val_loss", "grad_norm", "grad_norm_max", "learning_rate"}
    assert all(len(values) == EPOCHS and np.isfinite(values).all() for values in history.values())
    assert len(monitor.series()["step"]) == EPOCHS * 11
    assert compression.sparsity(model)["total"] == 0.5
    assert stop.stopped_because == ""

    model.save(tmp_path / "model.keras")
    loaded = keras_opt.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(X, verbose=0), model.predict(X, verbose=0))
    loaded.fit(X, Y, batch_size=4, verbose=0, callbacks=[callbacks.GradientMonitor()])


def test_the_hooks_work_under_jit_half_precision_and_steps_per_execution():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(8), keras.layers.Dense(2)])
    finally:
        keras.config.set_dtype_policy("float32")
    model.compile("adam", "mse", steps_per_execution=8, jit_compile=True)
    monitor = callbacks.GradientMonitor()
    prune = compression.PruneLowMagnitude(compression.ConstantSparsity(0.5))
    model.fit(X, Y, batch_size=4, verbose=0, callbacks=[monitor, prune])
    # The loss scale starts high: an update whose gradients overflow is skipped, and is none.
    assert len(monitor.series()["step"]) == int(model.optimizer.inner_optimizer.iterations) >= 8
    assert compression.sparsity(model)["total"] == 0.5


def test_an_int8_file_runs_in_litert_and_agrees(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (120, 12, 12, 1)).astype("float32")
    model = models.convnet((4,), (12, 12, 1), 3, preprocessing=keras.layers.Rescaling(1 / 255))
    written = export.to_tflite(model, tmp_path / "model.tflite", "int8", images, class_names=("a", "b", "c"))
    assert (written.input.dtype, written.output.dtype, written.class_names) == ("int8", "int8", ("a", "b", "c"))
    assert export.LiteRTModel(written.path).predict(images[:5]).shape == (5, 3)
    assert export.verify(model, written.path, images).argmax_agreement > 0.9
