"""A folder of images as a pair of tf.data sets."""

import os
import random
from typing import Literal

import numpy as np
import tensorflow as tf

from keras_opt.core.errors import InputError, argument_error, check_at_least, check_choice, check_fraction
from keras_opt.core.progress import Progress
from keras_opt.data.arrays import arrays
from keras_opt.data.folder_index import index_folder
from keras_opt.data.image_files import decode_files
from keras_opt.data.stratified_split import class_counts, stratified_split

CHANNELS = {"rgb": 3, "grayscale": 1}


def image_folder(
    directory: str | os.PathLike,
    image_size: int | tuple[int, int] = (224, 224),
    batch_size: int = 32,
    label_mode: Literal["categorical", "int"] = "categorical",
    validation_split: float = 0.0,
    class_weight: Literal["balanced"] | None = None,
    color_mode: Literal["rgb", "grayscale"] = "rgb",
    on_error: Literal["skip", "raise"] = "skip",
    seed: int | None = None,
    progress: Progress | None = None,
) -> tuple[tf.data.Dataset, tf.data.Dataset | None]:
    """Make the datasets `(train, validation)` of a folder that has one sub-folder of images a class.

    Every file is decoded once, at this call, into uint8 that later epochs only gather; above 2 GiB it goes into a
    temporary file. JPEG, PNG, BMP and GIF (first frame) are read, EXIF orientation is applied, transparency dropped.
    The split keeps the share of every class. The training set comes in a new order every epoch, the validation set
    always in one.

    Both datasets carry `class_names` (tuple, sorted), `class_counts` (images of the part by class name) and `skipped`
    (the files of both parts that were left out, each with `path` and `reason`: damaged, of another kind than those
    above, or in a folder below its class; only the damaged ones count for `on_error`). As with Keras's
    `image_dataset_from_directory`, a dataset made from them by `map` or `batch` does not.

    Args:
        directory: The folder.
        image_size: (height, width) in pixels, or one number for both. Images are stretched to it.
        batch_size: Images a batch.
        label_mode: `"categorical"` for one-hot float32, `"int"` for class numbers in int32.
        validation_split: Fraction in [0, 1) to hold out.
        class_weight: `"balanced"` adds the sample weight n / (classes * count of the class) to the training set.
        color_mode: `"rgb"` or `"grayscale"`.
        on_error: `"skip"` leaves out damaged files, up to 10% of them; `"raise"` stops at the first.
        seed: Of the split and of the order. `None` follows `keras.utils.set_random_seed`, and is random without it.
        progress: Shows the decoding; quiet by default.

    Returns:
        `(train, validation)`, batches of uint8 images in [0, 255] and labels (and sample weights); `validation` is
        `None` without a split.

    Raises:
        InputError: A folder is missing or empty, there is one class only, a class has too few images, too many files
            are damaged, or an argument is out of its range.

    Cost: n * height * width * channels bytes, at most 2 GiB of them (and one copy) in memory.
    """
    height, width = _check_size(image_size)
    check_at_least("image_folder", "batch_size", batch_size, 1)
    check_choice("image_folder", "label_mode", label_mode, ("categorical", "int"))
    check_fraction("image_folder", "validation_split", validation_split)
    check_choice("image_folder", "class_weight", class_weight, (None, "balanced"))
    check_choice("image_folder", "color_mode", color_mode, CHANNELS)
    check_choice("image_folder", "on_error", on_error, ("skip", "raise"))
    if seed is None:
        seed = random.randrange(2**31)
    check_at_least("image_folder", "seed", seed, 0)

    index = index_folder(directory)
    kept, held = np.arange(len(index.paths)), np.array([], dtype=np.int64)
    if validation_split:
        kept, held = stratified_split(index.labels, float(validation_split), seed, index.class_names)
    order = np.concatenate([kept, held])
    decoded = decode_files(
        [index.paths[position] for position in order],
        (height, width),
        CHANNELS[color_mode],
        on_error=on_error,
        progress=progress,
    )
    labels = index.labels[order[decoded.kept]]
    train_size = int(np.searchsorted(decoded.kept, len(kept)))

    def dataset(part, rows, **options):
        counts = class_counts(labels[rows], index.class_names)
        _check_every_class_left(counts, part)
        y = labels[rows].astype(np.int32)
        if label_mode == "categorical":
            y = np.eye(len(index.class_names), dtype=np.float32)[y]
        batches = arrays(decoded.images[rows], y, batch_size, **options)
        batches.class_names = index.class_names
        batches.class_counts = counts
        batches.skipped = index.passed_over + decoded.skipped
        return batches

    train = dataset("training", slice(None, train_size), class_weight=class_weight, seed=seed)
    if not validation_split:
        return train, None
    return train, dataset("validation", slice(train_size, None), shuffle=False)


def _check_size(image_size):
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    if (
        isinstance(size, tuple | list)
        and len(size) == 2
        and all(isinstance(side, int) and not isinstance(side, bool) and side >= 1 for side in size)
    ):
        return size
    must_be = "an integer of at least 1, or a pair (height, width) of such"
    raise argument_error("image_folder", "image_size", image_size, must_be, "Give for example 224 or (160, 224).")


def _check_every_class_left(counts, part):
    for name, count in counts.items():
        if count == 0:
            raise InputError(
                f"Class '{name}' has no readable image left in the {part} set. Replace its damaged files or add images."
            )
