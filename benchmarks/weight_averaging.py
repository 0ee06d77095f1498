"""What WeightAveraging gains in test accuracy, and what it costs a step.

Every accuracy is a pair: one fit gives both, the raw weights of its last epoch and their average (lookahead, which
changes training, has a plain fit of the same seed and batches beside it). Run it on a quiet machine.
"""

import argparse
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from _fashion_mnist import load_fashion_mnist
from _results import report

from keras_opt.callbacks import WeightAveraging
from keras_opt.models import convnet

CLAIM = (
    "On 12,000 Fashion-MNIST images at a constant rate, the exponential moving average and the mean of the last half "
    "of the epochs both have a higher test accuracy than the raw weights they are averages of (median over the seeds), "
    "and kind='ema' costs at most 1.15 times the CPU time a step of Keras's use_ema, which leaves BatchNorm out."
)
BATCH_SIZE = 64
KINDS = ("ema", "swa", "lookahead")


def averaging(name: str, updates_an_epoch: int) -> WeightAveraging:
    """The exponential average looks back over half an epoch; swa takes the last half of the epochs."""
    return WeightAveraging(name, ema_momentum=1 - 2 / updates_an_epoch, start=0.5 if name == "swa" else None)


class RawWeights(keras.callbacks.Callback):
    """Listed before the averages, it sees the raw weights at the end of each epoch."""

    def on_epoch_end(self, epoch, logs=None):
        self.weights = self.model.get_weights()


def compiled(seed: int, optimizer: keras.optimizers.Optimizer) -> keras.Model:
    keras.utils.set_random_seed(seed)
    model = convnet((16, 32), (28, 28, 1), 10, preprocessing=keras.layers.Rescaling(1 / 255))
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def batches(x: np.ndarray, y: np.ndarray, seed: int) -> tf.data.Dataset:
    """The same batches for every fit of a seed."""
    return tf.data.Dataset.from_tensor_slices((x, y)).shuffle(len(x), seed=seed).batch(BATCH_SIZE, drop_remainder=True)


def accuracy(model: keras.Model, test: tuple) -> float:
    return model.evaluate(*test, batch_size=500, verbose=0, return_dict=True)["accuracy"]


def accuracies(name: str, seed: int, train: tuple, test: tuple, epochs: int) -> tuple[float, float]:
    """The test accuracy of the raw and of the averaged weights."""
    raw, model = RawWeights(), compiled(seed, keras.optimizers.Adam(2e-3))
    data = batches(*train, seed)
    average = averaging(name, int(data.cardinality()))
    model.fit(data, epochs=epochs, verbose=0, shuffle=False, callbacks=[raw, average])
    averaged = accuracy(model, test)
    if name == "lookahead":
        model = compiled(seed, keras.optimizers.Adam(2e-3))
        model.fit(data, epochs=epochs, verbose=0, shuffle=False)
    else:
        model.set_weights(raw.weights)
    return accuracy(model, test), averaged


def step_times(data: tf.data.Dataset, pairs: int) -> list[dict[str, list[float]]]:
    """CPU and wall milliseconds a step of each side, in turn; tracing and the first epoch are not timed."""
    sides = {
        "plain": (keras.optimizers.Adam(1e-3), []),
        "use_ema": (keras.optimizers.Adam(1e-3, use_ema=True, ema_momentum=0.8), []),
        "ours": (keras.optimizers.Adam(1e-3), [WeightAveraging("ema", ema_momentum=0.8)]),
    }
    models = {name: compiled(0, optimizer) for name, (optimizer, _) in sides.items()}
    steps = int(data.cardinality())

    class Clock(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.started = time.process_time(), time.perf_counter()

        def on_train_batch_end(self, batch, logs=None):
            if batch == 0:  # the step is traced by now
                self.started = time.process_time(), time.perf_counter()
            if batch == steps - 1:
                ended = time.process_time(), time.perf_counter()
                self.milliseconds = [1000 * (b - a) / batch for a, b in zip(self.started, ended, strict=True)]

    rows = []
    for turn in range(pairs + 1):
        row = {}
        for name, model in models.items():
            clock = Clock()
            model.fit(data, verbose=0, shuffle=False, callbacks=[*sides[name][1], clock])
            row[name] = clock.milliseconds
        if turn:  # the first turn warms up
            rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=CLAIM)
    parser.add_argument("--quick", action="store_true", help="one seed, few images and epochs, prints only")
    quick = parser.parse_args().quick
    images, epochs, seeds, pairs, steps = (2000, 2, range(1), 2, 20) if quick else (12_000, 6, range(3), 7, 120)

    train, test = load_fashion_mnist()
    train = tuple(part[:images] for part in train)
    test = tuple(part[: images // 2] for part in test) if quick else test
    metrics, rows = {}, []
    print("kind | seed | test accuracy, raw / averaged")
    for name in KINDS:
        gains = []
        for seed in seeds:
            raw, averaged = accuracies(name, seed, train, test, epochs)
            gains.append(averaged - raw)
            rows.append({"kind": name, "seed": seed, "raw": raw, "averaged": averaged})
            print(f"{name} | {seed} | {raw:.4f} / {averaged:.4f}", flush=True)
        ours = [row for row in rows if row["kind"] == name]
        metrics[f"{name}_raw_accuracy"] = statistics.median(row["raw"] for row in ours)
        metrics[f"{name}_accuracy"] = statistics.median(row["averaged"] for row in ours)
        metrics[f"{name}_gain"] = statistics.median(gains)
        metrics[f"{name}_gain_min"], metrics[f"{name}_gain_max"] = min(gains), max(gains)

    times = step_times(batches(*train, 0).take(steps), pairs)
    print("pair | ms a step, CPU (wall): plain | use_ema | ours")
    for number, row in enumerate(times):
        print(number, *(f"{cpu:.2f} ({wall:.2f})" for cpu, wall in row.values()), sep=" | ")
    for name, ours, theirs in (
        ("ratio_to_use_ema", "ours", "use_ema"),
        ("ratio_to_plain", "ours", "plain"),
        ("use_ema_ratio_to_plain", "use_ema", "plain"),
    ):
        cpu, wall = ([row[ours][clock] / row[theirs][clock] for row in times] for clock in (0, 1))
        metrics[name] = statistics.median(cpu)
        metrics[f"{name}_min"], metrics[f"{name}_max"] = min(cpu), max(cpu)
        metrics[f"{name}_wall"] = statistics.median(wall)
    report("weight_averaging", CLAIM, metrics, rows + times, write=not quick)


if __name__ == "__main__":
    main()
