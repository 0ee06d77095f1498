"""Which regulariser helps at which number of images.

Every method trains the same residual network of three blocks on the same images, in the same batches, for the same
number of updates at the same rates. The strength of a method is the one of the best validation accuracy with the first
seed; a combination takes the strengths of its parts. The weights are those of the best of five validations. Test images
are looked at once a run, after all that was chosen. Standard deviations are over three seeds, of which each draws
its own training images; a gain is over no regularisation with the same seed, hence with the same images.

About 30 minutes on one thread. A run that was broken off goes on from the lines in `--resume`.
"""

import argparse
import json
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")

import keras
import numpy as np
import tensorflow as tf
from _fashion_mnist import load_fashion_mnist
from _results import report

from keras_opt.callbacks import EarlyStopping
from keras_opt.core.clocks import Stopwatch
from keras_opt.core.progress import Progress
from keras_opt.data import augment
from keras_opt.layers import CutMix, DropBlock, MixUp, RandomAffine, StochasticDepth

CLAIM = (
    "On Fashion-MNIST, a small residual network and as many updates for every method: with 500 and with 5,000 training "
    "images CutMix alone gains more than a point of test accuracy over no regularisation in each of three seeds; with "
    "60,000 in four epochs only L2 gains in each, and dropout, DropBlock, StochasticDepth and MixUp lose in each."
)
SEEDS = (0, 1, 2)
VALIDATIONS = 5
VALIDATION_IMAGES = 5000  # the last of the 60,000
# Training images: the size of a batch, and the updates.
BUDGETS = {500: (50, 1000), 5000: (100, 1000), 55_000: (100, 2200)}
AFFINE = {
    "flip": {},
    "mild": {"rotation_degrees": 5, "width_shift": 0.05, "height_shift": 0.05},
    "strong": {"rotation_degrees": 10, "width_shift": 0.1, "height_shift": 0.1, "zoom": 0.1},
}
# The strengths to choose from; each setting is an argument of `network` or of `augmentation`.
METHODS = {
    "none": [{}],
    "l2": [{"l2": 1e-3}, {"l2": 5e-3}],
    "dropout": [{"dropout": 0.25}, {"dropout": 0.5}],
    "drop_block": [{"drop_block": 0.1}, {"drop_block": 0.2}],
    "stochastic_depth": [{"stochastic_depth": 0.2}, {"stochastic_depth": 0.5}],
    "mix_up": [{"mix_up": 0.2}, {"mix_up": 1.0}],
    "cut_mix": [{"cut_mix": 0.2}, {"cut_mix": 1.0}],
    "affine": [{"affine": name} for name in AFFINE],
}
COMBINATIONS = (("affine", "dropout"), ("affine", "mix_up"), ("affine", "cut_mix"), ("dropout", "l2"))


def network(l2: float = 0.0, dropout: float = 0.0, drop_block: float = 0.0, stochastic_depth: float = 0.0):
    """Three residual blocks; DropBlock behind the first two, on 7x7 and 4x4; StochasticDepth at a rate that rises."""

    def convolve(x, filters, size=3, strides=1, active=True):
        x = keras.layers.Conv2D(
            filters,
            size,
            strides=strides,
            padding="same",
            use_bias=False,
            kernel_initializer="he_normal",
            kernel_regularizer=keras.regularizers.L2(l2),
        )(x)
        x = keras.layers.BatchNormalization(momentum=0.9)(x)
        return keras.layers.ReLU()(x) if active else x

    inputs = keras.Input((28, 28, 1))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.MaxPooling2D(padding="same")(convolve(x, 16, strides=2))
    for block, (filters, strides) in enumerate([(16, 1), (32, 2), (64, 2)], start=1):
        shortcut = x if strides == 1 else convolve(x, filters, size=1, strides=strides, active=False)
        branch = convolve(convolve(x, filters, strides=strides), filters, active=False)
        branch = StochasticDepth(stochastic_depth * block / 3)(branch)
        x = keras.layers.ReLU()(keras.layers.Add()([shortcut, branch]))
        if block < 3:
            x = DropBlock(drop_block, block_size=3)(x)
    x = keras.layers.Dropout(dropout)(keras.layers.GlobalAveragePooling2D()(x))
    x = keras.layers.Dense(10, activation="softmax", kernel_regularizer=keras.regularizers.L2(l2))(x)
    return keras.Model(inputs, x)


def augmentation(affine: str | None = None, mix_up: float = 0.0, cut_mix: float = 0.0) -> list[keras.Layer]:
    layers = [] if affine is None else [RandomAffine(horizontal_flip=True, **AFFINE[affine])]
    layers += [MixUp(mix_up)] if mix_up else []
    return layers + ([CutMix(cut_mix)] if cut_mix else [])


def load() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    (x, y), test = load_fashion_mnist()
    parts = {"train": (x[:-VALIDATION_IMAGES], y[:-VALIDATION_IMAGES]), "test": test}
    parts["validation"] = x[-VALIDATION_IMAGES:], y[-VALIDATION_IMAGES:]
    return {name: (x[..., None], np.eye(10, dtype="float32")[y]) for name, (x, y) in parts.items()}


def batches(train: tuple, size: int, seed: int, layers: list[keras.Layer]) -> tf.data.Dataset:
    """The same images in the same order for every method of a seed, for ever."""
    x, y = train
    chosen = np.random.default_rng(seed).permutation(len(x))[:size]
    data = tf.data.Dataset.from_tensor_slices((x[chosen], y[chosen])).shuffle(size, seed=seed)
    data = data.batch(BUDGETS[size][0], drop_remainder=True).map(lambda x, y: (tf.cast(x, "float32"), y))
    return (augment(data, layers, seed, num_parallel_calls=1) if layers else data).repeat()


def train(parts: dict, size: int, seed: int, settings: dict[str, Any], updates: int) -> dict[str, Any]:
    """The best validation accuracy, after which share of the training it was, and the test accuracy there."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    watch = Stopwatch()
    in_data = {name: value for name, value in settings.items() if name in ("affine", "mix_up", "cut_mix")}
    model = network(**{name: value for name, value in settings.items() if name not in in_data})
    rate = keras.optimizers.schedules.CosineDecay(3e-3, updates)
    model.compile(keras.optimizers.Adam(rate), "categorical_crossentropy", metrics=["accuracy"])
    best = EarlyStopping("val_accuracy", patience=VALIDATIONS, restore_best_weights=True)
    model.fit(
        batches(parts["train"], size, seed, augmentation(**in_data)),
        epochs=VALIDATIONS,
        steps_per_epoch=updates // VALIDATIONS,
        validation_data=parts["validation"],
        validation_batch_size=500,
        callbacks=[best],
        verbose=0,
    )
    return {
        "validation_accuracy": best.best,
        "after": (best.best_epoch + 1) / VALIDATIONS,
        "test_accuracy": model.evaluate(*parts["test"], batch_size=500, verbose=0)[1],
        "cpu_seconds": round(watch.cpu_seconds, 1),
    }


class Runs:
    """The finished runs, one a line of a file, and those that are made as they are asked for."""

    def __init__(self, path: Path, parts: dict, progress: Any):
        self.path, self.parts, self.progress = path, parts, progress
        self.rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def run(self, size: int, seed: int, method: str, settings: dict[str, Any], updates: int) -> dict[str, Any]:
        run = {"size": size, "seed": seed, "method": method, "settings": settings, "updates": updates}
        row = next((row for row in self.rows if run.items() <= row.items()), None)
        if row is None:
            row = run | train(self.parts, size, seed, settings, updates)
            self.rows.append(row)
            with self.path.open("a") as file:
                file.write(json.dumps(row) + "\n")
            self.progress.advance(updates)
        return row


def combined(chosen: dict[str, dict], parts: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for part in parts for name, value in chosen[part].items()}


def compare(runs: Runs, size: int, seed: int, methods: dict, updates: int, chosen: dict[str, dict]) -> None:
    """Train with every method; the first seed chooses the strengths, which are put into `chosen`."""
    for method, strengths in methods.items():
        if method not in chosen:
            tried = [runs.run(size, seed, method, settings, updates) for settings in strengths]
            chosen[method] = max(tried, key=lambda row: row["validation_accuracy"])["settings"]
        runs.run(size, seed, method, chosen[method], updates)
    for parts in COMBINATIONS:
        if set(parts) <= set(methods):
            name = " + ".join(parts)
            chosen[name] = combined(chosen, parts)
            runs.run(size, seed, name, chosen[name], updates)


def summary(rows: list[dict], size: int, chosen: dict[str, dict]) -> dict[str, dict[str, Any]]:
    """What the seeds say of each method: mean, deviation, and gains over none in percent points."""
    figures = {}
    for method, settings in chosen.items():
        ours = {
            row["seed"]: row
            for row in rows
            if (row["size"], row["method"], row["settings"]) == (size, method, settings)
        }
        tests = {seed: row["test_accuracy"] for seed, row in sorted(ours.items())}
        none = figures["none"]["tests"] if figures else tests
        gains = [100 * (accuracy - none[seed]) for seed, accuracy in tests.items()]
        figures[method] = {
            "settings": settings,
            "tests": tests,
            "accuracy": statistics.mean(tests.values()),
            "deviation": statistics.stdev(tests.values()) if len(tests) > 1 else 0.0,
            "validation": statistics.mean(row["validation_accuracy"] for row in ours.values()),
            "gains": gains,
            "gain": statistics.mean(gains),
        }
    return figures


def verdict(gains: list[float]) -> str:
    if min(gains) > 0:
        return "helps"
    return "does harm" if max(gains) < 0 else "no clear help"


def main() -> None:
    parser = argparse.ArgumentParser(description=CLAIM)
    parser.add_argument("--quick", action="store_true", help="500 images, one seed, few methods, prints only")
    default = Path(tempfile.gettempdir()) / "keras_opt_regularizers.jsonl"
    parser.add_argument("--resume", type=Path, default=default, help="the file of finished runs (%(default)s)")
    arguments = parser.parse_args()
    methods, seeds, budgets, path = METHODS, SEEDS, BUDGETS, arguments.resume
    if arguments.quick:
        methods = {name: METHODS[name][-1:] for name in ("none", "drop_block", "cut_mix")}
        seeds, budgets, path = SEEDS[:1], {500: (50, 500)}, Path(tempfile.mkdtemp()) / "quick.jsonl"

    runs = Runs(path, load(), None)
    combinations = sum(set(parts) <= set(methods) for parts in COMBINATIONS)
    a_seed = len(methods) + combinations
    trained = a_seed * len(seeds) + sum(len(strengths) - 1 for strengths in methods.values())
    total = trained * sum(updates for _, updates in budgets.values())
    done = sum(row["updates"] for row in runs.rows)
    chosen = {size: {} for size in budgets}
    with Progress().stage("updates", total - done) as runs.progress:
        for seed in seeds:
            for size, (_, updates) in budgets.items():
                compare(runs, size, seed, methods, updates, chosen[size])

    metrics = {}
    print("images | method | settings | test accuracy, mean +- deviation | of each seed | gain, points | verdict")
    for size in budgets:
        name = 60_000 if size > 5000 else size  # all 60,000 are used: 5,000 of them to choose by
        figures = summary(runs.rows, size, chosen[size])
        for method, row in figures.items():
            seeds_shown = " ".join(f"{accuracy:.4f}" for accuracy in row["tests"].values())
            said = "" if method == "none" else f"{row['gain']:+.2f} | {verdict(row['gains'])}"
            accuracy = f"{row['accuracy']:.4f} +- {row['deviation']:.4f}"
            print(name, method, row["settings"] or "", accuracy, seeds_shown, said, sep=" | ")
            key = method.replace(" + ", "_and_")
            metrics[f"{key}_{name}_accuracy"] = row["accuracy"]
            metrics[f"{key}_{name}_deviation"] = row["deviation"]
            metrics[f"{key}_{name}_gain_points"] = row["gain"]
        best = max(figures, key=lambda method: figures[method]["validation"])
        print(f"{name} | the best of the validation: {best}")
        metrics[f"best_gain_{name}_points"] = figures[best]["gain"]
        metrics[f"best_gain_{name}_points_min"] = min(figures[best]["gains"])
    rows = [row | {"chosen": chosen[row["size"]].get(row["method"]) == row["settings"]} for row in runs.rows]
    report("regularizers", CLAIM, metrics, rows, write=not arguments.quick)


if __name__ == "__main__":
    main()
