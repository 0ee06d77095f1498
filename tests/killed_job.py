"""A training that kills itself, `kill -9`, at a moment it is told; started again, it goes on from its backup.

    python killed_job.py FOLDER [PHASE COUNT]

Without a phase it runs to its end and writes FOLDER/end.npz. With one it writes FOLDER/died and dies there.
"""

import json
import os
import signal
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")

import keras
import numpy as np
import tensorflow as tf

from keras_opt.callbacks import (
    BackupAndRestore,
    EarlyStopping,
    GradientAccumulation,
    GradientMonitor,
    LearningRateMonitor,
    ReduceLROnPlateau,
    WeightAveraging,
)
from keras_opt.core import files
from keras_opt.data import arrays
from keras_opt.schedules import CosineDecay, ScaledSchedule
from keras_opt.training import StepHooks

PHASES = ("step", "validation", "backup", "flush")
IMAGES, BATCH, EPOCHS = 70, 8, 8  # nine batches an epoch, the last one short: half a batch is left at its end


class Dying:
    """Kills the process at the `count`-th moment of `phase`, counted from this process's begin."""

    def __init__(self, folder: Path, phase: str, count: int):
        self.folder, self.phase, self.left = folder, phase, count

    def at(self, phase: str) -> None:
        if phase != self.phase:
            return
        self.left -= 1
        if self.left == 0:
            (self.folder / "died").write_text(phase)
            os.kill(os.getpid(), signal.SIGKILL)

    def before(self, owner, method: str, phase: str) -> None:
        """Let each call of a function be such a moment, before it has done anything."""
        function = getattr(owner, method)

        def called(*args, **kwargs):
            self.at(phase)
            return function(*args, **kwargs)

        setattr(owner, method, called)


def data() -> tuple[tf.data.Dataset, tuple[np.ndarray, np.ndarray]]:
    """Images shuffled anew each epoch and flipped at random, and a validation set."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 2 * IMAGES)
    images = (generator.normal(size=(2 * IMAGES, 6, 6, 1)) + labels[:, None, None, None]).astype(np.float32)
    draws = tf.data.Dataset.random(seed=5, rerandomize_each_iteration=True).batch(2, drop_remainder=True)

    def flipped(batch, seed):
        x, y = batch
        return tf.image.stateless_random_flip_left_right(x, tf.cast(seed, tf.int32)), y

    train = tf.data.Dataset.zip(arrays(images[:IMAGES], labels[:IMAGES], BATCH, seed=3), draws).map(flipped)
    return train.prefetch(2), (images[IMAGES:], labels[IMAGES:])


def train(folder: Path, dying: Dying) -> None:
    keras.utils.set_random_seed(1)
    layers = [keras.layers.Conv2D(4, 3), keras.layers.BatchNormalization(), keras.layers.ReLU()]
    head = [keras.layers.Flatten(), keras.layers.Dropout(0.3), keras.layers.Dense(2)]
    model = keras.Sequential([keras.Input((6, 6, 1)), *layers, *head])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(ScaledSchedule(CosineDecay(0.02, 60))), loss, metrics=["accuracy"])
    stop = EarlyStopping("val_loss", patience=4, restore_best_weights=True)
    moments = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: dying.at("step"))
    moments.on_test_batch_end = lambda batch, logs=None: dying.at("validation")
    averaging = WeightAveraging(ema_momentum=0.8)
    callbacks = [GradientAccumulation(2), averaging, LearningRateMonitor(), GradientMonitor(warn=False)]
    callbacks += [ReduceLROnPlateau("val_loss", patience=1, factor=0.5), stop, moments]
    callbacks += [keras.callbacks.CSVLogger(str(folder / "log.csv"))]
    callbacks += [keras.callbacks.TensorBoard(str(folder / "events"), update_freq=2, write_graph=False)]
    callbacks += [BackupAndRestore(folder / "backup", save_freq=2)]
    dying.before(files.os, "fsync", "backup")
    dying.before(StepHooks, "flush", "flush")
    batches, validation = data()
    history = model.fit(batches, validation_data=validation, epochs=EPOCHS, verbose=0, callbacks=callbacks)
    report = {
        "history": history.history,
        "epochs": history.epoch,
        "stopped": stop.stopped_epoch,
        "why": stop.stopped_because,
    }
    variables = [*model.variables, *model.optimizer.variables]
    np.savez(folder / "end.npz", report=json.dumps(report), **{str(n): v.numpy() for n, v in enumerate(variables)})


if __name__ == "__main__":
    where = Path(sys.argv[1])
    phase, count = (sys.argv[2], int(sys.argv[3])) if len(sys.argv) > 2 else ("", 0)
    train(where, Dying(where, phase, count))
