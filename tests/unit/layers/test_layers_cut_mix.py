import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_opt.core.errors import InputError
from keras_opt.layers import CutMix
from keras_opt.layers.cut_mix import box_spans, paste

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 4, 5, 3), "uint8")
NUMBERS = np.arange(6)
ROWS = np.eye(6, dtype="float32")
MASKS = np.random.default_rng(1).integers(0, 9, (6, 4, 5, 1), "uint8")


@pytest.mark.parametrize("size", [1, 7, 224])
def test_boxes_have_the_asked_size_and_lie_inside(size):
    own = tf.linspace(0.0, 1.0, 500)
    starts, lengths = (part.numpy() for part in box_spans(tf.constant([1, 2]), own, size))
    np.testing.assert_allclose(lengths, size * np.sqrt(1 - own), atol=0.5001)
    assert starts.min() >= 0
    assert (starts + lengths).max() <= size


def test_boxes_start_anywhere_inside():
    starts, _ = box_spans(tf.constant([1, 2]), tf.fill([4000], 0.75), 10)  # a box of 5 pixels: 6 places
    shares = np.bincount(starts.numpy(), minlength=6) / 4000
    assert len(shares) == 6
    np.testing.assert_allclose(shares, 1 / 6, atol=0.03)


def test_paste():
    values = tf.reshape(tf.range(24), (2, 3, 4))
    rows, columns = (([1, 0], [2, 0]), ([0, 0], [2, 4]))
    pasted = paste(values, [1, 0], rows, columns, (1, 2)).numpy()
    np.testing.assert_array_equal(pasted[0], [[0, 1, 2, 3], [16, 17, 6, 7], [20, 21, 10, 11]])
    np.testing.assert_array_equal(pasted[1], values[1])


@pytest.mark.parametrize("channels", [None, 1, 2, 3])
@pytest.mark.parametrize("kind", ["uint8", "float32"])
def test_masks_keep_their_channels_and_dtype(channels, kind):
    shape = (6, 4, 5) if channels is None else (6, 4, 5, channels)
    masks = np.ones(shape, kind)
    mixed = CutMix(num_classes=6)({"images": IMAGES, "labels": NUMBERS, "segmentation_masks": masks})
    assert mixed["segmentation_masks"].dtype == kind
    np.testing.assert_array_equal(mixed["segmentation_masks"], masks)


def test_keras_makes_three_channels_of_one():
    """What the test above guards against."""
    given = {"images": IMAGES, "labels": ROWS, "segmentation_masks": MASKS}
    assert keras.layers.CutMix()(given)["segmentation_masks"].shape == (6, 4, 5, 3)


def test_a_dict_is_not_mutated():
    given = {"images": tf.constant(IMAGES), "labels": tf.constant(ROWS), "segmentation_masks": tf.constant(MASKS)}
    before = dict(given)
    CutMix()(given)
    assert all(given[name] is before[name] for name in before)


def test_class_numbers_never_broadcast():
    assert CutMix(num_classes=8)((IMAGES, NUMBERS))[1].shape == (6, 8)
    with pytest.raises(InputError, match="`num_classes` must be the number of classes"):
        CutMix()((IMAGES, NUMBERS))
    mixed = keras.layers.CutMix()({"images": IMAGES, "labels": NUMBERS.astype("float32")})
    assert mixed["labels"].shape == (6, 6)  # Keras


def test_channels_first_gives_the_same_images():
    key = tf.constant([1, 2])
    last = CutMix().transform((IMAGES, ROWS), key)
    first = CutMix(data_format="channels_first").transform((np.moveaxis(IMAGES, -1, 1), ROWS), key)
    np.testing.assert_array_equal(np.moveaxis(first[0], 1, -1), last[0])
    np.testing.assert_array_equal(first[1], last[1])


def test_inference_changes_the_form_of_labels_and_nothing_else():
    given = {"images": IMAGES, "labels": NUMBERS, "segmentation_masks": MASKS}
    out = CutMix(num_classes=6)(given, training=False)
    np.testing.assert_array_equal(out["images"], IMAGES)
    np.testing.assert_array_equal(out["labels"], ROWS)
    np.testing.assert_array_equal(out["segmentation_masks"], MASKS)


def test_a_dataset_of_pairs_can_be_mapped():
    dataset = tf.data.Dataset.from_tensor_slices((IMAGES, NUMBERS)).batch(4)
    with pytest.warns(UserWarning, match=r"keras_opt\.data\.augment"):
        dataset = dataset.map(CutMix(num_classes=6, dtype="uint8"))
    assert [(tuple(images.shape), images.dtype, tuple(labels.shape)) for images, labels in dataset] == [
        ((4, 4, 5, 3), tf.uint8, (4, 6)),
        ((2, 4, 5, 3), tf.uint8, (2, 6)),
    ]


def test_in_a_model_it_says_where_it_belongs():
    with pytest.raises(InputError, match=r"^CutMix: images cannot .* belongs into the data, after batching"):
        CutMix()(keras.Input((4, 5, 3)))


def test_config_and_seed_counter_survive():
    cut_mix = CutMix((0.5, 1), 3, "channels_last", 6, name="c")
    store = {}
    cut_mix((IMAGES, NUMBERS))
    cut_mix.save_own_variables(store)
    restored = CutMix.from_config(cut_mix.get_config())
    restored.load_own_variables(store)
    assert restored.get_config() == cut_mix.get_config()
    assert restored.factor == (0.5, 1.0)
    assert CutMix(0.5).factor == (0.0, 0.5)
    for ours, expected in zip(restored((IMAGES, NUMBERS)), cut_mix((IMAGES, NUMBERS)), strict=True):
        np.testing.assert_array_equal(ours, expected)


def test_the_config_of_keras_is_taken():
    cut_mix = CutMix.from_config(keras.layers.CutMix(0.5, 3).get_config())
    assert (cut_mix.factor, cut_mix.seed) == ((0.0, 0.5), 3)
