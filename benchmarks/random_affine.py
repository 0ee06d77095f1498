"""What RandomAffine costs, beside Keras's layers, ImageDataGenerator, albumentations and OpenCV.

Rotation by 20 degrees, shifts by 0.2, both flips, rescaling by 1/255; batches of 32, bytes in, float32 in [0, 1] out on
all sides, at 224 x 224 x 3 and 32 x 32 x 3. One side runs at a time; the CPU time of the whole process counts, after
two warm-up batches. A pair is one turn of all sides, in an order that alternates. Run it on a quiet machine. In the
model, a mean over the pixels and one unit follow the layers; they and `fit` cost about 120 microseconds on both sides.

First the mean error of each side's interpolation is printed, in grey levels against one warp by SciPy in float64: of a
smooth image, turned by 15 degrees and shifted by 0.1, without the margin. Keras's layers interpolate twice;
albumentations rounds the shift to pixels.

What was tried for the warp (CPU microseconds an image of 224 x 224 x 3, called directly, on a busy machine, where a
cast and scale took 17 to 21):

    four gathers of C bytes each, fill by clamping, floats lerped, all in one fused loop         205
    the same by byte, with one index a channel                                                  236
    weights computed once a pixel in place of lerps                                             190
    channels packed into one integer, unpacked from three uses of each gather: fusion breaks    860
    packed by shifts in the same call: fused into each read again, and so done four times       690
    packed by a sum, which XLA keeps apart; the index repeated for each channel, so that the
    gather has the shape of the result and is fused with the rest                               155
    that, floats and saturating casts replaced by bit patterns, weights for lerps: not clearer  130
    that, with two pixels in 64 bits: not vectorised                                           1400
    that, for "nearest": coordinates clamped before, so that all four reads have one index      140
    that, image by image in a loop within XLA: shift amounts are hoisted out of the loop        177
    `tf.where` for the constant fill: a branch at each read; a product instead                  600, 163

What runs is the packed sum with one index. The loop is bound by latency: 25 instructions a pixel at 2 a cycle; each of
the four reads costs 10 microseconds more, the arithmetic of coordinates and weights 4. The batch is one XLA call: one
call an image costs 200 more. Matrices are drawn in an XLA call of their own: in single operations, or within the warp's
call, a batch of 32 x 32 costs a fifth more. XLA spreads a batch over the cores by itself: `num_parallel_calls=1` takes
0.9 of the CPU time of the default, at about its speed ("one by one").
"""

import argparse
import gc
import itertools
import os
import statistics
import time
from collections.abc import Callable, Iterator

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations
import cv2
import keras
import numpy as np
import scipy.ndimage
import tensorflow as tf
from _results import report
from tensorflow.keras.preprocessing.image import ImageDataGenerator

from keras_opt.data import augment
from keras_opt.layers import RandomAffine
from keras_opt.layers.affine_matrices import about_centres, compose, rotations, shifts
from keras_opt.layers.warp import warp

CLAIM = (
    "An image of 224x224x3 costs RandomAffine in tf.data at most 1/9.9 of the CPU time of Keras's layers there, 1/12 "
    "of ImageDataGenerator's, half of albumentations' and 1/1.3 of OpenCV's, both in tf.data too, and 4.3 times "
    "that of a cast and scale; in the model 1/9.7 of Keras's layers, by a default compile and by jit_compile=True."
)
BATCH = 32
DEGREES, SHIFT = 20, 0.2


def ours() -> RandomAffine:
    return RandomAffine(DEGREES, SHIFT, SHIFT, horizontal_flip=True, vertical_flip=True, rescale=1 / 255)


def keras_layers() -> list[keras.layers.Layer]:
    return [
        keras.layers.RandomRotation(DEGREES / 360, fill_mode="nearest"),
        keras.layers.RandomTranslation(SHIFT, SHIFT, fill_mode="nearest"),
        keras.layers.RandomFlip("horizontal"),
        keras.layers.RandomFlip("vertical"),
        keras.layers.Rescaling(1 / 255),
    ]


def by_albumentations() -> Callable[[np.ndarray], np.ndarray]:
    """A function of a batch."""
    shares = (-SHIFT, SHIFT)
    moves = albumentations.Compose(
        [
            albumentations.Affine(
                rotate=(-DEGREES, DEGREES),
                translate_percent={"x": shares, "y": shares},
                border_mode=cv2.BORDER_REPLICATE,
                p=1,
            ),
            albumentations.HorizontalFlip(p=0.5),
            albumentations.VerticalFlip(p=0.5),
        ]
    )
    return lambda images: np.stack([moves(image=image)["image"] for image in images]) * np.float32(1 / 255)


def by_opencv(images: np.ndarray, rng: np.random.Generator = np.random.default_rng(0)) -> np.ndarray:  # noqa: B008
    """One composed matrix and one warpAffine an image."""
    size = images.shape[1]
    warped = np.empty_like(images)
    middle = (size - 1) / 2
    for image, out in zip(images, warped, strict=True):
        matrix = cv2.getRotationMatrix2D((middle, middle), rng.uniform(-DEGREES, DEGREES), 1)
        matrix[:, 2] += rng.uniform(-SHIFT, SHIFT, 2) * size
        flips = rng.choice((-1, 1), 2)
        matrix *= flips[:, np.newaxis]
        matrix[:, 2] += np.where(flips < 0, size - 1, 0)
        cv2.warpAffine(image, matrix, (size, size), out, cv2.INTER_LINEAR, cv2.BORDER_REPLICATE)
    return warped * np.float32(1 / 255)


def repeated(images: np.ndarray) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensors(images).repeat()


def mapped(images: np.ndarray, function: Callable) -> Callable[[], Iterator]:
    dataset = repeated(images).map(function, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)
    return lambda: iter(dataset)


def in_numpy_function(images: np.ndarray, function: Callable) -> Callable[[], Iterator]:
    return mapped(images, lambda batch: tf.numpy_function(function, [batch], "float32"))


def called(images: np.ndarray, function: Callable) -> Callable[[], Iterator]:
    return lambda: (function(images) for _ in itertools.count())


def fits(images: np.ndarray, layers: list[keras.layers.Layer], **settings) -> Callable[[int], None]:
    """Trains a tiny head behind the layers for so many steps."""
    head = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(1)]
    model = keras.Sequential([keras.Input(images.shape[1:], BATCH, dtype="uint8"), *layers, *head])
    model.compile("sgd", "mse", **settings)
    dataset = tf.data.Dataset.from_tensors((images, np.zeros((BATCH, 1), "float32"))).repeat()
    return lambda steps: model.fit(dataset, steps_per_epoch=steps, verbose=0)


def sides_of(size: int) -> dict[str, tuple[str, Callable, int]]:
    """Name to kind ("batches" or "fit"), source, and how many batches take a second or so at 224."""
    images = np.random.default_rng(0).integers(0, 256, (BATCH, size, size, 3)).astype("uint8")
    stack = keras.Sequential(keras_layers())
    generator = ImageDataGenerator(
        rotation_range=DEGREES,
        width_shift_range=SHIFT,
        height_shift_range=SHIFT,
        horizontal_flip=True,
        vertical_flip=True,
        rescale=1 / 255,
    )
    moves = by_albumentations()
    augmented = augment(repeated(images), ours(), seed=0).prefetch(tf.data.AUTOTUNE)
    one_by_one = augment(repeated(images), ours(), seed=0, num_parallel_calls=1).prefetch(tf.data.AUTOTUNE)
    layer = ours()
    return {
        "ours": ("batches", lambda: iter(augmented), 80),
        "ours_one_by_one": ("batches", lambda: iter(one_by_one), 80),
        "cast": ("batches", mapped(images, lambda batch: tf.cast(batch, "float32") * (1 / 255)), 200),
        "ours_called": ("batches", called(images, lambda batch: layer(batch, training=True)), 80),
        "keras_tfdata": ("batches", mapped(images, lambda batch: stack(batch, training=True)), 8),
        "imagedatagenerator": ("batches", lambda: generator.flow(images, batch_size=BATCH, shuffle=False), 6),
        "albumentations": ("batches", called(images, moves), 20),
        "albumentations_tfdata": ("batches", in_numpy_function(images, moves), 20),
        "opencv": ("batches", called(images, by_opencv), 40),
        "opencv_tfdata": ("batches", in_numpy_function(images, by_opencv), 40),
        "ours_in_model": ("fit", fits(images, [ours()], jit_compile="auto"), 40),
        "ours_in_model_jit": ("fit", fits(images, [ours()], jit_compile=True), 40),
        "keras_in_model": ("fit", fits(images, keras_layers(), jit_compile="auto"), 8),
    }


def microseconds_an_image(side: tuple[str, Callable, int], share: float) -> float:
    """CPU time, after a warm-up of two batches."""
    kind, source, count = side
    count = max(2, round(share * count))
    if kind == "fit":
        source(2)
        begin = time.process_time()
        source(count)
    else:
        batches = source()
        for _ in range(2):
            next(batches)
        begin = time.process_time()
        for _ in range(count):
            next(batches)
    used = time.process_time() - begin
    gc.collect()
    return 1e6 * used / count / BATCH


def measure(size: int, pairs: int, share: float) -> list[dict]:
    """One row a pair: CPU microseconds an image of each side."""
    sides = sides_of(size)
    for side in sides.values():  # traced and compiled
        microseconds_an_image(side, 0)
    rows = []
    for pair in range(pairs):
        order = list(sides)[:: 1 if pair % 2 == 0 else -1]
        row = {name: microseconds_an_image(sides[name], share) for name in order}
        row = {name: row[name] for name in sides}
        print(f"{size:3} | {pair} | " + " | ".join(f"{name} {value:.0f}" for name, value in row.items()), flush=True)
        rows.append({"size": size, **row})
    return rows


def metrics_of(rows: list[dict], end: str) -> dict[str, float]:
    def ratio(theirs: str, ours: str = "ours") -> float:
        return statistics.median(row[theirs] / row[ours] for row in rows)

    peers = ("keras_tfdata", "imagedatagenerator", "albumentations", "albumentations_tfdata", "opencv", "opencv_tfdata")
    metrics = {f"vs_{peer}": ratio(peer) for peer in peers}
    metrics["vs_keras_in_model"] = ratio("keras_in_model", "ours_in_model")
    metrics["vs_keras_in_model_jit"] = ratio("keras_in_model", "ours_in_model_jit")
    metrics["vs_cast"] = ratio("cast")
    metrics["vs_cast_one_by_one"] = ratio("cast", "ours_one_by_one")
    metrics["images_per_cpu_second"] = 1e6 / statistics.median(row["ours"] for row in rows)
    return {name + end: value for name, value in metrics.items()}


def pixel_errors() -> dict[str, float]:
    """Mean absolute error in grey levels of each side's interpolation, at the signs of angle and shift that it has."""
    size, degrees, share = 224, 15, 0.1
    pixels = share * size
    noise = scipy.ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(size, size, 3)), (4, 4, 0))
    image = np.round(255 * (noise - noise.min()) / np.ptp(noise)).astype("uint8")
    angle = degrees / 360
    fixed = [
        keras.layers.RandomRotation((angle, angle), fill_mode="nearest"),
        keras.layers.RandomTranslation((share,) * 2, (share,) * 2, fill_mode="nearest"),
    ]
    shares = {"x": (share,) * 2, "y": (share,) * 2}
    affine = albumentations.Affine(
        rotate=(degrees,) * 2, translate_percent=shares, border_mode=cv2.BORDER_REPLICATE, p=1
    )
    middle = (size - 1) / 2
    matrix = cv2.getRotationMatrix2D((middle, middle), degrees, 1)
    matrix[:, 2] += pixels

    def oracle(turn: int, right: int, down: int) -> tuple[tf.Tensor, np.ndarray]:
        parts = (
            rotations(tf.constant([1.0 * turn * degrees])),
            shifts(*tf.constant([[right], [down]], "float32") * pixels),
        )
        drawn = about_centres(compose(*parts), (size, size), (size, size))
        linear, offset = drawn[0].numpy()[:2, :2][::-1, ::-1], drawn[0].numpy()[:2, 2][::-1]
        channels = [scipy.ndimage.affine_transform(c, linear, offset, order=1) for c in np.moveaxis(image, 2, 0) * 1.0]
        return drawn, np.stack(channels, -1)

    candidates = [oracle(t, r, d) for t in (1, -1) for r in (1, -1) for d in (1, -1)]
    seen = {
        "ours": warp(image[np.newaxis], candidates[0][0], rescale=1.0)[0],
        "keras": keras.Sequential(fixed)(image[np.newaxis], training=True)[0],
        "imagedatagenerator": ImageDataGenerator().apply_transform(
            image.astype("float32"), {"theta": degrees, "tx": pixels, "ty": pixels}
        ),
        "albumentations": affine(image=image)["image"],
        "opencv": cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE),
    }
    inner = slice(80, 144)
    return {
        f"error_{name}": min(
            float(np.abs(np.asarray(values, "float64") - expected)[inner, inner].mean()) for _, expected in candidates
        )
        for name, values in seen.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=CLAIM)
    parser.add_argument("--quick", action="store_true", help="two short pairs at 224 only, prints only")
    quick = parser.parse_args().quick
    keras.utils.set_random_seed(0)
    errors = pixel_errors()
    for name, error in errors.items():
        print(f"{name:24} {error:.4f} grey levels")
    print("size | pair | CPU microseconds an image")
    rows = measure(224, 2 if quick else 7, 0.1 if quick else 1)
    metrics = errors | metrics_of(rows, "")
    if not quick:
        small = measure(32, 7, 10)
        rows += small
        metrics |= metrics_of(small, "_32")
    report("random_affine", CLAIM, metrics, rows, write=not quick)


if __name__ == "__main__":
    main()
