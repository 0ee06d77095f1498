import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_opt import load_model
from keras_opt.core.errors import InputError
from keras_opt.layers import RandomAffine

KEY = tf.constant([1, 2])
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (4, 8, 10, 3)).astype("uint8")
SMALL = RNG.integers(0, 256, (200, 5, 5, 1)).astype("uint8")


def test_a_quarter_turn_counter_clockwise_is_exact():
    layer = RandomAffine(rotation_degrees=(90, 90))
    np.testing.assert_array_equal(layer.transform(SMALL, KEY), np.rot90(SMALL, axes=(1, 2)))


def test_a_range_of_one_value_shifts_right_and_down():
    layer = RandomAffine(width_shift=(0.2, 0.2), height_shift=(0.25, 0.25), fill_mode="wrap")
    np.testing.assert_array_equal(layer.transform(IMAGES, KEY), np.roll(IMAGES, (2, 2), axis=(1, 2)))


def test_whole_shifts_are_whole_pixels_below_the_bound():
    layer = RandomAffine(width_shift=3, fill_mode="wrap")
    rolled = [np.roll(SMALL, shift, axis=2) for shift in range(-2, 3)]
    moved = layer.transform(SMALL, KEY).numpy()
    found = np.stack([(moved == candidate).all((1, 2, 3)) for candidate in rolled])
    assert found.any(0).all()
    assert found.any(1).all()


def test_a_positive_zoom_shows_more_of_the_image():
    image = np.zeros((1, 9, 9, 1), "float32")
    image[:, 3:6, 3:6] = 1
    shrunk, grown = (
        RandomAffine(zoom=(amount, amount), fill_mode="constant").transform(image, KEY).numpy().sum()
        for amount in (0.5, -0.5)
    )
    assert shrunk < image.sum() < grown


def test_height_and_width_are_zoomed_separately():
    x, y = np.meshgrid(np.arange(9.0), np.arange(9.0))
    ramps = np.tile(np.stack([x, y], -1)[np.newaxis].astype("float32"), (20, 1, 1, 1))
    seen = RandomAffine(zoom=(-0.5, 0)).transform(ramps, KEY).numpy()
    of_width, of_height = seen[:, 4, 5, 0] - seen[:, 4, 4, 0], seen[:, 5, 4, 1] - seen[:, 4, 4, 1]
    assert np.abs(of_width - of_height).max() > 0.1
    assert 0.5 <= of_width.min() < of_width.max() <= 1


@pytest.mark.parametrize(("flip", "axis"), [("horizontal_flip", 2), ("vertical_flip", 1)])
def test_a_flip_is_exact_and_half_of_the_images_have_it(flip, axis):
    seen = RandomAffine(**{flip: True}).transform(SMALL, KEY).numpy()
    flipped = (seen == np.flip(SMALL, axis)).all((1, 2, 3))
    assert ((seen == SMALL).all((1, 2, 3)) ^ flipped).all()
    assert 0.4 < flipped.mean() < 0.6


def test_without_arguments_nothing_happens():
    np.testing.assert_array_equal(RandomAffine().transform(IMAGES, KEY), IMAGES)


def test_each_image_is_moved_by_itself_and_each_call_anew():
    same = np.repeat(IMAGES[:1], 4, axis=0)
    layer = RandomAffine(20, seed=1)
    first, second = layer(same).numpy(), layer(same).numpy()
    assert len({image.tobytes() for image in (*first, *second)}) == 8
    np.testing.assert_array_equal(RandomAffine(20, seed=1)(same), first)


def test_inference_leaves_the_images_as_they_are():
    layer = RandomAffine(20, 0.2, 0.2, 0.2, 10, True, True, "constant")
    np.testing.assert_array_equal(layer(IMAGES, training=False), IMAGES)


@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
@pytest.mark.parametrize("images", [IMAGES, IMAGES.astype("float32")], ids=["bytes", "floats"])
def test_inference_rescales_and_resizes_as_training_does(images, interpolation):
    for rescale in (None, 1 / 255):
        layer = RandomAffine(output_size=(16, 4), rescale=rescale, interpolation=interpolation)
        inference = layer(images, training=False)
        np.testing.assert_allclose(inference, layer.transform(images, KEY), rtol=1e-6)
        assert inference.dtype == ("float32" if rescale or images is not IMAGES else "uint8")


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "float32"])
def test_masks_of_any_dtype_follow_a_resize_in_inference_as_in_training(dtype):
    layer, masks = RandomAffine(output_size=(16, 4)), (IMAGES[..., 0] > 99).astype(dtype)
    inference = layer({"images": IMAGES, "segmentation_masks": masks}, training=False)["segmentation_masks"]
    training = layer.transform({"images": IMAGES, "segmentation_masks": masks}, KEY)["segmentation_masks"]
    assert inference.dtype == dtype
    np.testing.assert_array_equal(inference, training)


def test_boxes_follow_a_resize_in_inference():
    layer = RandomAffine(output_size=(16, 30), bounding_box_format="xywh")
    boxes = {"boxes": np.tile([[[1.0, 2, 3, 4]]], (4, 1, 1)), "labels": np.ones((4, 1))}
    points = np.tile([[[0.0, 0]]], (4, 1, 1))
    seen = layer({"images": IMAGES, "bounding_boxes": boxes, "keypoints": points}, training=False)
    np.testing.assert_allclose(seen["bounding_boxes"]["boxes"][0], [[3, 4, 9, 8]], rtol=1e-5)
    np.testing.assert_allclose(seen["keypoints"][0], [[1, 0.5]], rtol=1e-5)


@pytest.mark.parametrize("box_format", ["xyxy", "yxyx", "xywh", "center_xywh", "rel_xyxy", "rel_center_xywh"])
def test_a_flipped_box_is_exact_in_each_format(box_format):
    convert = keras.utils.bounding_boxes.convert_format
    boxes = {"boxes": convert(np.array([[[1.0, 2, 4, 7]]]), "xyxy", box_format, 8, 10), "labels": [[3]]}
    layer = RandomAffine(horizontal_flip=True, bounding_box_format=box_format)
    many = {name: np.repeat(values, 50, axis=0) for name, values in boxes.items()}
    seen = layer.transform({"images": np.zeros((50, 8, 10, 1), "uint8"), "bounding_boxes": many}, KEY)
    moved = convert(seen["bounding_boxes"]["boxes"], box_format, "xyxy", 8, 10).numpy()
    assert {tuple(np.round(box, 3)) for box in moved[:, 0]} == {(1, 2, 4, 7), (6, 2, 9, 7)}


def test_a_box_that_leaves_the_image_loses_its_label():
    layer = RandomAffine(width_shift=(1.0, 1.0), bounding_box_format="xyxy")
    boxes = {"boxes": np.tile([[[1.0, 2, 4, 7]]], (4, 1, 1)), "labels": np.ones((4, 1))}
    seen = layer.transform({"images": IMAGES, "bounding_boxes": boxes}, KEY)
    np.testing.assert_array_equal(seen["bounding_boxes"]["labels"], -np.ones((4, 1)))


def test_one_image_and_a_pair_come_back_in_their_form():
    layer = RandomAffine(20)
    assert layer(IMAGES[0]).shape == IMAGES[0].shape
    images, labels = layer((IMAGES, np.arange(4)))
    assert images.shape == IMAGES.shape
    np.testing.assert_array_equal(labels, np.arange(4))


def test_sizes_may_be_unknown():
    dataset = tf.data.Dataset.from_generator(
        lambda: iter([IMAGES, SMALL]), output_signature=tf.TensorSpec((None, None, None, None), "uint8")
    )
    layer = RandomAffine(rotation_degrees=(90, 90), rescale=1.0)
    seen = list(dataset.map(lambda images: layer.transform(images, KEY)))
    assert [batch.shape for batch in seen] == [IMAGES.shape, SMALL.shape]
    np.testing.assert_allclose(seen[1], np.rot90(SMALL, axes=(1, 2)), atol=1e-3)


@pytest.mark.parametrize("settings", [{"steps_per_execution": 2}, {"jit_compile": True}], ids=["default", "jit"])
def test_it_trains_in_a_model_and_is_saved_with_its_seed(settings, tmp_path):
    layer = RandomAffine(20, 0.2, horizontal_flip=True, rescale=1 / 255, output_size=(6, 6), seed=3)
    model = keras.Sequential(
        [keras.Input((None, None, 3), dtype="uint8"), layer, keras.layers.Flatten(), keras.layers.Dense(2)]
    )
    assert layer.output.shape == (None, 6, 6, 3)
    model.compile("sgd", "mse", **settings)
    assert layer.supports_jit
    model.fit(IMAGES, np.zeros((4, 2)), batch_size=2, epochs=1, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = load_model(tmp_path / "model.keras")
    assert loaded.layers[0].get_config() == layer.get_config()
    np.testing.assert_array_equal(loaded.layers[0].seed_generator.state.numpy(), layer.seed_generator.state.numpy())
    assert layer.seed_generator.state[1] >= 2
    np.testing.assert_allclose(loaded.predict(IMAGES, verbose=0), model.predict(IMAGES, verbose=0), rtol=1e-6)


def test_a_geometric_layer_of_keras_switches_xla_off_for_the_whole_model():
    """What the test above guards against."""
    assert not keras.layers.RandomRotation(0.1).supports_jit


def test_boxes_stay_exact_in_half_precision():
    layer = RandomAffine(bounding_box_format="xyxy", dtype="mixed_float16")
    boxes = {"boxes": np.full((4, 1, 4), 2049.0, "float32"), "labels": np.ones((4, 1))}
    fields = {"images": np.zeros((4, 2100, 2100, 1), "uint8"), "keypoints": boxes["boxes"][..., :2]}
    assert float(layer({**fields, "bounding_boxes": boxes}, training=False)["keypoints"][0, 0, 0]) == 2049


def test_an_integer_dtype_rounds_floats():
    layer = RandomAffine(output_size=(4, 5), dtype="uint8")
    seen = layer(IMAGES.astype("float32"), training=False)
    np.testing.assert_array_equal(seen, RandomAffine(output_size=(4, 5))(IMAGES, training=False))
    assert seen.dtype == "uint8"


def test_a_bare_map_warns_and_names_augment():
    with pytest.warns(UserWarning, match=r"keras_opt\.data\.augment"):
        tf.data.Dataset.from_tensors(IMAGES).map(RandomAffine(20))


@pytest.mark.filterwarnings("ignore:A random layer called by")
def test_a_bare_map_of_pairs_keeps_the_labels():
    images, labels = next(iter(tf.data.Dataset.from_tensors((IMAGES, np.arange(4))).map(RandomAffine(20))))
    assert images.shape == IMAGES.shape
    np.testing.assert_array_equal(labels, np.arange(4))


@pytest.mark.parametrize(
    ("arguments", "cure"),
    [
        ({"zoom": (0.8, 1.2)}, r"from 1: \(-0\.2, 0\.2\)\."),
        ({"zoom": 1.2}, r"from 1: 0\.2\."),
        ({"width_shift": 20.0}, r"give ints: 20\."),
        ({"height_shift": (-3.0, 3.0)}, r"give ints: \(-3, 3\)\."),
        ({"rotation_degrees": 400}, "0 leaves this part out"),
        ({"zoom": ()}, "0 leaves this part out"),
        ({"zoom": (0.5, 0.1)}, "0 leaves this part out"),
    ],
)
def test_a_range_that_is_too_wide_names_what_was_meant(arguments, cure):
    with pytest.raises(InputError, match=cure):
        RandomAffine(**arguments)


def test_rescale_with_bytes_out_is_refused():
    with pytest.raises(
        InputError, match=r"argument `rescale` must be None with dtype='uint8'\. Received: rescale=0\.1"
    ):
        RandomAffine(rescale=0.1, dtype="uint8")


def test_a_fill_value_that_no_byte_has_is_refused():
    with pytest.raises(InputError, match="argument `fill_value` must be a uint8 value"):
        RandomAffine(20, fill_mode="constant", fill_value=0.5 - 1).transform(IMAGES, KEY)


def test_boxes_without_a_format_are_refused():
    boxes = {"boxes": np.zeros((4, 1, 4)), "labels": np.ones((4, 1))}
    with pytest.raises(InputError, match=r"`bounding_box_format` must be one of 'xyxy', .* with bounding boxes"):
        RandomAffine().transform({"images": IMAGES, "bounding_boxes": boxes}, KEY)
