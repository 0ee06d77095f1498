"""What a run trains on: splits by class, damaged files named, and no look at a test image before the end."""

import re
import shutil

import numpy as np
import pytest
from image_folders import damage, noisy, write_images
from PIL import Image

from keras_opt.core.errors import InputError
from keras_opt.core.progress import Progress
from keras_opt.data import image_files
from keras_opt.recipes.images import prepare
from keras_opt.recipes.recipe import Recipe

QUIET = Progress(quiet=True)


def settings(folder, **changes):
    return Recipe(**{"data": str(folder), "image_size": 16, **changes})


@pytest.fixture
def folder(tmp_path):
    return write_images(tmp_path / "photos")


@pytest.fixture
def decoded(monkeypatch):
    """The paths decoded so far."""
    paths = []
    real = image_files.decode_image

    def record(path, *arguments):
        paths.append(path)
        return real(path, *arguments)

    monkeypatch.setattr(image_files, "decode_image", record)
    return paths


def test_every_file_is_in_one_part_and_the_test_part_is_read_last(folder, decoded):
    prepared = prepare(settings(folder), QUIET)
    before = set(decoded)
    assert len(before) == len(prepared.train) + len(prepared.validation) == 54
    test, skipped = prepared.read_test()
    later = set(decoded) - before
    assert len(later) == len(test) == 6
    assert before | later == set(folder.rglob("*.png"))
    assert skipped == ()
    assert prepared.class_counts(test.labels) == {"blue": 2, "green": 2, "red": 2}
    assert prepared.image_shape == (16, 16, 3)


def test_pixels_and_labels_belong_together(folder):
    prepared = prepare(settings(folder), QUIET)
    for part in (prepared.train, prepared.validation, prepared.read_test()[0]):
        channel = part.pixels.mean(axis=(1, 2)).argmax(axis=1)  # 0 red, 1 green, 2 blue
        np.testing.assert_array_equal(channel, 2 - part.labels)


def test_a_test_folder_leaves_every_image_of_the_other_for_development(folder, tmp_path, decoded):
    other = write_images(tmp_path / "other", count=4, first_seed=900)
    prepared = prepare(settings(folder, test=str(other)), QUIET)
    assert len(prepared.train) + len(prepared.validation) == 60
    assert not any(path.is_relative_to(other) for path in decoded)
    assert len(prepared.read_test()[0]) == 12


def test_a_test_folder_with_other_classes_is_refused(folder, tmp_path):
    other = write_images(tmp_path / "other", count=1)
    (other / "red").rename(other / "rot")
    with pytest.raises(ValueError, match=r"must have the classes of .*differ in: red, rot\. Give both"):
        prepare(settings(folder, test=str(other)), QUIET)


def test_the_training_folder_is_no_test_folder(folder):
    with pytest.raises(ValueError, match="is the folder of the training images"):
        prepare(settings(folder, test=f"{folder}/../photos"), QUIET)


def test_damaged_files_are_named_with_the_reason(folder):
    prepared = prepare(settings(folder), QUIET)
    assert prepared.skipped == ()
    for number, kind in enumerate(["truncated", "empty", "text"]):
        damage(folder / "red" / f"{number:03d}.png", kind)
    prepared = prepare(settings(folder), QUIET)
    skipped = {file.path.name: file.reason for file in prepared.skipped + prepared.read_test()[1]}
    assert set(skipped) == {"000.png", "001.png", "002.png"}
    assert "truncated" in skipped["000.png"]
    assert "not an image" in skipped["001.png"]


def test_the_tenth_is_counted_over_training_and_validation_together(folder):
    """Two damaged files of 54 are fine, also where both fall among the 11 validation images."""
    healthy = prepare(settings(folder), QUIET)
    files = sorted(folder.rglob("*.png"))
    pixels = {
        np.asarray(Image.open(file).resize((16, 16), Image.Resampling.BILINEAR)).tobytes(): file for file in files
    }
    for image in healthy.validation.pixels[:2]:
        damage(pixels[image.tobytes()], "truncated")
    prepared = prepare(settings(folder), QUIET)
    assert len(prepared.skipped) == 2
    assert len(prepared.validation) == len(healthy.validation) - 2
    np.testing.assert_array_equal(prepared.train.labels, healthy.train.labels)


def test_more_than_a_tenth_damaged_stops_with_the_list(folder):
    for number in range(9):
        damage(folder / "red" / f"{number:03d}.png", "truncated")
    with pytest.raises(ValueError, match=r"of 54 images cannot be read, more than the 10% .*red/00\d\.png \(.*Replace"):
        prepare(settings(folder), QUIET)


def test_a_class_whose_files_are_all_damaged_is_named(folder):
    shutil.rmtree(folder / "red")
    (folder / "red").mkdir()
    for number in range(3):
        noisy((200, 0, 0)).save(folder / "red" / f"{number}.png")
        damage(folder / "red" / f"{number}.png", "text")
    with pytest.raises(ValueError, match=r"Class 'red' has no readable training image left\. Replace"):
        prepare(settings(folder), QUIET)


def test_damaged_test_images_never_cost_the_finished_run(folder, tmp_path):
    other = write_images(tmp_path / "other", count=2, first_seed=900)
    for name in ("000.png", "001.png"):
        damage(other / "red" / name, "text")
    test, skipped = prepare(settings(folder, test=str(other)), QUIET).read_test()
    assert (len(test), len(skipped)) == (4, 2)


def test_test_images_that_are_all_damaged_are_an_error_with_the_cure(folder, tmp_path):
    other = write_images(tmp_path / "other", count=1)
    for path in other.rglob("*.png"):
        damage(path, "empty")
    prepared = prepare(settings(folder, test=str(other)), QUIET)
    with pytest.raises(ValueError, match=r"None of the 3 test images can be read, first .*000\.png.*--overwrite"):
        prepared.read_test()


@pytest.mark.parametrize("color_mode", ["rgb", "grayscale"])
def test_every_kind_of_image_file_is_read(folder, color_mode):
    red = folder / "red"
    image = noisy((200, 40, 40))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(red / "turned.jpg", exif=exif)
    image.convert("P").save(red / "palette.png")
    image.convert("RGBA").save(red / "transparent.png")
    image.save(red / "image.bmp")
    image.convert("P").save(red / "image.gif")
    Image.fromarray(np.full((20, 30), 40_000, np.uint16)).save(red / "grey16.png")
    prepared = prepare(settings(folder, color_mode=color_mode), QUIET)
    total = len(prepared.train) + len(prepared.validation) + len(prepared.read_test()[0])
    assert prepared.skipped == ()
    assert total == 66
    assert prepared.image_shape == (16, 16, 3 if color_mode == "rgb" else 1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: shutil.rmtree(folder), "does not exist. Give the path"),
        (lambda folder: [shutil.rmtree(path) for path in folder.iterdir()], "has no sub-folders. Make one"),
        (lambda folder: [shutil.rmtree(folder / name) for name in ("red", "blue")], "has only one class, 'green'. Add"),
        (lambda folder: [path.unlink() for path in folder.rglob("*.png")], "has no images in its sub-folders. Put"),
        (lambda folder: [path.unlink() for path in sorted((folder / "red").iterdir())[2:]], "'red' has 2 images, but"),
    ],
)
def test_a_folder_that_cannot_be_used_is_named_with_the_cure(folder, decoded, make, message):
    make(folder)
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        prepare(settings(folder), QUIET)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert decoded == []


def test_the_sample_is_split_and_its_test_images_read_at_the_end(monkeypatch):
    asked = []

    def load(split):
        asked.append(split)
        rows = {"train": 100, "test": 20}[split]
        return np.zeros((rows, 28, 28), np.uint8), (np.arange(rows) % 10).astype(np.uint8)

    monkeypatch.setattr("keras_opt.recipes.images.load_fashion_mnist_sample", load)
    prepared = prepare(Recipe.demo(), QUIET)
    assert (len(prepared.train), len(prepared.validation), asked) == (90, 10, ["train"])
    assert len(prepared.read_test()[0]) == 20
    assert asked == ["train", "test"]


def test_the_sample_has_one_size():
    with pytest.raises(ValueError, match=r"grey images of 28x28 pixels\. Received: image_size=224.*Recipe\.demo"):
        prepare(Recipe(), QUIET)


@pytest.mark.parametrize("name", ["a\nb", "caf\udce9"])
def test_a_class_folder_that_labels_cannot_name_is_refused_before_any_work(name, folder, decoded):
    next(folder.iterdir()).rename(folder / name)
    with pytest.raises(InputError, match=re.escape(f"Class folder {name!r} of '{folder}' cannot be a line of labels")):
        prepare(settings(folder), QUIET)
    assert not decoded
