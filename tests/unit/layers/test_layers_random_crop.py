import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_opt.core.errors import InputError
from keras_opt.layers import RandomCrop, random_crop
from keras_opt.layers.bounding_boxes import BOX_FORMATS
from keras_opt.layers.random_crop import crop
from keras_opt.layers.random_keys import fold_in, integers

HEIGHT, WIDTH = 8, 10
# Each pixel tells its place: channels are row, column and number of the image.
PLACES = np.stack(
    np.broadcast_arrays(
        np.arange(HEIGHT)[:, np.newaxis], np.arange(WIDTH), np.arange(40)[:, np.newaxis, np.newaxis], subok=False
    ),
    axis=-1,
).astype("float32")


def corners(images):
    """Tops and lefts of the windows."""
    return np.asarray(images)[:, 0, 0, :2]


def test_each_image_has_a_window_of_its_own():
    images = RandomCrop(6, 5, seed=0)(PLACES)
    expected = corners(images)[:, np.newaxis, np.newaxis] + np.stack(np.mgrid[:6, :5], axis=-1)
    np.testing.assert_array_equal(images[..., :2], expected)
    np.testing.assert_array_equal(images[..., 2], PLACES[:, :6, :5, 2])
    assert len(np.unique(corners(images), axis=0)) > 9  # of 3 * 6 places


def test_keras_has_one_for_the_batch():
    """What the test above guards against."""
    assert len(np.unique(corners(keras.layers.RandomCrop(6, 5, seed=0)(PLACES)), axis=0)) == 1


def test_every_place_is_as_likely():
    tops, lefts = corners(RandomCrop(6, 5, seed=0)(np.repeat(PLACES, 100, axis=0))).astype(int).T
    np.testing.assert_allclose(np.bincount(tops) / 4000, 1 / 3, atol=0.03)
    np.testing.assert_allclose(np.bincount(lefts) / 4000, 1 / 6, atol=0.03)


def test_room_on_one_side_is_used():
    assert set(corners(RandomCrop(HEIGHT, 5, seed=0)(PLACES))[:, 1]) == set(range(6))
    crop = keras.layers.RandomCrop(HEIGHT, 5, seed=0)
    assert {float(crop(PLACES)[0, 0, 0, 1]) for _ in range(10)} == {2.0}  # Keras takes the middle


def test_an_image_of_the_size_of_the_window_stays():
    np.testing.assert_array_equal(RandomCrop(HEIGHT, WIDTH)(PLACES), PLACES)


def test_inference_takes_the_middle_at_the_same_scale():
    np.testing.assert_array_equal(RandomCrop(5, 5, padding=4)(PLACES, training=False), PLACES[:, 1:6, 2:7])


def test_keras_crops_nothing_in_inference():
    """What the test above guards against."""
    model = keras.Sequential([keras.Input((HEIGHT, WIDTH, 3)), keras.layers.RandomCrop(5, 5)])
    assert model.output_shape == (None, 5, 5, 3)
    assert model(PLACES, training=False).shape == PLACES.shape


def test_a_model_has_the_shape_it_says():
    model = keras.Sequential([keras.Input((HEIGHT, WIDTH, 3)), RandomCrop(5, 5)])
    assert model.output_shape == (None, 5, 5, 3)
    assert model(PLACES, training=False).shape == model(PLACES, training=True).shape == (40, 5, 5, 3)


@pytest.mark.parametrize(("fill_mode", "pad"), [("nearest", "edge"), ("reflect", "symmetric"), ("wrap", "wrap")])
def test_padding_shows_what_numpy_pads(fill_mode, pad):
    key = tf.constant([1, 2])
    padded = np.pad(PLACES, ((0, 0), (4, 4), (4, 4), (0, 0)), pad)
    expected = RandomCrop(HEIGHT, WIDTH).transform(padded, key)
    images = RandomCrop(HEIGHT, WIDTH, padding=4, fill_mode=fill_mode).transform(PLACES, key)
    np.testing.assert_array_equal(images, expected)


def test_padding_is_filled_with_a_value_and_masks_with_0():
    key = tf.constant([1, 2])
    margins = ((0, 0), (4, 4), (4, 4), (0, 0))
    expected = RandomCrop(HEIGHT, WIDTH).transform(np.pad(PLACES, margins, constant_values=-1), key)
    masks = np.ones((40, HEIGHT, WIDTH), "int32")
    layer = RandomCrop(HEIGHT, WIDTH, padding=4, fill_value=-1)
    cropped = layer.transform({"images": PLACES, "segmentation_masks": masks}, key)
    np.testing.assert_array_equal(cropped["images"], expected)
    np.testing.assert_array_equal(cropped["segmentation_masks"] == 0, expected[..., 0] == -1)
    assert cropped["segmentation_masks"].dtype == tf.int32


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(), (1,), (2,)])
def test_masks_follow_their_images(shape, training):
    masks = np.broadcast_to(PLACES[..., 0].reshape(PLACES.shape[:3] + (1,) * len(shape)), PLACES.shape[:3] + shape)
    cropped = RandomCrop(6, 5, seed=0)({"images": PLACES, "segmentation_masks": masks}, training=training)
    rows = np.broadcast_to(np.reshape(cropped["images"][..., 0], (40, 6, 5) + (1,) * len(shape)), (40, 6, 5, *shape))
    np.testing.assert_array_equal(cropped["segmentation_masks"], rows)


@pytest.mark.parametrize("training", [True, False])
def test_keypoints_stay_on_their_pixels(training):
    points = np.tile([[3.0, 4.0], [5.0, 2.0]], (40, 1, 1))  # x, y
    cropped = RandomCrop(6, 5, seed=0)({"images": PLACES, "keypoints": points}, training=training)
    tops, lefts = corners(cropped["images"]).T
    np.testing.assert_allclose(cropped["keypoints"][..., 0] + lefts[:, np.newaxis], points[..., 0])
    np.testing.assert_allclose(cropped["keypoints"][..., 1] + tops[:, np.newaxis], points[..., 1])


def boxes_of(values, count=40):
    return {"boxes": np.tile(np.array(values, "float32"), (count, 1, 1)), "labels": np.tile([[1, 2]], (count, 1))}


@pytest.mark.parametrize("training", [True, False])
def test_boxes_stay_around_their_pixels(training):
    given = {"images": PLACES, "bounding_boxes": boxes_of([[3, 4, 6, 7], [0, 0, 1, 1]])}  # columns 3-5, rows 4-6
    cropped = RandomCrop(6, 5, seed=0, bounding_box_format="xyxy")(given, training=training)
    boxes, labels = cropped["bounding_boxes"]["boxes"].numpy(), cropped["bounding_boxes"]["labels"].numpy()
    for image, (first, second), (label, label2) in zip(cropped["images"].numpy(), boxes, labels, strict=True):
        inside = (image[..., 1] >= 3) & (image[..., 1] < 6) & (image[..., 0] >= 4) & (image[..., 0] < 7)
        rows, columns = np.nonzero(inside)
        assert label == 1
        np.testing.assert_array_equal(first, [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        visible = (image[0, 0, :2] == 0).all()
        assert label2 == (2 if visible else -1)
        assert np.prod(second[2:] - second[:2]) == visible


def test_keras_moves_boxes_along_the_wrong_axes():
    """keras #23518; what the test above guards against."""
    given = {"images": PLACES, "bounding_boxes": boxes_of([[3, 4, 6, 7], [5, 5, 8, 8]])}
    crop = keras.layers.RandomCrop(6, 5, seed=1, bounding_box_format="xyxy")
    cropped = crop(keras.tree.map_structure(tf.constant, given))
    top, left = corners(cropped["images"])[0]
    assert top != left
    np.testing.assert_array_equal(
        cropped["bounding_boxes"]["boxes"][0, 0], np.maximum([3 - top, 4 - left, 6 - top, 7 - left], 0)
    )


@pytest.mark.parametrize("box_format", BOX_FORMATS)
def test_every_format_means_the_same_boxes(box_format):
    key = tf.constant([1, 2])
    convert = keras.utils.bounding_boxes.convert_format
    given = boxes_of([[3, 4, 6, 7], [5, 5, 8, 8]])
    transform = RandomCrop(6, 5, bounding_box_format="xyxy").transform
    expected = transform({"images": PLACES, "bounding_boxes": given}, key)["bounding_boxes"]["boxes"]
    given["boxes"] = convert(given["boxes"], "xyxy", box_format, HEIGHT, WIDTH)
    transform = RandomCrop(6, 5, bounding_box_format=box_format).transform
    boxes = transform({"images": PLACES, "bounding_boxes": given}, key)["bounding_boxes"]["boxes"]
    np.testing.assert_allclose(convert(boxes, box_format, "xyxy", 6, 5), expected, atol=1e-5)


def test_boxes_of_no_format_are_refused():
    with pytest.raises(
        InputError, match=r"RandomCrop: argument `bounding_box_format` must be one of 'xyxy', .* for inputs"
    ):
        RandomCrop(6, 5)({"images": PLACES, "bounding_boxes": boxes_of([[3, 4, 6, 7], [5, 5, 8, 8]])})


def test_channels_first_gives_the_same_images():
    key = tf.constant([1, 2])
    first = RandomCrop(6, 5, padding=2, data_format="channels_first").transform(np.moveaxis(PLACES, -1, 1), key)
    np.testing.assert_array_equal(np.moveaxis(first, 1, -1), RandomCrop(6, 5, padding=2).transform(PLACES, key))


def test_one_image_and_pairs_are_given_back_as_they_came():
    crop = RandomCrop(6, 5)
    assert crop(PLACES[0]).shape == (6, 5, 3)
    images, labels = crop((PLACES, np.arange(40)))
    assert images.shape == (40, 6, 5, 3)
    np.testing.assert_array_equal(labels, np.arange(40))


def test_single_images_of_many_sizes_are_cropped_without_a_compilation_for_each(monkeypatch):
    key = tf.constant([1, 2])
    corners = [integers(fold_in(key, n), [1], 0, size + 1) for n, size in enumerate((HEIGHT - 6, WIDTH - 5))]
    expected = crop(PLACES[:1], corners, (6, 5), (1, 2), "constant", 0.0)[0]
    monkeypatch.setattr(random_crop, "crop", None)
    spec = tf.TensorSpec((None, None, 3), "float32")
    images = tf.data.Dataset.from_generator(lambda: iter([PLACES[0]]), output_signature=spec)
    layer = RandomCrop(6, 5)
    images = images.map(lambda image: layer.transform(image, key))
    assert images.element_spec.shape == (6, 5, 3)
    np.testing.assert_array_equal(next(iter(images)), expected)


@pytest.mark.parametrize("value", [-1, 300, 127.5])
def test_a_fill_value_that_no_byte_has_is_refused(value):
    given = PLACES.astype("uint8")
    with pytest.raises(InputError, match=r"RandomCrop: argument `fill_value` must be a uint8 value, as the images are"):
        RandomCrop(6, 5, padding=1, fill_value=value)(given)
    assert RandomCrop(6, 5, padding=1, fill_mode="wrap", fill_value=value)(given).shape == (40, 6, 5, 3)


@pytest.mark.parametrize("training", [True, False])
def test_bytes_are_rounded_where_bytes_are_asked_for(training):
    images = np.full((2, 8, 8, 3), 254.9)
    assert np.unique(RandomCrop(6, 5, dtype="uint8")(images, training=training)) == 255
    assert np.unique(RandomCrop(6, 5, dtype="uint8")(images + 9, training=training)) == 255


def test_a_dict_is_not_mutated():
    given = {"images": tf.constant(PLACES), "labels": tf.range(40)}
    before = dict(given)
    RandomCrop(6, 5)(given)
    assert all(given[name] is before[name] for name in before)
    keras.layers.RandomCrop(6, 5)(given)
    assert given["images"] is not before["images"]  # Keras mutates it


def test_a_dataset_of_pairs_can_be_mapped():
    dataset = tf.data.Dataset.from_tensor_slices((PLACES.astype("uint8"), np.arange(40))).batch(30)
    with pytest.warns(UserWarning, match=r"keras_opt\.data\.augment"):
        dataset = dataset.map(RandomCrop(6, 5, dtype="uint8"))
    assert [(tuple(images.shape), images.dtype) for images, _ in dataset] == [
        ((30, 6, 5, 3), tf.uint8),
        ((10, 6, 5, 3), tf.uint8),
    ]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("size", [(9, 5), (5, 11)])
def test_an_image_smaller_than_the_window_is_refused(size, training):
    with pytest.raises(InputError, match=f"RandomCrop: images must be at least {size[0]} pixels high and {size[1]} wi"):
        RandomCrop(*size, padding=4)(PLACES, training=training)


def test_a_graph_refuses_it_when_it_runs():
    crop = RandomCrop(9, 5)
    sizes = tf.data.Dataset.from_tensors(8)
    dataset = sizes.map(lambda size: crop.transform(tf.zeros((2, size, size, 3)), tf.constant([1, 2])))
    with pytest.raises(tf.errors.InvalidArgumentError, match="RandomCrop: images must be at least 9 pixels high"):
        next(iter(dataset))


def test_config_and_seed_counter_are_saved_with_the_model(tmp_path):
    crop = RandomCrop(6, 5, 3, padding=2, fill_mode="reflect", bounding_box_format="xyxy")
    model = keras.Sequential([keras.Input((HEIGHT, WIDTH, 3)), crop])
    model(PLACES, training=True)
    model.save(tmp_path / "model.keras")
    restored = keras.saving.load_model(tmp_path / "model.keras")
    assert restored.layers[0].get_config() == crop.get_config()
    np.testing.assert_array_equal(restored(PLACES, training=True), model(PLACES, training=True))


def test_the_config_of_keras_is_taken():
    crop = RandomCrop.from_config(keras.layers.RandomCrop(6, 5, 3, bounding_box_format="xywh").get_config())
    assert (crop.height, crop.width, crop.seed, crop.bounding_box_format) == (6, 5, 3, "xywh")
