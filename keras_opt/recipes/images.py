"""The images of a run: training and validation decoded at once, the test images only when they are asked for."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from keras_opt.core.errors import InputError
from keras_opt.core.progress import Progress
from keras_opt.data.fashion_mnist_sample import FASHION_MNIST_CLASSES, load_fashion_mnist_sample
from keras_opt.data.folder_index import FolderIndex, index_folder
from keras_opt.data.image_files import DecodedImages, SkippedFile, decode_files
from keras_opt.data.stratified_split import check_class_counts, class_counts, stratified_split
from keras_opt.export.file_metadata import is_label
from keras_opt.recipes.recipe import SAMPLE, Recipe


@dataclass(frozen=True)
class Images:
    """uint8 images (n, height, width, channels) with their class numbers (n,)."""

    pixels: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, positions: np.ndarray | slice) -> "Images":
        return Images(self.pixels[positions], self.labels[positions])


@dataclass(frozen=True)
class Prepared:
    """What a run trains on.

    `read_test` decodes the test images; a run calls it once, after the last decision.
    """

    train: Images
    validation: Images
    read_test: Callable[[], tuple[Images, tuple[SkippedFile, ...]]]
    class_names: tuple[str, ...]
    skipped: tuple[SkippedFile, ...]
    source: str

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.train.pixels.shape[1:]

    def class_counts(self, labels: np.ndarray) -> dict[str, int]:
        return class_counts(labels, self.class_names)


def prepare(recipe: Recipe, progress: Progress) -> Prepared:
    """Read the training images and hold out the validation ones; the test images stay unread.

    Raises:
        InputError: The folder does not hold what the splits need.
    """
    return _prepare_sample(recipe) if recipe.data == SAMPLE else _prepare_folder(recipe, progress)


def image_sizes(recipe: Recipe) -> dict[str, dict[str, int]]:
    """The images of each folder of a run, by name below it, with their sizes in bytes; none for the embedded sample.

    Raises:
        InputError: A folder is missing or is none of images by class.
    """
    folders = {"data": recipe.data, "test": recipe.test} if recipe.data != SAMPLE else {}
    indices = {part: index_folder(folder) for part, folder in folders.items() if folder is not None}
    return {
        part: {path.relative_to(index.directory).as_posix(): path.stat().st_size for path in index.paths}
        for part, index in indices.items()
    }


def _prepare_sample(recipe: Recipe) -> Prepared:
    if (recipe.image_size, recipe.color_mode) != (28, "grayscale"):
        raise InputError(
            f"Recipe: the embedded sample has grey images of 28x28 pixels. Received: image_size={recipe.image_size}, "
            f"color_mode={recipe.color_mode!r}. Use Recipe.demo(), or give `data` a folder."
        )
    if recipe.test:
        raise InputError(
            f"Recipe: the embedded sample has test images of its own. Received: test={recipe.test!r}. Leave it out."
        )
    images = _sample("train")
    kept, held = stratified_split(images.labels, recipe.validation_split, recipe.seed, FASHION_MNIST_CLASSES)
    return Prepared(
        train=images.take(kept),
        validation=images.take(held),
        read_test=lambda: (_sample("test"), ()),
        class_names=FASHION_MNIST_CLASSES,
        skipped=(),
        source="Fashion-MNIST (Zalando SE, MIT licence): 10,000 training and 2,000 test images, stratified",
    )


def _sample(split: str) -> Images:
    pixels, labels = load_fashion_mnist_sample(split)
    return Images(pixels[..., np.newaxis], labels.astype(np.int64))


def _prepare_folder(recipe: Recipe, progress: Progress) -> Prepared:
    index = index_folder(recipe.data)
    for name in index.class_names:
        if not is_label(name):
            raise InputError(
                f"Class folder {name!r} of {recipe.data!r} cannot be a line of labels.txt: its name holds a line "
                "break, or bytes that are no UTF-8. Rename it."
            )
    check_class_counts(index.labels, 2 if recipe.test else 3, index.class_names)
    if recipe.test:
        development, test = np.arange(len(index.labels)), _test_index(recipe, index)
    else:
        development, held = stratified_split(index.labels, recipe.test_split, recipe.seed, index.class_names)
        test = _part(index, held)
    kept, held = stratified_split(index.labels[development], recipe.validation_split, recipe.seed, index.class_names)
    both = _part(index, development[np.concatenate([kept, held])])
    decoded = _decode(recipe, both, progress, "training and validation")
    images = Images(decoded.images, both.labels[decoded.kept])
    train_size = int(np.searchsorted(decoded.kept, len(kept)))
    train, validation = images.take(slice(None, train_size)), images.take(slice(train_size, None))
    for part, labels in (("training", train.labels), ("validation", validation.labels)):
        _check_every_class_left(part, labels, index.class_names)
    return Prepared(
        train=train,
        validation=validation,
        read_test=lambda: _read_test(recipe, test, progress),
        class_names=index.class_names,
        skipped=decoded.skipped + index.passed_over + test.passed_over,
        source=f"images of the folder {index.directory.resolve().name!r}",
    )


def _test_index(recipe: Recipe, index: FolderIndex) -> FolderIndex:
    test = index_folder(recipe.test)
    if test.directory.samefile(index.directory):
        raise InputError(
            f"Test folder {recipe.test!r} is the folder of the training images. Give another, or leave --test out."
        )
    if test.class_names != index.class_names:
        odd = ", ".join(sorted(set(test.class_names) ^ set(index.class_names)))
        raise InputError(
            f"Test folder {str(recipe.test)!r} must have the classes of {str(recipe.data)!r}; they differ in: {odd}. "
            "Give both folders the same sub-folders."
        )
    return test


def _part(index: FolderIndex, positions: np.ndarray) -> FolderIndex:
    paths = tuple(index.paths[position] for position in positions)
    return FolderIndex(index.directory, paths, index.labels[positions], index.class_names)


def _read_test(recipe: Recipe, index: FolderIndex, progress: Progress) -> tuple[Images, tuple[SkippedFile, ...]]:
    # Nothing is worth stopping for once the model is made: damaged test files are only named.
    decoded = _decode(recipe, index, progress, "test", max_bad_fraction=1.0)
    if len(decoded.kept) == 0:
        raise InputError(
            f"None of the {len(index.paths)} test images can be read, first {decoded.skipped[0]}. The "
            "trained model is kept as model.keras; mend the images and start anew with --overwrite."
        )
    return Images(decoded.images, index.labels[decoded.kept]), decoded.skipped


def _decode(
    recipe: Recipe, index: FolderIndex, progress: Progress, part: str, max_bad_fraction: float = 0.1
) -> DecodedImages:
    channels = 1 if recipe.color_mode == "grayscale" else 3
    size = (recipe.image_size, recipe.image_size)
    progress.say(f"{part} images: {len(index.paths)} files in {len(index.class_names)} classes")
    return decode_files(index.paths, size, channels, max_bad_fraction=max_bad_fraction, progress=progress)


def _check_every_class_left(part: str, labels: np.ndarray, class_names: tuple[str, ...]) -> None:
    for name, count in class_counts(labels, class_names).items():
        if count == 0:
            raise InputError(
                f"Class {name!r} has no readable {part} image left. Replace its damaged files or add images."
            )
