"""What holds for every key, share and label: labels add up, pixels come from the batch, boxes lie in the image."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_opt.core.errors import InputError
from keras_opt.layers import CutMix, MixUp, RandomCrop

IMAGES = np.random.default_rng(0).uniform(size=(6, 5, 7, 2)).astype("float32")
KEYS = st.tuples(*[st.integers(-(2**31), 2**31 - 1)] * 2).map(tf.constant)
LAYERS = st.one_of(
    st.floats(1e-3, 100).map(lambda alpha: MixUp(alpha, num_classes=4, seed=0)),
    st.floats(1e-3, 1).map(lambda factor: CutMix(factor, num_classes=4, seed=0)),
)
CLASS_NUMBERS = st.lists(st.integers(0, 3), min_size=6, max_size=6).map(np.array)
WEIGHTS = st.lists(st.floats(0, 100, width=32), min_size=6, max_size=6).map(np.array)
few = settings(max_examples=25, deadline=None, derandomize=True, database=None)


@few
@given(KEYS, LAYERS, CLASS_NUMBERS, WEIGHTS)
def test_labels_add_up_and_weights_stay_in_their_range(key, layer, numbers, weights):
    _, labels, mixed = layer.transform((IMAGES, numbers, weights), key)
    np.testing.assert_allclose(np.sum(labels, axis=1), 1, atol=1e-5)
    assert np.min(labels) >= 0
    assert set(np.flatnonzero(np.sum(labels, axis=0))) <= set(numbers)
    assert weights.min() - 1e-3 <= np.min(mixed) <= np.max(mixed) <= weights.max() + 1e-3


@few
@given(KEYS, LAYERS)
def test_images_stay_in_their_range_and_labels_tell_their_pixels(key, layer):
    numbers = np.array([0, 1, 2, 3, 0, 1])
    full_of_their_number = np.tile(np.eye(4)[numbers][:, np.newaxis, np.newaxis], (1, 5, 7, 1))
    images, labels = layer.transform((full_of_their_number, numbers), key)
    assert np.min(images) >= 0
    assert np.max(images) <= 1
    np.testing.assert_allclose(np.mean(images, axis=(1, 2)), labels, atol=1e-5)


@few
@given(KEYS, st.floats(1e-3, 1))
def test_cut_mix_makes_no_pixel_of_its_own(key, factor):
    images, _ = CutMix(factor, seed=0).transform((IMAGES, np.eye(6)), key)
    assert (np.equal(images[:, np.newaxis], IMAGES).all(-1).any(axis=1)).all()


@few
@given(KEYS, LAYERS, st.lists(st.integers(-5, 9), min_size=6, max_size=6))
def test_class_numbers_become_one_hot_or_an_error(key, layer, numbers):
    if set(numbers) <= {0, 1, 2, 3}:
        assert layer.transform((IMAGES, np.array(numbers)), key)[1].shape == (6, 4)
    else:
        with pytest.raises(InputError, match="class numbers from 0"):
            layer.transform((IMAGES, np.array(numbers)), key)


CROP = RandomCrop(4, 3, padding=2, bounding_box_format="xyxy")
COORDINATES = st.lists(st.tuples(*[st.floats(0, 7, width=32)] * 2), min_size=2, max_size=2)


@few
@given(KEYS, COORDINATES)
def test_boxes_lie_in_their_windows_and_keep_their_pixels(key, points):
    boxes = np.tile(np.concatenate([np.min(points, axis=0), np.max(points, axis=0)]), (6, 1, 1)).astype("float32")
    fields = {
        "images": IMAGES,
        "bounding_boxes": {"boxes": boxes, "labels": np.ones((6, 1), int)},
        "keypoints": boxes[..., :2],
    }
    cropped = CROP.transform(fields, key)
    left, top, right, bottom = np.moveaxis(cropped["bounding_boxes"]["boxes"], -1, 0)
    assert ((left >= 0) & (left <= right) & (right <= 3)).all()
    assert ((top >= 0) & (top <= bottom) & (bottom <= 4)).all()
    is_there = (right > left) & (bottom > top)
    np.testing.assert_array_equal(cropped["bounding_boxes"]["labels"], np.where(is_there, 1, -1))
    corner = np.clip(cropped["keypoints"], 0, [3, 4])
    np.testing.assert_allclose(np.stack([left, top], axis=-1), corner, atol=1e-5)
