"""The images of `image_folder` are those of Keras's `image_dataset_from_directory`, to the rounding of uint8."""

import keras
import numpy as np
import pytest
from PIL import Image

from keras_opt.data import image_folder
from keras_opt.data.decode import decode_image
from keras_opt.data.decode_like_keras import decode_fast, decode_like_keras

SIZE = (24, 32)


def smooth(seed, height, width):
    """An image whose amplitude falls with the frequency, as that of photographs does."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = 1

    def waves():
        return np.exp(2j * np.pi * rng.random(frequency.shape)) / frequency**1.2

    grey = waves()
    fields = [np.fft.irfft2(grey + 0.3 * waves(), (height, width)) for _ in range(3)]
    image = np.stack([128 + 50 * field / field.std() for field in fields], axis=-1)
    return Image.fromarray(np.clip(image, 0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twelve images in two classes: larger and smaller than asked for, JPEG, PNG and BMP, colours and grey."""
    folder = tmp_path_factory.mktemp("images")
    for number in range(12):
        place = folder / f"class_{number % 2}"
        place.mkdir(exist_ok=True)
        image = smooth(number, 40 + 15 * number, 150 - 10 * number)
        if number % 5 == 4:
            image = image.convert("L")
        image.save(place / f"{number:02}.{('jpg', 'jpg', 'png', 'bmp')[number // 2 % 4]}")
    return folder


def test_exact_decoding_gives_the_pixels_of_keras(folder):
    batches = keras.utils.image_dataset_from_directory(
        folder, image_size=SIZE, batch_size=12, shuffle=False, verbose=False
    )
    train, _ = image_folder(folder, SIZE, 12, seed=0)
    found = np.concatenate([images for images, _ in train]).astype(np.float64)
    for image in np.concatenate([images for images, _ in batches]):  # in whatever order ours are
        assert np.abs(found - image).max(axis=(1, 2, 3)).min() <= 0.51


@pytest.mark.parametrize("decode", [decode_like_keras, decode_fast])
def test_a_photograph_of_a_phone_is_its_first_picture(tmp_path, decode):
    smooth(0, 90, 60).save(tmp_path / "one.jpg")
    smooth(0, 90, 60).save(tmp_path / "two.jpg", format="MPO", save_all=True, append_images=[smooth(1, 90, 60)])
    one, two = (decode(tmp_path / name, (50, 40), 3) for name in ("one.jpg", "two.jpg"))
    np.testing.assert_array_equal(one, two)


def test_fast_decoding_is_within_its_stated_error(tmp_path):
    distances = {"fast": [], "keras": []}
    for size in ((60, 80), (30, 30), (113, 148), (113, 100), (56, 74)):  # ratios 2, 4, and both where they fall short
        for seed in range(4):
            smooth(seed, 190, 250).save(tmp_path / "image.jpg", quality=90)
            antialiased = decode_image(tmp_path / "image.jpg", size, 3).astype(np.float64)
            distances["fast"].append(np.abs(decode_fast(tmp_path / "image.jpg", size, 3) - antialiased).mean())
            distances["keras"].append(np.abs(decode_like_keras(tmp_path / "image.jpg", size, 3) - antialiased).mean())
    assert (np.array(distances["fast"]) < np.array(distances["keras"])).all()
    smooth(9, 190, 250).save(tmp_path / "image.jpg", quality=90)
    full = [
        decode(tmp_path / "image.jpg", (120, 160), 3).astype(np.float64) for decode in (decode_fast, decode_like_keras)
    ]
    assert np.abs(full[0] - full[1]).mean() < 2


@pytest.mark.parametrize("decode", [decode_like_keras, decode_fast])
def test_a_turned_jpeg_stands_upright(tmp_path, decode):
    upright = smooth(0, 90, 60)
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.save(tmp_path / "upright.jpg", quality=95)
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    expected = decode_like_keras(tmp_path / "upright.jpg", (30, 20), 3).astype(float)
    found = decode(tmp_path / "turned.jpg", (30, 20), 3)
    assert np.abs(found - expected).mean() < 4
    assert np.abs(found[::-1] - expected).mean() > 20
