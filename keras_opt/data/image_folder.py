"""A folder of images as a pair of tf.data sets."""

import os
import random
from collections.abc import Sequence
from typing import Literal

import keras
import numpy as np
import tensorflow as tf

from keras_opt.core.errors import check_at_least, check_choice, check_fraction, kind_error
from keras_opt.core.progress import Progress
from keras_opt.data.aliases import also_called
from keras_opt.data.arrays import gathering_is_stateless
from keras_opt.data.augment import augment as augment_dataset
from keras_opt.data.augment import checked_layers, infer
from keras_opt.data.balanced_positions import balanced_positions
from keras_opt.data.class_weights import sample_weights
from keras_opt.data.decode import decode_image
from keras_opt.data.decode_like_keras import decode_fast, decode_like_keras, jpegs_fast, jpegs_like_keras
from keras_opt.data.folder_batches import LABEL_MODES, folder_batches
from keras_opt.data.folder_checks import (
    check_cache,
    check_every_class_left,
    check_together,
    check_two_classes,
    checked_size,
    warn_of_files_left_out,
)
from keras_opt.data.folder_index import index_folder
from keras_opt.data.image_files import check_files
from keras_opt.data.image_store import ImageStore
from keras_opt.data.normalization import NORMALIZATIONS, normalization
from keras_opt.data.stratified_split import class_counts, stratified_split
from keras_opt.layers.random_affine import RandomAffine

CHANNELS = {"rgb": 3, "grayscale": 1}
DECODERS = {"exact": decode_like_keras, "fast": decode_fast, "antialiased": decode_image}
JPEG_DECODERS = {"exact": jpegs_like_keras, "fast": jpegs_fast}
STATISTICS_IMAGES = 1000
_CURES = {  # for arguments of Keras's functions
    "subset": "The call gives both parts: train, validation = image_folder(..., validation_split=0.2).",
    "shuffle": "Training images are shuffled anew every epoch, validation images never.",
    "labels": "The folder of an image is its label.",
    "class_names": "The classes are the sorted names of the folders.",
    "classes": "The classes are the sorted names of the folders.",
    "interpolation": "Choose the way to resize by `decode`.",
    "rescale": "Give augment=RandomAffine(rescale=1 / 255), or normalize='min_max'.",
    "preprocessing_function": "Put the preprocessing into the model.",
}


@also_called(_CURES, target_size="image_size", class_mode="label_mode")
def image_folder(
    directory: str | os.PathLike,
    image_size: int | tuple[int, int] = (224, 224),
    batch_size: int = 32,
    label_mode: Literal["categorical", "int", "sparse", "binary"] = "categorical",
    *,
    augment: keras.Layer | Sequence[keras.Layer] | Literal[True] | None = None,
    cache: Literal["auto", "memory"] | os.PathLike | str | None = "auto",
    validation_split: float = 0.0,
    decode: Literal["exact", "fast", "antialiased"] = "exact",
    color_mode: Literal["rgb", "grayscale"] = "rgb",
    on_error: Literal["skip", "raise"] = "skip",
    sampling: Literal["balanced"] | None = None,
    class_weight: Literal["balanced"] | None = None,
    normalize: Literal["standard", "min_max"] | None = None,
    seed: int | None = None,
    verbose: str | int = 0,
) -> tuple[tf.data.Dataset, tf.data.Dataset | None]:
    """Make the datasets `(train, validation)` of a folder that has one sub-folder of images a class.

    The call looks at both ends of every file and decodes none. The first epoch decodes, in parallel threads, what its
    batches need, into uint8; later epochs only gather. The training set comes in a new order every epoch, which is a
    function of (seed, epoch), and of TensorFlow's global seed where one is set, and so are the draws of `augment`; the
    validation set comes always in one and is never augmented, but rescaled and resized as the training set where the
    layers do that. `BackupAndRestore` goes on inside an epoch of both. `fit(shuffle=False)` says that the set comes
    shuffled already; Keras only warns without it.

    What is different elsewhere:

    |                    | here                           | `flow_from_directory` | `image_dataset_from_directory`     |
    |--------------------|--------------------------------|-----------------------|------------------------------------|
    | gives              | the pair, one call             | a set a call          | a set a call, pair by subset="both"|
    | split              | keeps the share of every class | by name, in each class| at random                          |
    | `subset=`          | none: the pair has both        | one a call            | one a call, or "both"              |
    | `shuffle=`         | none: training only, always    | True by default       | True by default                    |
    | folders in a class | left out, in `.skipped`        | read                  | read                               |
    | labels by default  | one-hot                        | one-hot               | class numbers                      |
    | order of an epoch  | all names shuffled             | all names shuffled    | names once, then 8 batches of them |
    | pixels             | uint8                          | float32, rescaled     | float32                            |
    | resize             | bilinear, or antialiased       | nearest               | bilinear                           |
    | EXIF orientation   | applied                        | ignored               | ignored                            |
    | damaged file       | left out, in `.skipped`        | error in the epoch    | error in the epoch                 |
    | later epochs       | decode nothing                 | decode again          | decode again                       |
    | same seed          | same images, any parallelism   | one worker only       | not with random layers in `map`    |
    | class weights      | sample weights of the set      | `fit(class_weight=)`  | `fit(class_weight=)`               |

    Mixed folders: every image becomes `color_mode`, whatever it was. Grey is repeated in RGB, palettes, 1-bit and CMYK
    are converted, 16-bit grey is scaled to 8 bits, transparency is dropped; pixels of no known range (32-bit, floats)
    count as damaged. JPEG, PNG, BMP and GIF (first frame) are read.

    Both datasets carry `class_names` (tuple, sorted), `class_counts` (images of the part by class name),
    `normalization` and `skipped`, a list of the files of both parts that were left out, each with `path` and `reason`:
    damaged (these first), of another kind than those above, or in a folder below its class. A warning counts them; only
    the damaged ones count for `on_error`. A file that is damaged in the middle only is found when it is decoded: its
    batch is smaller by it, a warning names it, and it joins the list. As with Keras's functions, a dataset made from
    these by `map` or `batch` has no such attributes.

    Args:
        directory: The folder.
        image_size: (height, width) in pixels, or one number for both. Images are stretched to it. Also `target_size`.
        batch_size: Images a batch.
        label_mode: `"categorical"` for one-hot float32, `"int"` (or `"sparse"`) for class numbers in int32, `"binary"`
            for 0.0 and 1.0 in a column (two classes only). Also `class_mode`. The loss is `categorical_crossentropy`,
            `sparse_categorical_crossentropy` or `binary_crossentropy`.
        augment: Layers for the training set, see `keras_opt.data.augment`. `True` stands for
            `RandomAffine(rotation_degrees=10, width_shift=0.1, height_shift=0.1, zoom=0.1, horizontal_flip=True)`,
            for photographs of things that look alike in a mirror; not for digits and letters.
        cache: Where decoded images stay. `"auto"`: in memory, above 2 GiB in a temporary file (`TMPDIR` says where).
            `"memory"`: there, whatever the size. A path: in this file, where other processes find them again as long as
            the names, sizes and times of the files are the same; each image is checked by its checksum. `None`:
            nowhere, every epoch decodes.
        validation_split: Fraction in [0, 1) to hold out.
        decode: `"exact"` gives the pixels of `image_dataset_from_directory`, rounded. `"fast"` shrinks JPEGs as it
            decodes them: smoother where they shrink to 3/5 or less, otherwise within 2 grey levels of `"exact"` on
            average.
            `"antialiased"` takes half as long again as `"exact"` and gives the pixels that `keras-opt predict` and
            its device script see. Take `"exact"` to go on with what was trained in Keras, `"fast"` for photographs much
            larger than `image_size`, `"antialiased"` for a model that `keras-opt predict` will serve.
        color_mode: `"rgb"` or `"grayscale"`.
        on_error: `"skip"` leaves out damaged files, up to 10% of them; `"raise"` stops at the first.
        sampling: `"balanced"` shows every class equally often in an epoch of about as many images: small classes are
            repeated, of large ones a part is drawn anew each epoch.
        class_weight: `"balanced"` adds the sample weight n / (classes * count of the class) to the training set, before
            `augment`, so that `MixUp` mixes it too. Not with `sampling`.
        normalize: `"standard"` makes a layer for (x - mean) / standard deviation of each channel, over 1,000 training
            images (decoded by this call); `"min_max"` one for x / 255. It is the attribute `normalization` of both
            sets; put it first in the model (`preprocessing=` of `keras_opt.models`), which then takes raw pixels.
        seed: Of the split, of the order and of `augment`. `None` follows `keras.utils.set_random_seed`, and is random
            without it.
        verbose: 1 shows the checking of the files on standard error, as a bar on a terminal; 2 as plain lines. Default
            0, silent.

    Returns:
        `(train, validation)`, batches of uint8 images in [0, 255] (or what the layers make of them) and labels (and
        sample weights); `validation` is `None` without a split.

    Raises:
        InputError: A folder is missing or empty, there is one class only, a class has too few images, too many files
            are damaged, the cache does not fit or is another file, or an argument is out of its range.

    Warns:
        UserWarning: Files were left out, or `cache` is a file made of other files or settings, which is begun anew.

    Cost: n * height * width * channels bytes; the look at the files is about 1/20 of decoding them.

    Example:
        >>> train, validation = image_folder("photos", 160, validation_split=0.2, augment=True, seed=0)
        >>> model.fit(train, validation_data=validation, epochs=10, shuffle=False)
    """
    height, width = checked_size(image_size)
    check_at_least("image_folder", "batch_size", batch_size, 1)
    check_choice("image_folder", "label_mode", label_mode, LABEL_MODES)
    check_fraction("image_folder", "validation_split", validation_split)
    check_choice("image_folder", "decode", decode, DECODERS)
    check_choice("image_folder", "color_mode", color_mode, CHANNELS)
    check_choice("image_folder", "on_error", on_error, ("skip", "raise"))
    check_choice("image_folder", "sampling", sampling, (None, "balanced"))
    check_choice("image_folder", "class_weight", class_weight, (None, "balanced"))
    check_choice("image_folder", "normalize", normalize, NORMALIZATIONS)
    check_cache(cache)
    layers = _layers(augment)
    check_together(layers, normalize, sampling, class_weight)
    if seed is None:
        seed = random.randrange(2**31)
    check_at_least("image_folder", "seed", seed, 0)
    progress = Progress.of("image_folder", verbose)
    order_seed, augment_seed = np.random.SeedSequence(seed).generate_state(2).tolist()

    index = index_folder(directory)
    check_two_classes(label_mode, index.class_names)
    parts = {"training": np.arange(len(index.paths))}
    if validation_split:
        split = stratified_split(index.labels, float(validation_split), seed, index.class_names)
        parts = dict(zip(("training", "validation"), split, strict=True))
    good, damaged, sizes = check_files(index.paths, on_error=on_error, progress=progress)
    jpeg_sizes = np.zeros((len(index.paths), 2), int)
    jpeg_sizes[good] = [size or (0, 0) for size in sizes]
    parts = {part: positions[np.isin(positions, good)] for part, positions in parts.items()}
    counts = {part: class_counts(index.labels[positions], index.class_names) for part, positions in parts.items()}
    for part in parts:
        check_every_class_left(counts[part], part)
    warn_of_files_left_out(len(good), index.passed_over, damaged)
    skipped = [*damaged, *index.passed_over]
    store = ImageStore(
        index.paths,
        (height, width, CHANNELS[color_mode]),
        DECODERS[decode],
        decode_jpegs=JPEG_DECODERS.get(decode),
        jpeg_sizes=jpeg_sizes,
        cache=cache,
        recipe=decode,
        on_error=on_error,
        skipped=skipped,
        damaged=damaged,
    )
    rows = parts["training"]
    layer = _normalization(normalize, store, rows, seed)

    def finished(batches: tf.data.Dataset, part: str) -> tf.data.Dataset:
        dataset = batches.prefetch(tf.data.AUTOTUNE).with_options(gathering_is_stateless())
        dataset.store = store  # what the batches only refer to
        dataset.class_names = index.class_names
        dataset.class_counts = counts[part]
        dataset.skipped = skipped
        dataset.normalization = layer
        return dataset

    def training() -> tf.data.Dataset:
        if sampling is None:
            order = tf.data.Dataset.from_tensor_slices(rows).shuffle(len(rows), order_seed)
        else:
            order = balanced_positions(rows, index.labels[rows], order_seed)
        weights = None
        if class_weight is not None:
            weights = np.zeros(len(index.class_names))
            weights[index.labels[rows]] = sample_weights("image_folder", index.labels[rows], class_weight)
        batches = folder_batches(order.batch(batch_size), store, index.labels, label_mode, weights)
        return finished(augment_dataset(batches, layers, augment_seed) if layers else batches, "training")

    train = training()
    train.fresh_copy = training
    if not validation_split:
        return train, None
    order = tf.data.Dataset.from_tensor_slices(parts["validation"])
    batches = folder_batches(order.batch(batch_size), store, index.labels, label_mode)
    if layers:
        batches = batches.map(lambda *element: infer(layers, element), tf.data.AUTOTUNE)
    return train, finished(batches, "validation")


def _layers(augment):
    if augment is None:
        return ()
    if augment is False:
        raise kind_error("image_folder", "augment", augment, "layers, True or None", "Give None for no augmentation.")
    if augment is True:
        return (RandomAffine(rotation_degrees=10, width_shift=0.1, height_shift=0.1, zoom=0.1, horizontal_flip=True),)
    return checked_layers("image_folder", "augment", augment)


def _normalization(kind, store, rows, seed):
    if kind is None:
        return None
    if kind == "min_max":
        return keras.layers.Rescaling(1 / 255)
    some = np.random.default_rng(seed).permutation(rows)[:STATISTICS_IMAGES]
    return normalization("image_folder", "the training set", store.read(some)[0], kind)
