"""How good a network different searches have found after the same CPU seconds of real training.

Six settings of a convolutional network are searched on the embedded slice of Fashion-MNIST: 8,000 training images,
2,000 for validation, nine epochs a trial at most. Every search goes through keras-tuner's Tuner with the same
hypermodel and seed, in turn in one process; it is broken off when its CPU seconds, its own overhead among them, are
spent, and counts by the best validation accuracy of any epoch until then.
"""

import argparse
import contextlib
import os
import statistics
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import keras_tuner
import numpy as np
from _results import report

from keras_opt.data import load_fashion_mnist_sample
from keras_opt.models import convnet
from keras_opt.tuning import BayesianOptimization, OptunaOracle

CLAIM = (
    "After 200 CPU seconds of training on a slice of Fashion-MNIST, some dozen trials, no search is ahead in each of "
    "three seeds: the medians of OptunaOracle with early stopping (TPE, ASHA), of keras-tuner's BayesianOptimization "
    "and of its Hyperband lie within half a point of validation accuracy."
)
EPOCHS = 9
BATCH_SIZE = 64
VALIDATION = 2000
MANY_TRIALS = 1000  # more than the seconds allow
OURS = "OptunaOracle, tpe and asha"


class Spent(keras_tuner.errors.FatalError):
    """The CPU seconds of a search are over."""


class Budget(keras.callbacks.Callback):
    """Notes the best validation accuracy after each epoch of a search, and ends it when its seconds are spent."""

    def __init__(self, cpu_seconds: float):
        super().__init__()
        self.end = time.process_time() + cpu_seconds
        self.best = 0.0
        self.epochs = 0

    def __deepcopy__(self, memo):
        return self

    def on_epoch_end(self, epoch, logs=None):
        if time.process_time() > self.end:
            raise Spent
        self.best = max(self.best, logs["val_accuracy"])
        self.epochs += 1


def build(hp: keras_tuner.HyperParameters) -> keras.Model:
    width = hp.Int("width", 8, 64, sampling="log")
    model = convnet(
        [width * 2**stage for stage in range(hp.Int("depth", 1, 3))],
        (28, 28, 1),
        10,
        dropout=hp.Float("dropout", 0.0, 0.7),
        preprocessing=keras.layers.Rescaling(1 / 255),
    )
    optimizer = keras.optimizers.AdamW(
        hp.Float("rate", 1e-4, 0.1, sampling="log"),
        weight_decay=hp.Float("weight_decay", 1e-5, 0.5, sampling="log"),
    )
    loss = keras.losses.CategoricalCrossentropy(label_smoothing=hp.Float("label_smoothing", 0.0, 0.3))
    model.compile(optimizer, loss, metrics=["accuracy"])
    return model


def optuna(seed, folder):
    oracle = OptunaOracle("val_accuracy", MANY_TRIALS, pruner="asha", min_epochs=1, seed=seed)
    return keras_tuner.Tuner(oracle, build, directory=folder), [oracle.pruning_callback()]


def gaussian_process(seed, folder):
    settings = {"max_trials": MANY_TRIALS, "sampler": "gp", "seed": seed, "directory": folder}
    return BayesianOptimization(build, "val_accuracy", **settings), []


def bayesian(seed, folder):
    return keras_tuner.BayesianOptimization(build, "val_accuracy", MANY_TRIALS, seed=seed, directory=folder), []


def hyperband(seed, folder):
    settings = {"max_epochs": EPOCHS, "hyperband_iterations": 99, "seed": seed, "directory": folder}
    return keras_tuner.Hyperband(build, "val_accuracy", **settings), []


SEARCHES = {
    OURS: optuna,
    "keras_opt BayesianOptimization, gp": gaussian_process,
    "keras-tuner BayesianOptimization": bayesian,
    "keras-tuner Hyperband": hyperband,
}


def searched(make, seed: int, train: tuple, validation: tuple, cpu_seconds: float) -> dict[str, float]:
    """One search: what it has found, and over how many epochs and trials."""
    keras.utils.set_random_seed(seed + 1)
    with tempfile.TemporaryDirectory() as folder:
        tuner, callbacks = make(seed + 1, folder)  # keras-tuner takes a seed of 0 for none
        budget = Budget(cpu_seconds)
        settings = {"epochs": EPOCHS, "batch_size": BATCH_SIZE, "verbose": 0, "validation_data": validation}
        with contextlib.suppress(Spent):
            tuner.search(*train, callbacks=[budget, *callbacks], **settings)
        return {"val_accuracy": budget.best, "epochs": budget.epochs, "trials": len(tuner.oracle.trials)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one seed, a few seconds a search, writes nothing")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cpu-seconds", type=float, default=200.0, help="of each search")
    arguments = parser.parse_args()
    seeds, cpu_seconds = (1, 10.0) if arguments.quick else (arguments.seeds, arguments.cpu_seconds)
    images, labels = load_fashion_mnist_sample("train")
    x, y = images[..., np.newaxis].astype("float32"), keras.utils.to_categorical(labels, 10)
    train, validation = (x[:-VALIDATION], y[:-VALIDATION]), (x[-VALIDATION:], y[-VALIDATION:])
    rows = []
    for seed in range(seeds):
        names = list(SEARCHES)
        for name in names[seed % len(names) :] + names[: seed % len(names)]:  # none is always first
            found = searched(SEARCHES[name], seed, train, validation, cpu_seconds)
            rows.append({"search": name, "seed": seed, **found})
            print(
                f"{name}, seed {seed}: {found['val_accuracy']:.4f}, {found['trials']} trials, {found['epochs']} epochs"
            )
    medians = {
        name: statistics.median(row["val_accuracy"] for row in rows if row["search"] == name) for name in SEARCHES
    }
    theirs = max(value for name, value in medians.items() if name.startswith("keras-tuner"))
    metrics = {
        "cpu_seconds": cpu_seconds,
        "optuna_val_accuracy": medians[OURS],
        "gp_val_accuracy": medians["keras_opt BayesianOptimization, gp"],
        "keras_tuner_bayesian_val_accuracy": medians["keras-tuner BayesianOptimization"],
        "keras_tuner_hyperband_val_accuracy": medians["keras-tuner Hyperband"],
        "gain": medians[OURS] - theirs,
    }
    report("search_training", CLAIM, metrics, rows, write=not arguments.quick)


if __name__ == "__main__":
    main()
