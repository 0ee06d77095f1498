"""MixUp and CutMix equal a loop in NumPy over the same draws, in every way to run them; the shares are Beta's."""

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from keras_opt.layers import CutMix, MixUp
from keras_opt.layers.cut_mix import box_spans
from keras_opt.layers.mixing_draws import beta, partners
from keras_opt.layers.random_keys import fold_in, uniform

KEY = tf.constant([5, 11])
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (6, 7, 9, 3), "uint8")
NUMBERS = np.array([3, 0, 4, 1, 1, 2])
ROWS = np.eye(5)[NUMBERS]
MASKS = RNG.integers(0, 5, (6, 7, 9, 1))


def eagerly(layer, fields):
    return layer.transform(fields, KEY)


def in_tf_data(layer, fields):
    dataset = tf.data.Dataset.from_tensor_slices(fields).batch(6)
    return next(iter(dataset.map(lambda batch: layer.transform(batch, KEY))))


def under_xla(layer, fields):
    return tf.function(lambda batch: layer.transform(batch, KEY), jit_compile=True)(fields)


everywhere = pytest.mark.parametrize("run", [eagerly, in_tf_data, under_xla])


def assert_mixed(run, layer, fields, expected):
    mixed = run(layer, fields)
    assert mixed.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(mixed[name], values, rtol=1e-5, atol=1e-5, err_msg=name)


@everywhere
def test_mix_up(run):
    own = beta(fold_in(KEY, 0), tf.fill([6], 0.4)).numpy().astype("float64")
    others = partners(fold_in(KEY, 1), 6).numpy()
    blended = [
        [share * values[i] + (1 - share) * values[j] for i, (share, j) in enumerate(zip(own, others, strict=True))]
        for values in (IMAGES.astype("float64"), ROWS, np.eye(5)[MASKS[..., 0]])
    ]
    fields = {"images": IMAGES, "labels": NUMBERS, "segmentation_masks": MASKS}
    assert_mixed(run, MixUp(0.4, num_classes=5), fields, dict(zip(fields, blended, strict=True)))


@everywhere
def test_cut_mix(run):
    share = beta(fold_in(KEY, 1), uniform(fold_in(KEY, 0), [6], 0.5, 1.0))
    tops, heights = box_spans(fold_in(KEY, 2), share, 7)
    lefts, widths = box_spans(fold_in(KEY, 3), share, 9)
    others = partners(fold_in(KEY, 4), 6).numpy()
    images, masks, labels = IMAGES.astype("float64"), MASKS.copy(), ROWS.copy()
    for i, j in enumerate(others):
        box = slice(tops[i], tops[i] + heights[i]), slice(lefts[i], lefts[i] + widths[i])
        images[i][box], masks[i][box] = IMAGES[j][box], MASKS[j][box]
        own = 1 - float(heights[i] * widths[i]) / 63
        labels[i] = own * ROWS[i] + (1 - own) * ROWS[j]
    fields = {"images": IMAGES, "labels": NUMBERS, "segmentation_masks": MASKS}
    expected = {"images": images, "labels": labels, "segmentation_masks": masks}
    assert len(set(zip(tops.numpy(), lefts.numpy(), heights.numpy(), strict=True))) > 3  # a box of its own each
    assert_mixed(run, CutMix((0.5, 1.0), num_classes=5), fields, expected)


@pytest.mark.parametrize("make", [MixUp, CutMix])
def test_labels_tell_how_much_of_each_image_is_there(make):
    """Each image is filled with its number, so that its pixels count the parts of each other."""
    count, side = 64, 12
    images = np.broadcast_to(np.eye(count, dtype="float32")[:, np.newaxis, np.newaxis], (count, side, side, count))
    mixed, labels = make(1.0)((images, np.eye(count)))
    np.testing.assert_allclose(np.mean(mixed, axis=(1, 2), dtype="float64"), labels, atol=1e-6)
    np.testing.assert_allclose(np.sum(labels, axis=1), 1, atol=1e-6)


def test_the_labels_of_keras_tell_it_less_exactly():
    """Its boxes end between pixels, so that labels are off by up to a pixel's row."""
    count, side = 64, 12
    images = np.broadcast_to(np.eye(count, dtype="float32")[:, np.newaxis, np.newaxis], (count, side, side, count))
    mixed = keras.layers.CutMix(1.0, seed=0)({"images": images.copy(), "labels": np.eye(count, dtype="float32")})
    assert np.abs(np.mean(mixed["images"], axis=(1, 2)) - mixed["labels"]).max() > 0.02


@pytest.mark.parametrize("alpha", [0.05, 0.2, 1.0, 4.0])
def test_shares_have_the_beta_distribution(alpha):
    """By Kolmogorov and Smirnov's test, away from the ends, where float32 has no numbers left beside 0 and 1."""
    shares = beta(KEY, tf.fill([50_000], alpha)).numpy().astype("float64")
    grid = np.linspace(0.001, 0.999, 999)
    drawn = np.searchsorted(np.sort(shares), grid) / len(shares)
    assert np.abs(drawn - scipy.stats.beta(alpha, alpha).cdf(grid)).max() < 1.63 / np.sqrt(len(shares))  # at 1 %


def test_those_of_keras_pile_up_in_the_middle_at_small_alphas():
    """Where both of its Gamma numbers are 0."""
    drawn = keras.random.beta((2000,), 1e-3, 1e-3, seed=0)
    ours = beta(KEY, tf.fill([2000], 1e-3))
    assert np.mean(np.abs(drawn - 0.5) < 0.4) > 0.5
    assert np.mean(np.abs(ours - 0.5) < 0.4) < 0.01


def test_images_and_partners_are_drawn_independently():
    draws = tf.function(lambda key: (beta(fold_in(key, 0), tf.ones(8)), partners(fold_in(key, 1), 8)))
    shares, places = zip(*(draws(tf.constant([n, 3])) for n in range(400)), strict=True)
    assert abs(np.corrcoef(np.ravel(shares), np.ravel(places))[0, 1]) < 0.06
    np.testing.assert_allclose(np.mean(places == np.arange(8)), 1 / 8, atol=0.02)
