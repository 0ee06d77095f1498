"""RandAugment: forms, ranges and types of what it is given, its strengths, and the three ways to run it."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_opt
from keras_opt.layers import RandAugment
from keras_opt.layers.drawn_operations import OPERATIONS, draw

IMAGES = np.random.default_rng(0).integers(0, 256, (16, 16, 16, 3), "uint8")
KEY = tf.constant((5, 18), "int32")  # one image draws identity twice


def names(key=KEY, count=16, num_ops=2):
    return [
        {OPERATIONS[place] for place in row} for row in np.asarray(draw(key, count, num_ops, (0.0, 0.5)).operations)
    ]


@pytest.fixture(scope="module")
def augmented():
    return np.asarray(RandAugment().transform(IMAGES, KEY))


def test_the_images_are_floats_in_the_value_range(augmented):
    assert augmented.dtype == "float32"
    assert augmented.shape == IMAGES.shape
    assert augmented.min() >= 0
    assert augmented.max() <= 255
    unchanged = np.abs(augmented - IMAGES).reshape(16, -1).max(1) == 0
    assert unchanged.tolist() == [drawn == {"identity"} for drawn in names()]
    assert unchanged.sum() == 1


def test_masks_and_keypoints_go_where_the_pixels_go_and_boxes_around_them():
    """Each image is its own mask; a box and a keypoint are put on its one bright pixel."""
    images = np.zeros((64, 12, 12, 1), "float32")
    images[:, 7, 4] = 255
    boxes = {"boxes": np.tile(np.float32([[[4, 7, 5, 8]]]), (64, 1, 1)), "labels": np.ones((64, 1), "int32")}
    inputs = {"images": images, "segmentation_masks": images, "bounding_boxes": boxes, "labels": np.arange(64)}
    inputs["keypoints"] = np.tile(np.float32([[[4, 7]]]), (64, 1, 1))
    outputs = RandAugment(factor=(0.4, 0.8), interpolation="nearest", bounding_box_format="xyxy").transform(inputs, KEY)
    drawn = draw(KEY, 64, 2, (0.4, 0.8)).operations.numpy()
    np.testing.assert_array_equal(outputs["labels"], np.arange(64))
    only_moved = (drawn == 0) | (drawn > OPERATIONS.index("sharpness"))
    only_moved = only_moved.all(1)
    assert only_moved.sum() > 5
    masks = np.asarray(outputs["segmentation_masks"])
    np.testing.assert_array_equal(masks[only_moved], np.asarray(outputs["images"])[only_moved])
    seen = 0
    for mask, (left, top, right, bottom), (x, y) in zip(
        masks, np.asarray(outputs["bounding_boxes"]["boxes"])[:, 0], np.asarray(outputs["keypoints"])[:, 0], strict=True
    ):
        inside = 1 <= x < 10 and 1 <= y < 10
        rows, columns = np.nonzero(mask[..., 0])
        if inside and len(rows):
            seen += 1
            assert min(np.hypot(rows - y, columns - x)) < 1
            assert left <= x + 0.5 <= right
            assert top <= y + 0.5 <= bottom
    assert seen > 30


def test_boxes_without_a_format_are_refused():
    boxes = {"boxes": np.zeros((16, 1, 4), "float32"), "labels": np.ones((16, 1), "int32")}
    with pytest.raises(ValueError, match="RandAugment: argument `bounding_box_format`"):
        RandAugment()({"images": IMAGES, "bounding_boxes": boxes}, training=True)


def test_the_same_key_gives_the_same_images_in_a_dataset(augmented):
    layer = RandAugment()
    data = tf.data.Dataset.from_tensors(IMAGES).map(lambda images: layer.transform(images, KEY))
    np.testing.assert_array_equal(next(iter(data)), augmented)
    assert np.abs(layer.transform(IMAGES, KEY + 1) - augmented).max() > 50


def test_the_same_key_gives_the_same_images_in_a_compiled_function(augmented):
    compiled = tf.function(RandAugment().transform, jit_compile=True, autograph=False)
    np.testing.assert_array_equal(compiled(IMAGES, KEY), augmented)


def test_pairs_of_a_dataset_are_mapped_as_they_come():
    data = tf.data.Dataset.from_tensors((IMAGES, np.arange(16)))
    with pytest.warns(UserWarning, match=r"keras_opt\.data\.augment"):
        images, labels = next(iter(data.map(RandAugment())))
    assert not np.array_equal(images, IMAGES)
    np.testing.assert_array_equal(labels, np.arange(16))


def test_floats_in_the_unit_interval_are_the_same_images(augmented):
    unit = np.asarray(RandAugment(value_range=(0, 1)).transform(IMAGES.astype("float32") / 255, KEY))
    np.testing.assert_allclose(unit * 255, augmented, atol=1e-2)


def test_a_float_image_that_drew_no_colours_keeps_what_lies_between_the_levels():
    images = IMAGES + np.float32(0.3)
    outputs = np.asarray(RandAugment().transform(images, KEY))
    kept = [n for n, drawn in enumerate(names()) if drawn == {"identity"}]
    np.testing.assert_array_equal(outputs[kept], images[kept])
    assert kept


def test_one_image_is_a_batch_of_one():
    one = RandAugment(num_ops=3).transform(IMAGES[0], KEY)
    np.testing.assert_array_equal(one, RandAugment(num_ops=3).transform(IMAGES[:1], KEY)[0])


def test_an_empty_batch_as_a_replica_may_get_it_stays_empty():
    assert RandAugment()(IMAGES[:0]).shape == (0, *IMAGES.shape[1:])


def test_channels_first_are_the_same_images(augmented):
    outputs = RandAugment(data_format="channels_first").transform(IMAGES.transpose(0, 3, 1, 2), KEY)
    np.testing.assert_array_equal(np.transpose(outputs, (0, 2, 3, 1)), augmented)


def test_grey_images_are_grey_colours_moved_alike():
    grey = np.repeat(IMAGES[..., :1], 3, axis=-1)
    one, three = (np.asarray(RandAugment().transform(images, KEY)) for images in (grey[..., :1], grey))
    np.testing.assert_allclose(np.repeat(one, 3, axis=-1), three, atol=1e-3)


def test_factor_0_changes_nothing_where_the_levels_are_even_already_and_keras_inverts():
    """Each of the 256 levels once a channel: nothing for `auto_contrast` and `equalize` to do."""
    rng = np.random.default_rng(0)
    images = np.stack([[rng.permutation(256).reshape(16, 16) for _ in range(3)] for _ in range(16)])
    images = images.transpose(0, 2, 3, 1).astype("float32")
    np.testing.assert_array_equal(RandAugment(factor=0).transform(images, KEY), images)
    keras_changes = [
        np.abs(keras.layers.RandAugment(factor=0.0, seed=seed)(images[:1], training=True) - images[:1]).max()
        for seed in range(4)
    ]
    assert max(keras_changes) > 200


def test_a_higher_factor_changes_more():
    def change(factor):
        return np.abs(RandAugment(factor=factor).transform(IMAGES, KEY) - IMAGES).mean()

    assert change((0.0, 0.1)) < change((0.4, 0.5)) < change((0.9, 1.0))


def test_in_inference_the_images_are_themselves():
    layer = RandAugment(seed=1)
    np.testing.assert_array_equal(layer(IMAGES, training=False), IMAGES)
    assert layer(IMAGES, training=False).dtype == "float32"
    assert int(layer.seed_generator.state[1]) == 0


def test_a_model_augments_in_fit_and_goes_on_after_it_was_saved(tmp_path):
    model = keras.Sequential([keras.Input((16, 16, 3), dtype="uint8"), RandAugment(seed=3), keras.layers.Flatten()])
    model.add(keras.layers.Dense(1))
    model.compile("sgd", "mse", jit_compile=True)
    model.fit(IMAGES, np.zeros((16, 1)), batch_size=16, epochs=2, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras_opt.load_model(tmp_path / "model.keras").layers[0]
    assert again.get_config() == model.layers[0].get_config()
    np.testing.assert_array_equal(again(IMAGES, training=True), model.layers[0](IMAGES, training=True))
    assert int(again.seed_generator.state[1]) == 3


def test_half_precision_gives_half_precision(augmented):
    outputs = RandAugment(dtype="mixed_float16").transform(IMAGES, KEY)
    assert outputs.dtype == "float16"
    np.testing.assert_allclose(outputs, augmented, atol=0.1)


def test_bytes_are_rounded(augmented):
    outputs = RandAugment(dtype="uint8").transform(IMAGES, KEY)
    np.testing.assert_array_equal(outputs, np.round(augmented))


def test_keras_arguments_are_taken_in_keras_order():
    config = RandAugment((0, 1), 3, (0.8, 0.2), "nearest", 7, "channels_last").get_config()
    theirs = keras.layers.RandAugment((0, 1), 3, (0.8, 0.2), "nearest", 7, "channels_last").get_config()
    assert {name: config[name] for name in theirs if name not in ("name", "dtype")} == {
        name: theirs[name] for name in theirs if name not in ("name", "dtype")
    }


@pytest.mark.parametrize("shape", [(2, 8, 8, 2), (2, 8, 8, 4), (8, 8, 2)])
def test_images_that_are_neither_grey_nor_rgb_are_refused(shape):
    with pytest.raises(ValueError, match=r"RandAugment: images must have 1 channel \(grey\) or 3"):
        RandAugment()(np.zeros(shape, "float32"))


def test_integers_in_another_range_are_refused():
    with pytest.raises(ValueError, match=r"`value_range` must be \(0, 255\) for uint8 images. Received: .*\(0, 1\)"):
        RandAugment(value_range=(0, 1))(IMAGES)
