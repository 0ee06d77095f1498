"""RandomAffine's warp against SciPy and OpenCV, its flips against their shares, masks and boxes against pixels."""

from pathlib import Path

import keras
import numpy as np
import pytest
import scipy.ndimage
import tensorflow as tf
from tensorflow.keras.preprocessing.image import ImageDataGenerator

from keras_opt.layers import RandomAffine
from keras_opt.layers.affine_matrices import about_centres, compose, rotations, scales, shears, shifts
from keras_opt.layers.warp import warp

SCIPY_MODES = {"nearest": "nearest", "reflect": "reflect", "constant": "grid-constant", "wrap": "grid-wrap"}
SIZE = (37, 50)
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (4, *SIZE, 3)).astype("uint8")
# Made by tests/oracle/make_warp_affine_fixture.py.
OPENCV = Path(__file__).with_name("warp_affine_opencv.npz")


def drawn_matrices(output_size=SIZE, count=4):
    def between(bound):
        return tf.constant(RNG.uniform(-bound, bound, count), "float32")

    parts = rotations(between(40)), shifts(between(10), between(10)), shears(between(20))
    return about_centres(compose(*parts, scales(1 + between(0.3), 1 + between(0.3))), SIZE, output_size)


def by_scipy(images, matrices, size, order, mode):
    """The same in float64: SciPy's points are (row, column)."""
    seen = np.empty((len(images), *size, images.shape[-1]))
    for number, matrix in enumerate(np.asarray(matrices, "float64")):
        linear, offset = matrix[:2, :2][::-1, ::-1], matrix[:2, 2][::-1]
        for channel in range(images.shape[-1]):
            seen[number, ..., channel] = scipy.ndimage.affine_transform(
                images[number, ..., channel].astype("float64"), linear, offset, size, order=order, mode=mode, cval=7
            )
    return seen


@pytest.mark.parametrize(
    ("fill_mode", "output_size"),
    [("nearest", None), ("reflect", None), ("constant", None), ("wrap", None), ("constant", (25, 60))],
)
def test_the_warp_equals_scipy(fill_mode, output_size):
    matrices = drawn_matrices(output_size or SIZE)
    expected = by_scipy(IMAGES, matrices, output_size or SIZE, 1, SCIPY_MODES[fill_mode])
    floats = warp(IMAGES, matrices, output_size, "bilinear", fill_mode, 7.0, rescale=1.0)
    np.testing.assert_allclose(floats, expected, atol=0.002)  # grey levels
    rounded = warp(IMAGES, matrices, output_size, "bilinear", fill_mode, 7.0).numpy()
    assert rounded.dtype == "uint8"
    assert abs(rounded - expected).max() < 0.502
    assert abs((rounded - expected).mean()) < 0.01


@pytest.mark.parametrize("fill_mode", SCIPY_MODES)
def test_the_nearest_pixels_are_scipys(fill_mode):
    matrices = drawn_matrices()
    seen = warp(IMAGES, matrices, None, "nearest", fill_mode, 7.0)
    np.testing.assert_array_equal(seen, by_scipy(IMAGES, matrices, SIZE, 0, SCIPY_MODES[fill_mode]))


@pytest.mark.parametrize("channels", [1, 4])
def test_any_number_of_channels_of_bytes_and_of_floats_equals_scipy(channels):
    images = RNG.integers(0, 256, (2, *SIZE, channels)).astype("uint8")
    matrices = drawn_matrices(count=2)
    expected = by_scipy(images, matrices, SIZE, 1, "nearest")
    np.testing.assert_allclose(warp(images, matrices, rescale=1.0), expected, atol=0.002)
    np.testing.assert_allclose(warp(images.astype("float32"), matrices), expected, atol=0.002)


def test_the_warp_equals_opencv():
    with np.load(OPENCV) as fixture:
        seen = warp(fixture["images"], fixture["matrices"], rescale=1.0)
        np.testing.assert_allclose(seen, fixture["seen"], atol=0.255)
        np.testing.assert_allclose(np.mean(seen - fixture["seen"]), 0, atol=0.05)


def test_bytes_are_seen_without_bias():
    images = RNG.integers(0, 256, (8, 64, 64, 3)).astype("uint8")
    matrices = about_centres(rotations(tf.linspace(1.0, 40.0, 8)), (64, 64), (64, 64))
    bias = warp(images, matrices).numpy() - warp(images.astype("float32"), matrices).numpy()
    assert abs(bias.mean()) <= 0.05


@pytest.mark.filterwarnings("ignore:Please import")
def test_the_parts_are_composed_as_image_data_generator_does():
    """On a square: it takes height for width. It measures shifts to the left and up."""
    image = IMAGES[0, :, :37].astype("float32")
    parameters = {"theta": 25, "tx": 3, "ty": -4, "shear": 15, "zx": 0.8, "zy": 0.8}
    layer = RandomAffine((25, 25), (-3, -3), (4, 4), (-0.2, -0.2), (15, 15))
    expected = ImageDataGenerator().apply_transform(image, parameters)
    np.testing.assert_allclose(layer.transform(image, tf.constant([1, 2])), expected, atol=0.01)


def test_both_flips_are_drawn_independently_for_each_image():
    corner = np.zeros((10_000, 2, 2, 1), "uint8")
    corner[:, 0, 0] = 1
    layer = RandomAffine(horizontal_flip=True, vertical_flip=True, interpolation="nearest")
    seen = layer.transform(corner, tf.constant([5, 6])).numpy()[..., 0]
    assert (seen.sum((1, 2)) == 1).all()
    np.testing.assert_allclose(seen.mean(0), np.full((2, 2), 0.25), atol=0.02)


def test_keras_draws_one_coin_for_both_flips():
    """The fault that is cured: Keras never flips one axis alone."""
    corner = np.zeros((1000, 2, 2, 1), "float32")
    corner[:, 0, 0] = 1
    seen = np.asarray(keras.layers.RandomFlip("horizontal_and_vertical", seed=1)(corner, training=True))[..., 0]
    assert seen[:, 0, 1].sum() == seen[:, 1, 0].sum() == 0


def test_masks_boxes_and_keypoints_move_with_the_pixels():
    height, width = 64, 80
    images = np.zeros((6, height, width, 1), "uint8")
    images[:, 20:31, 40:53] = 255
    ones = np.ones((6, 1))
    fields = {
        "images": images,
        "segmentation_masks": images // 255,
        "keypoints": np.tile([[[46.0, 25.0]]], (6, 1, 1)),
        "bounding_boxes": {"boxes": np.tile([[[40.0, 20, 53, 31]]], (6, 1, 1)), "labels": ones},
    }
    layer = RandomAffine(
        20, 0.1, 0.1, 0.2, 10, True, True, "constant", output_size=(60, 90), bounding_box_format="xyxy"
    )
    seen = layer.transform(fields, tf.constant([1, 2]))
    for number in range(6):
        bright = seen["images"].numpy()[number, ..., 0]
        rows, columns = np.nonzero(bright > 127)
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(seen["bounding_boxes"]["boxes"][number, 0], box, atol=1.3)
        np.testing.assert_allclose(seen["keypoints"][number, 0], [columns.mean(), rows.mean()], atol=0.5)
        mask = seen["segmentation_masks"].numpy()[number, ..., 0]
        assert set(np.unique(mask)) == {0, 1}
        assert (mask == (bright > 127)).mean() > 0.995


def test_a_key_gives_the_same_images_eagerly_in_tf_data_and_under_xla():
    layer = RandomAffine(20, 0.2, 0.2, 0.1, 10, True, True, rescale=1 / 255)
    key = tf.constant([3, 4])
    eager = layer.transform(IMAGES, key)
    in_a_dataset = next(iter(tf.data.Dataset.from_tensors(IMAGES).map(lambda images: layer.transform(images, key))))
    under_xla = tf.function(lambda images: layer.transform(images, key), jit_compile=True)(IMAGES)
    np.testing.assert_allclose(in_a_dataset, eager, atol=1e-4)
    np.testing.assert_allclose(under_xla, eager, atol=1e-4)
