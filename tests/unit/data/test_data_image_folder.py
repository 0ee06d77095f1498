"""A folder from files to `fit`: pixels, labels, split, weights, damaged files, seeds, errors."""

import os
import re
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from sklearn.utils.class_weight import compute_class_weight

from keras_opt.callbacks import BackupAndRestore
from keras_opt.core.errors import InputError
from keras_opt.data import image_files, image_folder
from keras_opt.data.decode import decode_image
from keras_opt.data.image_folder import DECODERS
from keras_opt.layers import MixUp
from keras_opt.layers.random_affine import RandomAffine

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
    assert train.skipped == []


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
    (folder / "ant" / "below").mkdir()
    below = folder / "ant" / "below" / "00.png"
    below.write_bytes((folder / "ant" / "00.png").read_bytes())
    message = r"image_folder: 3 of 61 files left out: 1 below their class, 2 damaged; see `\.skipped`\."
    with pytest.warns(UserWarning, match=message) as caught:
        train, validation = image_folder(folder, (5, 7), validation_split=0.2, label_mode="int", seed=0)
    assert caught[0].filename == __file__
    assert [file.path for file in train.skipped] == [*bad, below]
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


def test_too_many_damaged_files_of_which_some_are_found_late(folder):
    for index in range(4):
        (folder / "ant" / f"{index:02}.png").write_bytes(b"")
    train, _ = image_folder(folder, (5, 7), batch_size=56, cache="memory")
    for index in range(4, 7):
        (folder / "ant" / f"{index:02}.png").write_bytes(b"")
    with (
        pytest.raises(tf.errors.OpError, match="7 of 60 images cannot be read, more than the 10% that may be skipped"),
        pytest.warns(UserWarning, match="left out"),
    ):
        collect(train)


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
    assert all(isinstance(part.store._rows, np.memmap) for part in on_disk)
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


def test_layers_augment_the_training_set_only_but_rescale_and_resize_both(folder):
    layer = RandomAffine(rotation_degrees=90, rescale=1 / 255, output_size=(4, 3), fill_mode="constant")
    train, validation = image_folder(folder, (5, 7), 60, augment=layer, validation_split=0.2, seed=0)
    for part in (train, validation):
        assert part.element_spec[0].shape.as_list() == [None, 4, 3, 3]
        assert part.element_spec[0].dtype == tf.float32
    raw = image_folder(folder, (5, 7), validation_split=0.2, seed=0)[1]
    np.testing.assert_allclose(collect(validation)[0][:, 1, 1], collect(raw)[0][:, 2, 3] / 255, atol=1e-5)
    first, second = (collect(train)[0].astype(np.float64).sum(axis=(1, 2, 3)) for _ in range(2))
    assert not np.allclose(np.sort(first), np.sort(second))


def test_augment_true_is_an_affine_layer(folder):
    plain, _ = image_folder(folder, (5, 7), 60, seed=0)
    train, _ = image_folder(folder, (5, 7), 60, augment=True, seed=0)
    images = collect(train)[0]
    assert images.shape == (60, 5, 7, 3)
    np.testing.assert_allclose(images[:, 2, 3], collect(plain)[0][:, 2, 3], atol=1)  # of one colour, moved or not


def test_weights_are_made_before_mix_up_and_mixed_by_it(folder):
    train, _ = image_folder(folder, (5, 7), augment=MixUp(alpha=1.0), class_weight="balanced", seed=0)
    _, labels, weights, _ = collect(train)
    assert (np.abs(labels.sum(axis=1) - 1) < 1e-5).all()
    assert ((labels > 0.01).sum(axis=1) > 1).any()
    # With weight w of each class, a mix has the weight sum(share * w) and labels share * w / that sum.
    np.testing.assert_allclose(1 / weights, labels @ np.array([90 / 60, 60 / 60, 30 / 60]), rtol=1e-4)


def test_class_numbers_that_mix_up_makes_one_hot_are_so_in_validation_too(folder):
    mix_up = MixUp(alpha=1.0, num_classes=3)
    train, validation = image_folder(folder, 5, label_mode="int", augment=mix_up, validation_split=0.2, seed=0)
    assert train.element_spec[1].shape.as_list() == validation.element_spec[1].shape.as_list() == [None, 3]


def test_normalize_and_rescale_together_are_refused(folder):
    with pytest.raises(InputError, match="normalize='min_max' is for raw pixels, but a layer of `augment` rescales"):
        image_folder(folder, 5, augment=RandomAffine(rescale=1 / 255), normalize="min_max")


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
        (
            {"label_mode": "categoric"},
            "argument `label_mode` must be one of 'categorical', 'int', 'sparse', 'binary'. Received: ",
        ),
        ({"class_weight": {0: 1.0}}, "argument `class_weight` must be one of None, 'balanced'. Received: "),
        ({"color_mode": "rgba"}, "argument `color_mode` must be one of 'rgb', 'grayscale'. Received: "),
        ({"label_mode": None}, "argument `label_mode` must be one of 'categorical', 'int', "),
        ({"decode": "quick"}, "argument `decode` must be one of 'exact', 'fast', 'antialiased'. Received: "),
        ({"sampling": "even"}, "argument `sampling` must be one of None, 'balanced'. Received: sampling='even'."),
        ({"normalize": "scale"}, "argument `normalize` must be one of None, 'standard', 'min_max'. Received: "),
        ({"cache": True}, "argument `cache` must be 'auto', 'memory', None, or the path of a file in a folder that "),
        ({"cache": "no/such/folder/cache"}, "argument `cache` must be 'auto', 'memory', None, or the path of a file"),
        ({"augment": "flip"}, "argument `augment` must be "),
        ({"augment": []}, "argument `augment` must be a layer or a list of layers. Received: augment=()."),
        ({"augment": keras.layers.MixUp()}, "Keras's `MixUp` turns labels of shape (batch,) into (batch, batch) "),
        ({"label_mode": "binary"}, "argument `label_mode` must be 'categorical', 'int' or 'sparse' for a folder of"),
        (
            {"sampling": "balanced", "class_weight": "balanced"},
            "sampling='balanced' and class_weight='balanced' would ",
        ),
        ({"class_mode": "int", "label_mode": "int"}, "`class_mode` is another name for `label_mode`. Received: "),
        ({"target_size": 5, "image_size": 5}, "`target_size` is another name for `image_size`. Received: "),
        ({"on_error": "ignore"}, "argument `on_error` must be one of 'skip', 'raise'. Received: "),
        ({"cache": False}, "argument `cache` must be 'auto', 'memory', None, or the path of a file in a folder that "),
        ({"augment": False}, "argument `augment` must be layers, True or None. Received: augment=False. Give None"),
        ({"shuffel": True}, "unexpected argument `shuffel`. Choose from directory, image_size,"),
        ({"subset": "both"}, "unexpected argument `subset`. The call gives both parts: train, validation = "),
        ({"shuffle": False}, "unexpected argument `shuffle`. Training images are shuffled anew every epoch, "),
        ({"batchsize": 8}, "unexpected argument `batchsize`. Did you mean 'batch_size'?"),
        ({"seed": 1.5}, "argument `seed` must be an integer of at least 0. Received: seed=1.5."),
    ],
    ids=str,
)
def test_arguments(folder, options, message):
    with pytest.raises((InputError, TypeError), match="^" + re.escape(f"image_folder: {message}")):
        image_folder(folder, **options)


def test_names_of_keras_are_taken(folder):
    train, _ = image_folder(folder, target_size=(5, 7), class_mode="sparse", seed=0)
    _, labels, numbers = collect(train)
    np.testing.assert_array_equal(labels, class_of(numbers))
    with pytest.raises(InputError, match=r"Received: image_size=5 and target_size=\(5, 7\). Give one of them."):
        image_folder(folder, 5, target_size=(5, 7))


def test_two_classes_in_one_column(folder):
    shutil.rmtree(folder / "cat")
    train, _ = image_folder(folder, (5, 7), label_mode="binary", seed=0)
    _, labels, numbers = collect(train)
    assert labels.dtype == np.float32
    np.testing.assert_array_equal(labels, class_of(numbers)[:, np.newaxis])


def test_mixed_channels_become_what_was_asked_for(tmp_path):
    grey, red = np.full((4, 4), 77, np.uint8), Image.new("RGB", (4, 4), (200, 10, 20))
    pictures = {
        "grey": Image.fromarray(grey),
        "grey16": Image.fromarray(grey.astype(np.uint16) * 257),
        "rgb": red,
        "rgba": Image.merge("RGBA", (*red.split(), Image.new("L", (4, 4), 0))),
        "palette": red.convert("P", palette=Image.Palette.ADAPTIVE),
    }
    for name, picture in pictures.items():
        (tmp_path / name).mkdir()
        picture.save(tmp_path / name / "one.png")
    train, _ = image_folder(tmp_path, 4, label_mode="int", seed=0)
    images, labels, _ = collect(train)
    assert train.skipped == []
    for image, label in zip(images, labels, strict=True):
        expected = (77, 77, 77) if train.class_names[label].startswith("grey") else (200, 10, 20)
        np.testing.assert_array_equal(image, np.broadcast_to(np.array(expected), (4, 4, 3)))


@pytest.mark.parametrize("cache", ["memory", None, "file"])
@pytest.mark.parametrize("decode", ["exact", "fast"])
def test_every_cache_gives_the_same_images_in_every_epoch(folder, tmp_path_factory, cache, decode):
    file = tmp_path_factory.mktemp("cache") / "images"
    train, validation = image_folder(
        folder, (5, 7), validation_split=0.2, cache=file if cache == "file" else cache, decode=decode, seed=3
    )
    expected, same_split = image_folder(folder, (5, 7), validation_split=0.2, seed=3)
    for ours, peer in ((train, expected), (validation, same_split), (train, expected)):
        for column, expected_column in zip(collect(ours), collect(peer), strict=True):
            np.testing.assert_array_equal(column, expected_column)


def test_nothing_is_decoded_by_the_call_and_each_file_once(folder, monkeypatch):
    decoded = []
    monkeypatch.setitem(DECODERS, "exact", lambda path, *args: (decoded.append(path), decode_image(path, *args))[1])
    train, validation = image_folder(folder, 5, batch_size=8, validation_split=0.2, seed=0)
    assert decoded == []
    next(iter(train))
    assert len(decoded) < 60  # the first batch, and what the pipeline reads ahead
    for _ in range(2):
        collect(train)
        collect(validation)
    assert len(decoded) == len(set(decoded)) == 60


def test_balanced_sampling_shows_every_class_equally_often(folder):
    train, validation = image_folder(folder, (5, 7), 16, "int", validation_split=0.2, sampling="balanced", seed=1)
    epochs = [collect(train) for _ in range(2)]
    assert len(train) == 3
    for _, labels, numbers in epochs:
        assert np.bincount(labels).tolist() == [16, 16, 16]
        np.testing.assert_array_equal(labels, class_of(numbers))
    assert epochs[0][-1].tolist() != epochs[1][-1].tolist()
    assert train.class_counts == {"ant": 24, "bee": 16, "cat": 8}
    assert np.bincount(collect(validation)[1]).tolist() == [6, 4, 2]


@pytest.mark.parametrize("normalize", ["standard", "min_max"])
def test_normalization_is_a_layer_of_training_statistics_and_leaves_pixels_raw(folder, normalize):
    train, validation = image_folder(folder, 5, validation_split=0.2, normalize=normalize, seed=0)
    images = collect(train)[0]
    assert images.dtype == np.uint8
    assert train.normalization is validation.normalization
    normalized = keras.ops.convert_to_numpy(train.normalization(images))
    pixels = images.astype(np.float64)
    channels = (0, 1, 2)
    expected = (pixels - pixels.mean(channels)) / pixels.std(channels) if normalize == "standard" else pixels / 255
    np.testing.assert_allclose(normalized, expected, atol=1e-5)


def middle_damaged(folder, name="ant/03.png"):
    """A file whose two ends look whole."""
    path = folder / name
    noise = np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)
    Image.fromarray(noise).save(path)
    content = bytearray(path.read_bytes())
    content[1000:1400] = bytes(400)
    path.write_bytes(content)
    return path


def test_damage_in_the_middle_of_a_file_is_found_when_it_is_read(folder):
    bad = middle_damaged(folder)
    train, _ = image_folder(folder, (5, 7), seed=0)
    assert train.skipped == []
    with pytest.warns(UserWarning, match=rf"left out the damaged image {re.escape(str(bad))}"):
        numbers = collect(train)[-1]
    assert sorted(numbers) == [number for number in range(60) if number != 3]
    assert [file.path for file in train.skipped] == [bad]
    assert sorted(collect(train)[-1]) == sorted(numbers)
    assert len(train.skipped) == 1
    strict, _ = image_folder(folder, (5, 7), on_error="raise", seed=0)
    with pytest.raises(tf.errors.OpError, match=rf"InputError: Cannot read image {re.escape(str(bad))}"):
        collect(strict)


@pytest.mark.parametrize("decode", ["exact", "fast"])
def test_a_damaged_jpeg_costs_its_batch_no_other_image(tmp_path, decode):
    for number in range(24):
        (tmp_path / f"class_{number % 2}").mkdir(exist_ok=True)
        Image.new("RGB", (7, 5), (10 * number,) * 3).save(tmp_path / f"class_{number % 2}" / f"{number:02}.jpg")
    train, _ = image_folder(tmp_path, (5, 7), batch_size=24, decode=decode, cache=None, seed=0)
    bad = tmp_path / "class_1" / "05.jpg"
    bad.write_bytes(bad.read_bytes()[:200])
    with pytest.warns(UserWarning, match=rf"left out the damaged image {re.escape(str(bad))}"):
        images = collect(train)[0]
    for found in (images, collect(train)[0]):
        expected = [10 * number for number in range(24) if number != 5]
        np.testing.assert_allclose(np.sort(found[:, 2, 3, 0].astype(int)), expected, atol=1)
    assert [file.path for file in train.skipped] == [bad]


@pytest.mark.parametrize("cache", [None, "images.cache"])
@pytest.mark.parametrize("decode", ["exact", "fast", "antialiased"])
def test_a_name_that_is_no_utf_8_is_read_as_any_other(tmp_path, monkeypatch, decode, cache):
    monkeypatch.chdir(tmp_path)
    for place in ("a", "b"):
        (tmp_path / "photos" / place).mkdir(parents=True)
        Image.new("RGB", (7, 5), (90, 90, 90)).save(tmp_path / "photos" / place / os.fsdecode(b"caf\xe9.jpg"))
    train, _ = image_folder("photos", (5, 7), decode=decode, cache=cache)
    assert [len(images) for images, _ in train] == [2]
    assert train.skipped == []


class BreakOff(keras.callbacks.Callback):
    """Breaks a training off in the second of three epochs of eight batches."""

    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.optimizer.iterations) == 11:
            raise KeyboardInterrupt


def test_a_training_broken_off_inside_an_epoch_goes_on_bit_by_bit(folder, tmp_path_factory):
    backups = tmp_path_factory.mktemp("backups")

    def fit(callbacks):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((5, 5, 3)), keras.layers.Flatten(), keras.layers.Dense(3)])
        model.compile(keras.optimizers.SGD(1e-5), "mse")
        bright = keras.layers.RandomBrightness(0.5)
        train, validation = image_folder(
            folder, 5, batch_size=6, augment=bright, validation_split=0.2, sampling="balanced", seed=2
        )
        model.fit(train, validation_data=validation, epochs=3, verbose=0, shuffle=False, callbacks=callbacks)
        return model.get_weights()

    expected = fit([])
    with pytest.raises(KeyboardInterrupt):
        fit([BackupAndRestore(backups, save_freq=1), BreakOff()])
    for ours, whole in zip(fit([BackupAndRestore(backups, save_freq=1)]), expected, strict=True):
        np.testing.assert_array_equal(ours, whole)


def test_a_fresh_copy_begins_anew_and_moves_nothing(folder):
    train, _ = image_folder(folder, (5, 7), seed=4)
    first, second = [collect(train)[-1].tolist() for _ in range(2)]
    assert [collect(train.fresh_copy())[-1].tolist() for _ in range(2)] == [first, first]
    again, _ = image_folder(folder, (5, 7), seed=4)
    assert [collect(again)[-1].tolist() for _ in range(2)] == [first, second]


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
