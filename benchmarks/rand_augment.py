"""How many images a CPU-second RandAugment makes inside tf.data, against the layer of Keras.

Both get the same uint8 batches and give float32, with their default settings: two operations of a strength drawn up to
a half. Keras computes all eleven operations for each batch and keeps one; ours computes for each image what it drew.
Run it on a quiet machine.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from _results import report

from keras_opt.layers import RandAugment

CLAIM = (
    "Inside tf.data, on 224x224x3 uint8 images in batches of 32, keras_opt's RandAugment makes at least 20 times as "
    "many images a CPU-second as Keras's (median of the pairs)."
)
BATCH_SIZE = 32
SIZES = (224, 32)


def milliseconds(augment: Callable[[tf.Tensor, tf.Tensor], tf.Tensor], images: tf.Tensor, batches: int) -> list[float]:
    """CPU and wall milliseconds an image, once the first batch has been traced, compiled and made."""
    data = tf.data.Dataset.range(batches + 1).map(lambda number: augment(images, number), tf.data.AUTOTUNE)
    iterator = iter(data.prefetch(1))
    next(iterator)
    started = time.process_time(), time.perf_counter()
    for _ in iterator:
        pass
    ended = time.process_time(), time.perf_counter()
    return [1000 * (b - a) / batches / len(images) for a, b in zip(started, ended, strict=True)]


def pairs_of(size: int, pairs: int, batches: dict[str, int]) -> list[dict]:
    """The two sides in turn; the first turn warms up."""
    pixels = np.random.default_rng(0).integers(0, 256, (BATCH_SIZE, size, size, 3), "uint8")
    images = tf.constant(pixels)
    ours, theirs = RandAugment(), keras.layers.RandAugment()
    sides = {
        "keras": lambda images, number: theirs(images, training=True),
        "ours": lambda images, number: ours.transform(images, tf.stack([0, tf.cast(number, "int32")])),
    }
    rows = []
    for turn in range(pairs + 1):
        row = {name: milliseconds(side, images, batches[name]) for name, side in sides.items()}
        if turn:
            rows.append({"size": size, **row})
            print(size, turn, *(f"{cpu:.3f} ({wall:.3f})" for cpu, wall in map(row.get, sides)), sep=" | ", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=CLAIM)
    parser.add_argument("--quick", action="store_true", help="two pairs of few batches, 224x224 only; prints only")
    quick = parser.parse_args().quick
    pairs, batches = (2, {"keras": 2, "ours": 40}) if quick else (7, {"keras": 6, "ours": 120})

    metrics, rows = {}, []
    print("size | pair | ms an image, CPU (wall): keras | ours")
    for size in SIZES[:1] if quick else SIZES:
        own = pairs_of(size, pairs, batches)
        rows += own
        suffix = "" if size == SIZES[0] else f"_{size}"
        cpu, wall = ([row["keras"][clock] / row["ours"][clock] for row in own] for clock in (0, 1))
        metrics[f"vs_keras{suffix}"] = statistics.median(cpu)
        metrics[f"vs_keras{suffix}_min"], metrics[f"vs_keras{suffix}_max"] = min(cpu), max(cpu)
        metrics[f"vs_keras{suffix}_wall"] = statistics.median(wall)
        metrics[f"images_per_cpu_second{suffix}"] = 1000 / statistics.median(row["ours"][0] for row in own)
    report("rand_augment", CLAIM, metrics, rows, write=not quick)


if __name__ == "__main__":
    main()
