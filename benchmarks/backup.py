"""What BackupAndRestore costs a training at its default, and what one backup of 25 million parameters takes.

Two trainings of one network on the same batches, with backups and without, in turn; tracing and the first epoch are not
timed. The epochs of the first pair take some seconds, as real ones do at least; those of the second a fraction of one,
where a backup at each epoch's begin is a burden. Then a backup of a large network, with its Adam, beside `model.save`
of the same. Run it on a quiet machine: about 8 minutes.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from _fashion_mnist import load_fashion_mnist
from _results import report

from keras_opt.callbacks import BackupAndRestore
from keras_opt.models import convnet

CLAIM = (
    "Backups at the default settings take at most 0.01 of the wall time of a convnet's training whose epochs take two "
    "seconds."
)
BATCH_SIZE = 64


class Clock(keras.callbacks.Callback):
    """CPU and wall seconds from the end of the first epoch to that of the last."""

    def on_epoch_end(self, epoch, logs=None):
        now = np.array([time.process_time(), time.perf_counter()])
        if epoch == 0:
            self.started = now
        self.seconds = now - self.started


class TimedBackups(BackupAndRestore):
    """Knows the wall seconds that its own methods take, after the first epoch."""

    seconds = 0.0

    def on_train_batch_begin(self, batch, logs=None):
        began = time.perf_counter()
        super().on_train_batch_begin(batch, logs)
        self.seconds += (time.perf_counter() - began) * (self._epoch > 0)


def seconds_of_training(data: tf.data.Dataset, epochs: int, has_backups: bool) -> tuple[float, float, float]:
    """CPU and wall seconds, and those of the second that went into backups."""
    keras.utils.set_random_seed(0)
    model = convnet((16, 32), (28, 28, 1), 10, preprocessing=keras.layers.Rescaling(1 / 255))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        backups = [TimedBackups(folder)] if has_backups else []
        model.fit(data, epochs=epochs, verbose=0, shuffle=False, callbacks=[*backups, clock])
    return *map(float, clock.seconds), sum(each.seconds for each in backups)


def pairs_of_trainings(images: int, epochs: int, pairs: int) -> list[dict[str, tuple[float, ...]]]:
    (x, y), _ = load_fashion_mnist()
    data = tf.data.Dataset.from_tensor_slices((x[:images, ..., None], y[:images])).shuffle(images, seed=0)
    data = data.batch(BATCH_SIZE).prefetch(2)
    return [
        {name: seconds_of_training(data, epochs, name == "backups") for name in ("plain", "backups")}
        for _ in range(pairs)
    ]


def seconds_of_saving(width: int, repeats: int) -> list[dict[str, tuple[float, float]]]:
    """CPU and wall seconds of a backup, and of `model.save`, of two square layers of `width` units."""
    model = keras.Sequential([keras.Input((width,)), *(keras.layers.Dense(width) for _ in range(2))])
    model.compile("adam", "mse")
    rows = []

    class Saving(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if batch == 0:
                return
            row = {}
            for name, save in (("backup", self.backup), ("model_save", self.save)):
                began = time.process_time(), time.perf_counter()
                save()
                row[name] = time.process_time() - began[0], time.perf_counter() - began[1]
            rows.append(row)

        def backup(self):
            backup._back_up_here(False)

        def save(self):
            self.model.save(Path(folder) / "model.keras")

    with tempfile.TemporaryDirectory() as folder:
        backup = BackupAndRestore(folder, save_freq=10**9)
        data = np.zeros((repeats + 1, width), np.float32)
        model.fit(data, data, batch_size=1, verbose=0, callbacks=[backup, Saving()])
    return rows


def add_ratio(metrics: dict[str, float], name: str, rows: list[dict], ours: str, theirs: str) -> None:
    cpu, wall = ([row[ours][clock] / row[theirs][clock] for row in rows] for clock in (0, 1))
    metrics[name] = statistics.median(cpu)
    metrics[f"{name}_min"], metrics[f"{name}_max"] = min(cpu), max(cpu)
    metrics[f"{name}_wall"] = statistics.median(wall)


def main() -> None:
    parser = argparse.ArgumentParser(description=CLAIM)
    parser.add_argument("--quick", action="store_true", help="fewer images, pairs and parameters; prints only")
    quick = parser.parse_args().quick
    images, epochs, pairs, width, repeats = (6_000, 3, 2, 500, 3) if quick else (50_000, 4, 5, 3535, 7)

    metrics, rows = {}, []
    print("pair | epochs of | seconds CPU (wall): plain | with backups | in backups")
    for name, count, lasting in (("overhead", images, epochs), ("overhead_of_short_epochs", 1_000, 20)):
        times = pairs_of_trainings(count, lasting, pairs)
        add_ratio(metrics, name, times, "backups", "plain")
        metrics[f"{name}_share_of_wall"] = statistics.median(row["backups"][2] / row["backups"][1] for row in times)
        metrics[f"{name}_epoch_seconds"] = statistics.median(row["plain"][1] for row in times) / (lasting - 1)
        rows += times
        for number, row in enumerate(times):
            sides = (f"{cpu:.2f} ({wall:.2f})" for cpu, wall, _ in row.values())
            print(number, f"{count} images", *sides, f"{row['backups'][2]:.3f}", sep=" | ")

    saves = seconds_of_saving(width, repeats)
    metrics["parameters"] = 2 * width * (width + 1)
    add_ratio(metrics, "backup_to_model_save", saves, "backup", "model_save")
    metrics["backup_seconds"] = statistics.median(row["backup"][1] for row in saves)
    metrics["model_save_seconds"] = statistics.median(row["model_save"][1] for row in saves)
    report("backup", CLAIM, metrics, rows + saves, write=not quick)


if __name__ == "__main__":
    main()
