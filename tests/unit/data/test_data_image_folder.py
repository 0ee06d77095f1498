"""A folder from files to `fit`: pixels, labels, split, weights, damaged files, seeds, errors."""

import re

import keras
import numpy as np
import pytest
from PIL import Image
from sklearn.utils.class_weight import compute_class_weight

from keras_opt.core.errors import InputError
from keras_opt.data import image_files, image_folder

COUNTS = {"ant": 30, "bee": 20, "cat": 10}
CLASSES = tuple(COUNTS)


@pytest.fixture
def folder(tmp_path):
    """Sixty 5x7 images; number n in file order is filled with the colour (n, 2n, 3n)."""
    number = 0
    for name, count in COUNTS.items():
        (tmp_path / name).mkdir()
        for index in range(count):
            Image.new("RGB", (7, 5), (number, 2 * number, 3 * number)).save(tmp_path / name / f"{index:02}.png")
            number += 1
    return tmp_path


def collect(dataset):
    """All columns of one pass, and the number of each image (its red)."""
    columns = [np.concatenate(parts) for parts in zip(*[[c.numpy() for c in batch] for batch in dataset], strict=True)]
    return *columns, columns[0][:, 0, 0, 0].astype(int)


def class_of(numbers):
    return np.searchsorted([30, 50, 60], numbers, side="right")


def test_whole_folder_without_a_split(folder):
    train, validation = image_folder(folder, image_size=(5, 7), batch_size=16)
    assert validation is None
    assert train.cardinality() == 4
    images, labels, numbers = collect(train)
    assert images.dtype == np.uint8
    assert images.shape == (60, 5, 7, 3)
    assert sorted(numbers) == list(range(60))
    np.testing.assert_array_equal(images[:, 2, 3], np.outer(numbers, [1, 2, 3]))
    assert labels.dtype == np.float32
    np.testing.assert_array_equal(labels, np.eye(3)[class_of(numbers)])
    assert train.class_names == CLASSES
    assert train.class_counts == COUNTS
    assert train.skipped == ()


def test_split_keeps_the_share_of_every_class_and_doubles_no_image(folder):
    train, validation = image_folder(folder, (5, 7), validation_split=0.2, label_mode="int", seed=0)
    assert train.class_counts == {"ant": 24, "bee": 16, "cat": 8}
    assert validation.class_counts == {"ant": 6, "bee": 4, "cat": 2}
    assert validation.class_names == CLASSES
    seen = []
    for part in (train, validation):
        _, labels, numbers = collect(part)
        assert labels.dtype == np.int32
        np.testing.assert_array_equal(labels, class_of(numbers))
        np.testing.assert_array_equal(np.bincount(labels), list(part.class_counts.values()))
        seen += numbers.tolist()
    assert sorted(seen) == list(range(60))


def numbers_of(folder, epochs=3, **options):
    train, validation = image_folder(folder, (5, 7), validation_split=0.25, **options)
    return [[collect(part)[-1].tolist() for _ in range(epochs)] for part in (train, validation)]


def test_seed_decides_split_and_orders(folder):
    train, validation = numbers_of(folder, seed=4)
    assert [train, validation] == numbers_of(folder, seed=4)
    assert train[0] != train[1] != train[2] != train[0]
    assert validation[0] == validation[1]
    other_train, other_validation = numbers_of(folder, seed=5)
    assert set(validation[0]) != set(other_validation[0])
    assert train[0] != other_train[0]


def test_without_a_seed_it_follows_set_random_seed(folder):
    seen = []
    for seed in (1, 1, 2):
        keras.utils.set_random_seed(seed)
        seen.append(numbers_of(folder))
    assert seen[0] == seen[1]
    for part in (0, 1):
        assert set(seen[0][part][0]) != set(seen[2][part][0])


def test_balanced_weights_in_training_only(folder):
    train, validation = image_folder(folder, 5, validation_split=0.2, class_weight="balanced", seed=0)
    _, labels, weights, _ = collect(train)
    labels = labels.argmax(axis=1)
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    np.testing.assert_allclose(weights, expected[labels], rtol=1e-6)
    assert len(validation.element_spec) == 2


def test_grayscale_and_one_number_for_the_size(folder):
    train, _ = image_folder(folder, image_size=3, color_mode="grayscale")
    images, _, _ = collect(train)
    assert images.shape == (60, 3, 3, 1)
    grey = [round(0.299 * n + 0.587 * 2 * n + 0.114 * (3 * n)) for n in range(60)]
    np.testing.assert_allclose(np.sort(images[:, 1, 1, 0]), grey, atol=1)


def test_files_of_other_kinds_are_named_and_are_no_damage(folder):
    (folder / "ant" / "new.webp").write_bytes(b"webp")
    train, _ = image_folder(folder, (5, 7), on_error="raise")
    assert [(file.path, file.reason) for file in train.skipped] == [
        (folder / "ant" / "new.webp", "not read: .webp; use JPEG, PNG, BMP or GIF")
    ]


def test_damaged_files_are_left_out_and_named_on_both_sets(folder):
    bad = [folder / "ant" / "03.png", folder / "cat" / "09.png"]
    bad[0].write_bytes(bad[0].read_bytes()[:50])
    bad[1].write_text("no image")
    train, validation = image_folder(folder, (5, 7), validation_split=0.2, label_mode="int", seed=0)
    assert sorted(file.path for file in train.skipped) == bad
    assert all(file.reason for file in train.skipped)
    assert validation.skipped == train.skipped
    numbers, counts = [], np.zeros(3, int)
    for part in (train, validation):
        _, labels, part_numbers = collect(part)
        np.testing.assert_array_equal(labels, class_of(part_numbers))
        numbers += part_numbers.tolist()
        counts += list(part.class_counts.values())
    assert sorted(numbers) == [number for number in range(60) if number not in (3, 59)]
    assert counts.tolist() == [29, 20, 9]


def test_damaged_file_stops_on_error_raise(folder):
    bad = folder / "bee" / "00.png"
    bad.write_bytes(b"")
    with pytest.raises(InputError, match=rf"Cannot read image {re.escape(str(bad))} \(cannot identify image file"):
        image_folder(folder, 5, on_error="raise")


def test_too_many_damaged_files(folder):
    for index in range(7):
        (folder / "ant" / f"{index:02}.png").write_bytes(b"")
    with pytest.raises(InputError, match="7 of 60 images cannot be read, more than the 10% that may be skipped: "):
        image_folder(folder, 5)


def test_class_whose_only_held_out_image_is_damaged(folder):
    for path in sorted((folder / "cat").iterdir())[2:]:
        path.unlink()
    for name, part in (("00.png", "training"), ("01.png", "validation")):
        content = (folder / "cat" / name).read_bytes()
        (folder / "cat" / name).write_bytes(b"")
        messages = set()
        for seed in range(6):
            with pytest.raises(InputError) as caught:
                image_folder(folder, 5, validation_split=0.2, seed=seed)
            messages.add(str(caught.value))
        assert any(
            message == f"Class 'cat' has no readable image left in the {part} set. "
            "Replace its damaged files or add images."
            for message in messages
        )
        (folder / "cat" / name).write_bytes(content)


def test_folder_larger_than_memory_gives_the_same_batches(folder, monkeypatch):
    options = {"image_size": 5, "validation_split": 0.2, "class_weight": "balanced", "seed": 2}
    in_memory = image_folder(folder, **options)
    monkeypatch.setattr(image_files, "MEMORY_LIMIT_BYTES", 0)
    on_disk = image_folder(folder, **options)
    assert all(part.memmaps for part in on_disk)
    for ours, expected in zip(on_disk, in_memory, strict=True):
        for column, expected_column in zip(collect(ours), collect(expected), strict=True):
            np.testing.assert_array_equal(column, expected_column)


def test_fit_evaluate_and_predict_take_it(folder):
    train, validation = image_folder(folder, 5, validation_split=0.2, class_weight="balanced", seed=0)
    model = keras.Sequential(
        [keras.Input((5, 5, 3)), keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), keras.layers.Dense(3)]
    )
    model.compile("adam", keras.losses.CategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    history = model.fit(train, validation_data=validation, epochs=2, verbose=0, shuffle=False)
    assert set(history.history) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    assert model.predict(validation, verbose=0).shape == (12, 3)


SIZE_MESSAGE = "argument `image_size` must be an integer of at least 1, or a pair (height, width) of such. Received: "


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *[
            ({"image_size": size}, f"{SIZE_MESSAGE}image_size={size!r}. Give for example 224 or (160, 224).")
            for size in (0, True, 1.5, (224,), (224, 0), (224, 224, 3), "224", None)
        ],
        ({"batch_size": 0}, "argument `batch_size` must be an integer of at least 1. Received: batch_size=0."),
        ({"validation_split": 1}, "argument `validation_split` must be a fraction in [0, 1). Received: "),
        ({"validation_split": 20}, "argument `validation_split` must be a fraction in [0, 1). Received: "),
        ({"validation_split": -0.1}, "argument `validation_split` must be a fraction in [0, 1). Received: "),
        ({"label_mode": "categoric"}, "argument `label_mode` must be one of 'categorical', 'int'. Received: "),
        ({"class_weight": {0: 1.0}}, "argument `class_weight` must be one of None, 'balanced'. Received: "),
        ({"color_mode": "rgba"}, "argument `color_mode` must be one of 'rgb', 'grayscale'. Received: "),
        ({"on_error": "ignore"}, "argument `on_error` must be one of 'skip', 'raise'. Received: "),
        ({"seed": 1.5}, "argument `seed` must be an integer of at least 0. Received: seed=1.5."),
    ],
    ids=str,
)
def test_arguments(folder, options, message):
    with pytest.raises(InputError, match="^" + re.escape(f"image_folder: {message}")):
        image_folder(folder, **options)


def test_class_with_one_image_cannot_be_split(folder):
    for path in sorted((folder / "cat").iterdir())[1:]:
        path.unlink()
    with pytest.raises(InputError, match="Class 'cat' has 1 image, but the split needs at least 2"):
        image_folder(folder, 5, validation_split=0.2)
    train, _ = image_folder(folder, 5)
    assert train.class_counts["cat"] == 1


def test_missing_folder(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        image_folder(tmp_path / "none")
