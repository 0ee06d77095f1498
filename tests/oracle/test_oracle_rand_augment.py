"""RandAugment: its colour operations against Pillow, the moved image against SciPy, what is drawn against chance."""

import keras
import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps

from keras_opt.layers import RandAugment, colour_operations
from keras_opt.layers.drawn_operations import OPERATIONS, Drawn, draw, on_colours, recolour, views

RNG = np.random.default_rng(0)
IMAGES = {
    "all levels": RNG.integers(0, 256, (13, 17, 3), "uint8"),
    "few levels": RNG.integers(40, 60, (13, 17, 3), "uint8"),
    "skewed": (255 * RNG.beta(2, 6, (40, 33, 3))).astype("uint8"),
    "grey": RNG.integers(10, 99, (13, 17, 1), "uint8"),
    "one level": np.full((5, 4, 3), 9, "uint8"),
    "one row": RNG.integers(0, 256, (1, 6, 3), "uint8"),
}
FACTORS = [0.1, 0.73, 1.0, 1.28, 1.9]
PILLOW = {
    "brightness": (lambda image, factor: ImageEnhance.Brightness(image).enhance(factor), FACTORS),
    "contrast": (lambda image, factor: ImageEnhance.Contrast(image).enhance(factor), FACTORS),
    "color": (lambda image, factor: ImageEnhance.Color(image).enhance(factor), FACTORS),
    "sharpness": (lambda image, factor: ImageEnhance.Sharpness(image).enhance(factor), FACTORS),
    "posterize": (ImageOps.posterize, [1, 4, 7, 8]),
    "solarize": (ImageOps.solarize, [0.0, 1.0, 100.0, 256.0]),
    "auto_contrast": (lambda image, _: ImageOps.autocontrast(image), [None]),
    "equalize": (lambda image, _: ImageOps.equalize(image), [None]),
}
EXACT = ("posterize", "solarize", "equalize")


def in_pillow(operation, image, parameter):
    grey = image.shape[-1] == 1
    changed = operation(Image.fromarray(image[..., 0] if grey else image), parameter)
    return np.asarray(changed).reshape(image.shape).astype(int)


@pytest.mark.parametrize("name", PILLOW)
def test_a_colour_operation_is_pillows_but_rounded(name):
    operation, parameters = PILLOW[name]
    for image in IMAGES.values():
        for parameter in parameters:
            given = () if parameter is None else (tf.constant(parameter),)
            ours = np.asarray(getattr(colour_operations, name)(tf.constant(image), *given)).astype(int)
            above = ours - in_pillow(operation, image, parameter)
            assert above.min() >= 0
            assert above.max() <= (0 if name in EXACT else 1)


@pytest.mark.parametrize("name", PILLOW)
def test_a_strength_is_the_papers_share_of_the_greatest_change(name):
    image = IMAGES["skewed"]
    for strength, bits in ((0.3, 7), (1.0, 4)):
        parameter = {"solarize": 256 * (1 - strength), "posterize": bits}.get(name, 1 + 0.9 * strength)
        drawn = Drawn(tf.constant([OPERATIONS.index(name)]), tf.constant([strength]))
        off = np.abs(np.asarray(recolour(image, drawn)) - in_pillow(PILLOW[name][0], image, parameter))
        assert off.max() <= 1


def test_the_colour_operations_act_in_the_order_drawn():
    image = IMAGES["skewed"]
    for first, second in (("equalize", "brightness"), ("brightness", "equalize"), ("sharpness", "contrast")):
        drawn = Drawn(tf.constant([OPERATIONS.index(first), OPERATIONS.index(second)]), tf.constant([0.9, 0.9]))
        expected = tf.constant(image)
        for name in (first, second):
            given = () if name == "equalize" else (1 + 0.9 * 0.9,)
            expected = getattr(colour_operations, name)(expected, *given)
        np.testing.assert_array_equal(recolour(image, drawn), expected)


def moved(image, matrix, order):
    """A view of an image (H, W, C), in SciPy; its axes are rows first."""
    swapped = matrix[[1, 0, 2]][:, [1, 0, 2]]
    channels = [
        scipy.ndimage.affine_transform(channel.astype(float), swapped, order=order, mode="reflect")
        for channel in np.moveaxis(image, -1, 0)
    ]
    return np.stack(channels, axis=-1)


def test_the_whole_layer_is_pillow_and_scipy_image_by_image():
    """Operation by operation for each image of a batch, all colours first and then one view, as documented."""
    images, key = RNG.integers(0, 256, (24, 20, 20, 3), "uint8"), tf.constant((3, 4), "int32")
    ours = np.asarray(RandAugment(num_ops=3, factor=(0.2, 0.8)).transform(images, key))
    drawn = draw(key, 24, 3, (0.2, 0.8))
    matrices = np.asarray(views(drawn, (20, 20)))
    assert 0 < np.asarray(tf.reduce_any(on_colours(drawn), axis=1)).sum() < 24
    for image, operations, strengths, matrix, result in zip(
        images, *map(np.asarray, drawn), matrices, ours, strict=True
    ):
        expected = image
        for operation, strength in zip(operations, strengths, strict=True):
            expected = np.asarray(recolour(expected, Drawn(tf.constant([operation]), tf.constant([strength]))))
        if operations.max() > OPERATIONS.index("sharpness"):
            expected = moved(expected, matrix, order=1)
        np.testing.assert_allclose(result, expected, atol=0.02)


@pytest.mark.parametrize(
    ("name", "point", "seen_at"),
    [
        ("rotate", (30, 20), (20 + 10 * np.cos(np.pi / 6), 20 - 10 * np.sin(np.pi / 6))),  # counter-clockwise
        ("shear_x", (20, 30), (20 - 0.3 * 10, 30)),
        ("shear_y", (30, 20), (30, 20 - 0.3 * 10)),
        ("translate_x", (20, 20), (20 + 41 * 150 / 331, 20)),
        ("translate_y", (20, 20), (20, 20 + 41 * 150 / 331)),
    ],
)
def test_a_geometric_operation_moves_a_point_by_the_papers_greatest_amount(name, point, seen_at):
    drawn = Drawn(tf.constant([[OPERATIONS.index(name)]]), tf.constant([[1.0]]))
    matrix = np.asarray(views(drawn, (41, 41)))[0]
    np.testing.assert_allclose(matrix @ [*seen_at, 1], [*point, 1], atol=1e-4)


def test_geometric_operations_are_merged_in_the_order_drawn():
    places = [OPERATIONS.index(name) for name in ("rotate", "translate_x")]
    both, swapped = (views(Drawn(tf.constant([o]), tf.ones((1, 2))), (41, 41)) for o in (places, places[::-1]))
    turn, shift = (views(Drawn(tf.constant([[o]]), tf.ones((1, 1))), (41, 41)) for o in places)
    np.testing.assert_allclose(both, turn @ shift, atol=1e-4)
    np.testing.assert_allclose(swapped, shift @ turn, atol=1e-4)
    assert np.abs(both - swapped).max() > 1


def test_every_operation_is_drawn_as_often_and_independent_of_the_one_before():
    operations, strengths = map(np.asarray, draw(tf.constant((7, 8), "int32"), 20_000, 2, (0.2, 0.6)))
    counts = np.zeros((14, 14))
    np.add.at(counts, tuple(operations.T), 1)
    assert scipy.stats.chisquare(counts.sum(0)).pvalue > 0.01
    assert scipy.stats.chisquare(counts.sum(1)).pvalue > 0.01
    assert scipy.stats.chi2_contingency(counts).pvalue > 0.01
    signs = [np.bincount(operations[strengths > 0], minlength=14), np.bincount(operations[strengths < 0], minlength=14)]
    assert scipy.stats.chi2_contingency(signs).pvalue > 0.01
    assert scipy.stats.kstest(np.abs(strengths[:, 0]), "uniform", (0.2, 0.4)).pvalue > 0.01
    assert scipy.stats.binomtest(int((strengths > 0).sum()), 40_000).pvalue > 0.01
    assert abs(scipy.stats.pearsonr(strengths[:, 0], strengths[:, 1]).statistic) < 0.02


def test_images_are_changed_each_by_its_own_operation_where_keras_changes_the_batch_by_one():
    """For some seeds Keras's 64 images are all the same one: one operation, of one strength, was drawn for all."""
    images = np.stack([IMAGES["skewed"][:16, :16]] * 64).astype("float32")

    def results(make):
        outputs = (np.asarray(make(seed)(images, training=True)) for seed in range(4))
        return [len({image.tobytes() for image in np.round(output, 2)}) for output in outputs]

    settings = {"num_ops": 1, "factor": (0.5, 0.5)}
    assert results(lambda seed: keras.layers.RandAugment(**settings, seed=seed)).count(1) >= 2
    assert min(results(lambda seed: RandAugment(**settings, seed=seed))) >= 12
