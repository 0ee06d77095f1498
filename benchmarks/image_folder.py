"""An epoch of a folder of real-size JPEGs, augmented: `image_folder` against `image_dataset_from_directory` and layers.

2,000 images of about 500x375 pixels and 54 KB, with the spectrum of photographs, are made in a temporary folder, so
they lie in the page cache. Both sides shrink them to 224x224, shift, turn and flip them, and give float32 in [0, 1] in
batches of 32; nothing trains. The first epoch contains the call that makes the dataset; ours fills a named cache too,
which the later ones read. First epochs stand against first ones, later against later.
`"antialiased"` does more than Keras's resize does. Before, both sides go through a few batches,
the short last one too, which traces and compiles. In turn, on a quiet machine: about 5 minutes.
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
from _results import report
from PIL import Image

from keras_opt.data import image_folder
from keras_opt.layers.random_affine import RandomAffine

CLAIM = (
    "On 2,000 JPEGs of 54 KB, image_folder gives the augmented images of its first epoch at 3.5 times the rate per "
    "CPU-second of image_dataset_from_directory with Keras's layers (decode='fast'; 3 times with 'exact'), and those "
    "of later epochs at 10 times."
)
SIZE = (224, 224)
BATCH_SIZE = 32
FIELD = 1536
QUALITY = 70


def photograph_like(count: int) -> list[np.ndarray]:
    """Large fields of colour whose amplitude falls with the frequency, as that of photographs does."""
    rng = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(FIELD)[:, None], np.fft.rfftfreq(FIELD)[None])
    frequency[0, 0] = 1.0

    def noise():
        return np.exp(2j * np.pi * rng.random(frequency.shape))

    fields = []
    for _ in range(count):
        grey = noise()
        channels = [np.fft.irfft2((grey + 0.3 * noise()) / frequency**1.1, (FIELD, FIELD)) for _ in range(3)]
        image = np.stack([128 + 55 * channel / channel.std() for channel in channels], axis=-1)
        fields.append(np.clip(image, 0, 255).astype(np.uint8))
    return fields


def write_folder(folder: Path, count: int) -> float:
    """Write `count` JPEGs in 4 classes; their mean size in bytes."""
    rng = np.random.default_rng(1)
    fields = photograph_like(4)
    sizes = []
    for number in range(count):
        place = folder / f"class_{number % 4}"
        place.mkdir(parents=True, exist_ok=True)
        height, width = [(375, 500), (500, 375), (333, 500), (400, 500)][int(rng.choice(4, p=[0.5, 0.2, 0.15, 0.15]))]
        top, left = rng.integers(0, FIELD - 500, 2)
        path = place / f"{number:05}.jpg"
        window = fields[number // 4 % len(fields)][top : top + height, left : left + width]
        Image.fromarray(window).save(path, quality=QUALITY)
        sizes.append(path.stat().st_size)
    return statistics.mean(sizes)


class Keras:
    """`image_dataset_from_directory` and one stack of layers, parallel where tf.data lets it."""

    def __init__(self):
        self.stack = [
            keras.layers.RandomFlip("horizontal_and_vertical"),
            keras.layers.RandomRotation(20 / 360, fill_mode="nearest"),
            keras.layers.RandomTranslation(0.2, 0.2, fill_mode="nearest"),
            keras.layers.Rescaling(1 / 255),
        ]

    def dataset(self, folder: Path) -> tf.data.Dataset:
        images = keras.utils.image_dataset_from_directory(
            folder, label_mode="categorical", image_size=SIZE, batch_size=BATCH_SIZE, seed=0, verbose=False
        )
        return images.map(self._augment, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)

    def _augment(self, images, labels):
        for layer in self.stack:
            images = layer(images, training=True)
        return images, labels


def seconds_of_epoch(make) -> tuple[tf.data.Dataset, tuple[float, float]]:
    """CPU and wall seconds of making a dataset, if it is to be made, and of going through it."""
    began = time.process_time(), time.perf_counter()
    dataset = make()
    for images, _ in dataset:
        shape, dtype = images.shape[1:], images.dtype
    seconds = time.process_time() - began[0], time.perf_counter() - began[1]
    assert (shape, dtype) == ((*SIZE, 3), tf.float32)
    return dataset, seconds


def one_pair(folder: Path, cache: Path, theirs: Keras, ours: RandomAffine) -> dict[str, tuple[float, float]]:
    images, first = seconds_of_epoch(lambda: theirs.dataset(folder))
    row = {"first_keras": first, "later_keras": seconds_of_epoch(lambda: images)[1]}
    for decode in ("exact", "fast", "antialiased"):
        cache.unlink(missing_ok=True)
        options = {"augment": ours, "cache": cache, "decode": decode, "seed": 0}
        train, row[f"first_{decode}"] = seconds_of_epoch(
            lambda o=options: image_folder(folder, SIZE, BATCH_SIZE, **o)[0]
        )
        row[f"later_{decode}"] = seconds_of_epoch(lambda train=train: train)[1]
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=CLAIM)
    parser.add_argument("--quick", action="store_true", help="fewer images and pairs; prints only")
    quick = parser.parse_args().quick
    count, pairs = (300, 2) if quick else (2_000, 7)
    theirs = Keras()
    ours = RandomAffine(
        rotation_degrees=20,
        width_shift=0.2,
        height_shift=0.2,
        horizontal_flip=True,
        vertical_flip=True,
        rescale=1 / 255,
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "images")
        mean_bytes = write_folder(folder, count)
        warm_up = Path(temporary, "warm_up")
        write_folder(warm_up, 4 * BATCH_SIZE + count % BATCH_SIZE)  # the last batch has a shape of its own
        one_pair(warm_up, Path(temporary, "cache"), theirs, ours)
        rows = [one_pair(folder, Path(temporary, "cache"), theirs, ours) for _ in range(pairs)]

    metrics = {"mean_file_bytes": mean_bytes}
    print("pair | images per CPU second (per wall second): " + " | ".join(rows[0]))
    for number, row in enumerate(rows):
        print(number, *(f"{count / cpu:.0f} ({count / wall:.0f})" for cpu, wall in row.values()), sep=" | ")
    for name in rows[0]:
        if name.endswith("_keras"):
            metrics[f"{name}_images_per_cpu_second"] = count / statistics.median(row[name][0] for row in rows)
            continue
        peer = f"{name.split('_')[0]}_keras"
        cpu, wall = ([row[peer][clock] / row[name][clock] for row in rows] for clock in (0, 1))
        metrics[f"{name}_vs_keras"] = statistics.median(cpu)
        metrics[f"{name}_vs_keras_min"], metrics[f"{name}_vs_keras_max"] = min(cpu), max(cpu)
        metrics[f"{name}_vs_keras_wall"] = statistics.median(wall)
    report("image_folder", CLAIM, metrics, rows, write=not quick)


if __name__ == "__main__":
    main()
