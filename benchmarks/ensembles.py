"""What an ensemble, a soup and snapshots gain in test accuracy and calibration beside one model, and what they cost.

For each seed five members are trained on Fashion-MNIST, one model in cycles with as many epochs as one member, and,
from the first member, five short fine-tunings at other rates for the soup. Accuracy and calibration are those of the
10,000 test images; what is chosen (the soup's members, the weights of the weighted ensemble) is chosen on 5,000 images
of the training set that no model has seen. Then, in a process of its own, the memory that averaging files takes.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from _fashion_mnist import load_fashion_mnist
from _results import report

from keras_opt.callbacks import ScheduleLearningRate
from keras_opt.ensemble import (
    PredictionEnsemble,
    SnapshotEnsemble,
    average_weights,
    diversity,
    greedy_soup,
    train_ensemble,
)
from keras_opt.models import convnet, macs
from keras_opt.schedules import CosineDecay

CLAIM = (
    "Five members predict Fashion-MNIST with at least one percentage point more test accuracy together than one of "
    "them alone (median over the seeds), at five times its MACs; and averaging 20 files of 100 MB raises peak memory "
    "over the bare import by less than three times one file."
)
MEMBERS = 5
BATCH_SIZE = 64
RATE = 2e-3
FINE_TUNING_RATES = (1e-4, 2e-4, 4e-4, 8e-4, 16e-4)
BINS = 15
MEMORY = """
import resource, sys, time
import keras, tensorflow
import keras_opt
from keras_opt.ensemble import average_weights
unit = 1 if sys.platform == "darwin" else 1024
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
before, start = peak(), time.perf_counter()
average_weights(sys.argv[1:])
print(peak() - before, time.perf_counter() - start)
"""


def build() -> keras.Model:
    model = convnet((16, 32), (28, 28, 1), 10, dropout=0.25, preprocessing=keras.layers.Rescaling(1 / 255))
    model.compile(keras.optimizers.Adam(RATE), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def calibration_error(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The expected calibration error (Guo et al., 2017): 15 bins of equal width, |accuracy - confidence| by share."""
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    place = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = [abs(right[place == each].sum() - confidence[place == each].sum()) for each in range(BINS)]
    return float(sum(gaps) / len(labels))


def scores(model: keras.Model, test: tuple) -> dict[str, float]:
    probabilities = model.predict(test[0], batch_size=500, verbose=0)
    return {
        "accuracy": float(np.mean(probabilities.argmax(1) == test[1])),
        "ece": calibration_error(probabilities, test[1]),
        "macs": macs(model),
        "parameters": model.count_params(),
    }


def timed(work, *arguments):
    """What `work` returns, and its CPU seconds."""
    start = time.process_time()
    result = work(*arguments)
    return result, time.process_time() - start


def members_of(seed: int, train: tuple, epochs: int, steps: int) -> list[keras.Model]:
    schedule = ScheduleLearningRate(CosineDecay(RATE, epochs * steps), unit="batch")
    return train_ensemble(
        build, MEMBERS, train, seed=1000 * seed, epochs=epochs, batch_size=BATCH_SIZE, callbacks=[schedule]
    )


def snapshots_of(seed: int, train: tuple, epochs: int) -> PredictionEnsemble:
    keras.utils.set_random_seed(1000 * seed)
    model, snapshots = build(), SnapshotEnsemble(MEMBERS)
    model.fit(*train, epochs=epochs, batch_size=BATCH_SIZE, verbose=0, callbacks=[snapshots])
    return snapshots.ensemble()


def fine_tuned(member: keras.Model, train: tuple, epochs: int, steps: int) -> list[keras.Model]:
    made = []
    for number, rate in enumerate(FINE_TUNING_RATES):
        keras.utils.set_random_seed(number)
        model = build()
        model.set_weights(member.get_weights())
        model.optimizer.learning_rate = rate
        schedule = ScheduleLearningRate(CosineDecay(rate, epochs * steps), unit="batch")
        model.fit(*train, epochs=epochs, batch_size=BATCH_SIZE, verbose=0, callbacks=[schedule])
        made.append(model)
    return made


def compared(seed: int, train: tuple, validation: tuple, test: tuple, epochs: int) -> dict[str, dict[str, float]]:
    """The scores of each way, with the CPU seconds of its training."""
    steps = -(-len(train[1]) // BATCH_SIZE)
    members, seconds = timed(members_of, seed, train, epochs, steps)
    weighted = PredictionEnsemble(members, "weighted")
    print("weights of the members:", weighted.fit_weights(*validation, batch_size=500).round(3))
    print(diversity(members, *validation, batch_size=500))
    snapshots, snapshot_seconds = timed(snapshots_of, seed, train, epochs)
    tuned, tuning_seconds = timed(fine_tuned, members[0], train, max(1, epochs // 5), steps)
    soup = greedy_soup(tuned, validation)
    print("soup:", soup.soup)
    best = tuned[int(np.argmax(soup.soup.values))]
    single = [scores(each, test) for each in members]
    mean_single = {name: statistics.mean(each[name] for each in single) for name in single[0]}
    one = seconds / MEMBERS
    return {
        "single": mean_single | {"seconds": one},
        **{
            method: scores(PredictionEnsemble(members, method), test) | {"seconds": seconds}
            for method in ("mean", "geometric", "vote")
        },
        "weighted": scores(weighted, test) | {"seconds": seconds},
        "snapshot": scores(snapshots, test) | {"seconds": snapshot_seconds},
        "best_tuned": scores(best, test) | {"seconds": one + tuning_seconds},
        "soup": scores(soup, test) | {"seconds": one + tuning_seconds},
        "average_of_tuned": scores(average_weights(tuned), test) | {"seconds": one + tuning_seconds},
    }


def memory(count: int, width: int, layers: int) -> dict[str, float]:
    """The rise of the peak over the bare import while `count` files are averaged, beside one file."""
    with tempfile.TemporaryDirectory() as folder:
        stack = [keras.layers.Dense(width) for _ in range(layers)]
        model = keras.Sequential([keras.Input((width,)), *stack])
        files = [str(Path(folder) / f"{number}.keras") for number in range(count)]
        for file in files:
            model.save(file)
        size = os.path.getsize(files[0])
        done = subprocess.run([sys.executable, "-c", MEMORY, *files], capture_output=True, text=True, check=True)
    rise, seconds = map(float, done.stdout.split()[-2:])
    return {
        "files": count,
        "file_megabytes": size / 1e6,
        "peak_rise_megabytes": rise / 1e6,
        "peak_rise_in_files": rise / size,
        "averaging_seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=CLAIM)
    parser.add_argument("--quick", action="store_true", help="one seed, few images and epochs, prints only")
    quick = parser.parse_args().quick
    images, epochs, seeds = (1500, 5, range(1)) if quick else (55_000, 10, range(3))

    (x, y), test = load_fashion_mnist()
    order = np.random.default_rng(0).permutation(len(y))
    validation = tuple(part[order[55_000:]] for part in (x, y))
    train = tuple(part[order[:images]] for part in (x, y))
    rows, metrics = [], {}
    for seed in seeds:
        found = compared(seed, train, validation, test, epochs)
        print("way | test accuracy | ECE | MACs | parameters | CPU seconds of training")
        for name, row in found.items():
            rows.append({"seed": seed, "way": name, **row})
            numbers = f"{row['accuracy']:.4f} | {row['ece']:.4f} | {row['macs']:,.0f} | {row['parameters']:,.0f}"
            print(f"{name} | {numbers} | {row['seconds']:.0f}", flush=True)
    for name in dict.fromkeys(row["way"] for row in rows):
        ours = [row for row in rows if row["way"] == name]
        for metric in ("accuracy", "ece", "macs", "seconds"):
            metrics[f"{name}_{metric}"] = statistics.median(row[metric] for row in ours)
    singles, means = ([row["accuracy"] for row in rows if row["way"] == name] for name in ("single", "mean"))
    gains = [mean - single for mean, single in zip(means, singles, strict=True)]
    metrics["gain"] = statistics.median(gains)
    metrics["gain_min"], metrics["gain_max"] = min(gains), max(gains)
    metrics |= memory(*((3, 800, 4) if quick else (20, 800, 40)))
    report("ensembles", CLAIM, metrics, rows, write=not quick)


if __name__ == "__main__":
    main()
