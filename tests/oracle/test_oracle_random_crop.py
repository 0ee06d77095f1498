"""RandomCrop equals slices of NumPy's padded images at the same corners, in every way to run it."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_opt.layers import RandomCrop
from keras_opt.layers.random_keys import fold_in, integers

KEY = tf.constant([5, 11])
IMAGES = np.random.default_rng(0).integers(0, 256, (6, 7, 9, 3), "uint8")
MASKS = IMAGES[..., :1] // 16
POINTS = np.random.default_rng(1).uniform(0, 7, (6, 4, 2)).astype("float32")
BOXES = np.sort(POINTS.reshape(6, 2, 2, 2), axis=2).reshape(6, 2, 4)  # xyxy
FIELDS = {
    "images": IMAGES,
    "segmentation_masks": MASKS,
    "keypoints": POINTS,
    "bounding_boxes": {"boxes": BOXES, "labels": np.array([[3, 4]] * 6)},
}


def eagerly(layer, fields):
    return layer.transform(fields, KEY)


def in_tf_data(layer, fields):
    dataset = tf.data.Dataset.from_tensor_slices(fields).batch(6)
    return next(iter(dataset.map(lambda batch: layer.transform(batch, KEY))))


def in_tf_data_without_sizes(layer, fields):
    shapes = keras.tree.map_structure(lambda x: tf.TensorSpec([None] * x.ndim, x.dtype), fields)
    shapes["bounding_boxes"]["boxes"] = tf.TensorSpec([None, None, 4], "float32")
    dataset = tf.data.Dataset.from_generator(lambda: iter([fields]), output_signature=shapes)
    return next(iter(dataset.map(lambda batch: layer.transform(batch, KEY))))


def under_xla(layer, fields):
    return tf.function(lambda batch: layer.transform(batch, KEY), jit_compile=True)(fields)


@pytest.mark.parametrize("run", [eagerly, in_tf_data, in_tf_data_without_sizes, under_xla])
def test_random_crop(run):
    height, width, padding = 6, 5, 2
    tops = integers(fold_in(KEY, 0), [6], 0, 7 + 2 * padding - height + 1).numpy()
    lefts = integers(fold_in(KEY, 1), [6], 0, 9 + 2 * padding - width + 1).numpy()
    assert len(set(zip(tops, lefts, strict=True))) == 6
    margins = ((0, 0), (padding, padding), (padding, padding), (0, 0))

    def windows(values):
        padded = np.pad(values, margins)
        return [padded[i, top : top + height, left : left + width] for i, (top, left) in enumerate(corners)]

    corners = list(zip(tops, lefts, strict=True))
    left_and_top = np.stack([lefts, tops], axis=-1)[:, np.newaxis] - padding
    boxes = np.clip(BOXES - np.tile(left_and_top, 2), 0, [width, height, width, height])
    gone = (boxes[..., 0] == boxes[..., 2]) | (boxes[..., 1] == boxes[..., 3])

    cropped = run(RandomCrop(height, width, padding=padding, bounding_box_format="xyxy"), FIELDS)
    np.testing.assert_array_equal(cropped["images"], windows(IMAGES))
    np.testing.assert_array_equal(cropped["segmentation_masks"], windows(MASKS))
    np.testing.assert_allclose(cropped["keypoints"], POINTS - left_and_top, atol=1e-5)
    np.testing.assert_allclose(cropped["bounding_boxes"]["boxes"], boxes, atol=1e-5)
    np.testing.assert_array_equal(cropped["bounding_boxes"]["labels"], np.where(gone, -1, [3, 4]))
