"""A training of several workers that dies where it is told, and afterwards the same training unbroken.

    keras-opt launch launched_job.py FOLDER [WORKER@STEP+MILLISECONDS ...]

Each death happens once: so long after that step has ended on that worker, `kill -9`. When a worker has trained to the
end it writes FOLDER/broken/end-INDEX.npz, and then FOLDER/unbroken/end-INDEX.npz of a second training, in the same
process.
"""

import json
import os
import re
import signal
import sys
import threading
import time
from pathlib import Path

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import keras
import numpy as np

from keras_opt import callbacks, distribute
from keras_opt.data import arrays

STRATEGY = distribute.strategy("multiworker")
ROWS, BATCH, EPOCHS = 48, 8, 8
STEPS = ROWS // BATCH
INDEX = STRATEGY.cluster_resolver.task_id


class Deaths(keras.callbacks.Callback):
    """Counts the steps in a file of its own, and kills the process at the moments of `deaths`."""

    def __init__(self, folder: Path, deaths: list[str]):
        super().__init__()
        self.folder = folder
        parts = [re.fullmatch(r"(\d+)@(\d+)\+(\d+)", each).groups() for each in deaths]
        self.delays = {int(step): int(delay) / 1000 for worker, step, delay in parts if int(worker) == INDEX}

    def on_train_batch_end(self, batch, logs=None):
        step = int(self.model.optimizer.iterations.numpy())
        with (self.folder / f"steps-{INDEX}").open("a") as file:
            file.write(f"{step}\n")
        died = self.folder / f"died-{INDEX}-{step}"
        if step in self.delays and not died.exists():
            threading.Thread(target=self.die, args=(died, self.delays[step]), daemon=True).start()

    def die(self, died: Path, delay: float):
        time.sleep(delay)
        died.write_text(repr(time.time()))
        os.kill(os.getpid(), signal.SIGKILL)


def train(folder: Path, extra: list[keras.callbacks.Callback]) -> None:
    """BatchNorm with statistics of each worker's own, Dropout, a new order each epoch, and all who write or decide."""
    folder.mkdir(exist_ok=True)
    keras.utils.set_random_seed(1)
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 2 * ROWS)
    rows = (generator.normal(size=(2 * ROWS, 6)) + labels[:, None]).astype(np.float32)
    with STRATEGY.scope():
        layers = [keras.layers.Dense(8), keras.layers.BatchNormalization(), keras.layers.ReLU()]
        model = keras.Sequential([keras.Input((6,)), *layers, keras.layers.Dropout(0.3), keras.layers.Dense(2)])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(0.02), loss, metrics=["accuracy"])
    stop = callbacks.EarlyStopping("val_loss", min_delta=0.05, patience=2, restore_best_weights=True)
    used = [callbacks.WeightAveraging(ema_momentum=0.8), callbacks.ReduceLROnPlateau(min_delta=0.05, patience=1), stop]
    used += [callbacks.GradientMonitor(warn=False, log_dir=folder / "norms")]
    used += [callbacks.ModelCheckpoint(folder / "{epoch}-{val_loss:.4f}.keras", keep=1)]
    used += [keras.callbacks.CSVLogger(folder / "log.csv")]
    used += [keras.callbacks.TensorBoard(folder / "events", write_graph=False)]
    history = model.fit(
        arrays(rows[:ROWS], labels[:ROWS], BATCH, seed=3),
        validation_data=arrays(rows[ROWS:], labels[ROWS:], BATCH, shuffle=False),
        epochs=EPOCHS,
        verbose=0,
        callbacks=[*used, *extra],
    )
    report = {"history": history.history, "epochs": history.epoch, "stopped": stop.stopped_epoch}
    named = {f"{number} {variable.name}": variable for number, variable in enumerate(model.variables)}
    named |= {f"optimizer {number}": variable for number, variable in enumerate(model.optimizer.variables)}
    values = {name: STRATEGY.experimental_local_results(each.value)[0].numpy() for name, each in named.items()}
    np.savez(folder / f"end-{INDEX}.npz", report=json.dumps(report), **values)


if __name__ == "__main__":
    where = Path(sys.argv[1])
    backup = callbacks.BackupAndRestore(where / "backup")
    train(where / "broken", [backup, Deaths(where, sys.argv[2:])])
    train(where / "unbroken", [])
