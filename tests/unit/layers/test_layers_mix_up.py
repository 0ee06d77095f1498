import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_opt.core.errors import InputError
from keras_opt.layers import MixUp

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 4, 5, 3), "uint8")
NUMBERS = np.arange(6)
ROWS = np.eye(6, dtype="float32")
WEIGHTS = np.arange(1.0, 7.0)


def test_a_pair_gives_a_pair_and_a_triple_a_triple():
    mix_up = MixUp(num_classes=6)
    images, labels = mix_up((IMAGES, NUMBERS))
    assert images.shape == IMAGES.shape
    assert labels.shape == (6, 6)
    images, labels, weights = mix_up((IMAGES, NUMBERS, WEIGHTS))
    assert images.dtype == labels.dtype == weights.dtype == tf.float32
    assert weights.shape == (6,)
    assert 1 <= min(weights) <= max(weights) <= 6


def test_a_dict_keeps_its_keys_and_is_not_mutated():
    given = {"images": tf.constant(IMAGES), "labels": tf.constant(ROWS), "path": tf.constant(["a"] * 6)}
    before = dict(given)
    mixed = MixUp(alpha=1.0)(given)
    assert list(mixed) == list(given)
    assert all(given[name] is before[name] for name in before)
    assert mixed["path"] is given["path"]
    assert np.abs(mixed["images"] - IMAGES).max() > 10


@pytest.mark.parametrize("kind", ["int32", "float32"])
@pytest.mark.parametrize("shape", [(6,), (6, 1)])
def test_class_numbers_never_broadcast(kind, shape):
    labels = NUMBERS.astype(kind).reshape(shape)
    assert MixUp(num_classes=8)((IMAGES, labels))[1].shape == (6, 8)
    with pytest.raises(InputError, match=r"`num_classes`|`labels` must be probabilities"):
        MixUp()((IMAGES, labels))


def test_keras_broadcasts_class_numbers():
    """What the test above guards against."""
    mixed = keras.layers.MixUp()({"images": IMAGES, "labels": NUMBERS.astype("float32")})
    assert mixed["labels"].shape == (6, 6)


def test_a_dataset_of_pairs_or_triples_can_be_mapped():
    mix_up = MixUp(num_classes=6)
    dataset = tf.data.Dataset.from_tensor_slices((IMAGES, NUMBERS, WEIGHTS)).batch(4)
    with pytest.warns(UserWarning, match=r"keras_opt\.data\.augment"):
        pairs = dataset.map(lambda images, labels, weights: (images, labels)).map(mix_up)
    with pytest.warns(UserWarning, match=r"keras_opt\.data\.augment"):
        triples = dataset.map(mix_up)
    for batches in (pairs, triples):
        assert [tuple(batch[1].shape) for batch in batches] == [(4, 6), (2, 6)]
        assert batches.element_spec[0].shape == (None, 4, 5, 3)


def test_inference_changes_the_form_of_labels_and_nothing_else():
    images, labels, weights = MixUp(num_classes=6)((IMAGES, NUMBERS, WEIGHTS), training=False)
    np.testing.assert_array_equal(images, IMAGES)
    np.testing.assert_array_equal(labels, ROWS)
    np.testing.assert_array_equal(weights, WEIGHTS)


def test_masks_of_class_numbers_are_mixed_as_probabilities():
    masks = np.arange(6).repeat(20).reshape(6, 4, 5, 1)
    mixed = MixUp(alpha=1.0, num_classes=6)({"images": IMAGES, "labels": NUMBERS, "segmentation_masks": masks})
    labels = np.broadcast_to(mixed["labels"][:, np.newaxis, np.newaxis], (6, 4, 5, 6))
    np.testing.assert_allclose(mixed["segmentation_masks"], labels)


def test_bytes_are_rounded_where_bytes_are_asked_for():
    key = tf.constant([1, 2])
    images = MixUp(alpha=1.0).transform((IMAGES, ROWS), key)[0]
    as_bytes = MixUp(alpha=1.0, dtype="uint8").transform((IMAGES, ROWS), key)[0]
    assert as_bytes.dtype == tf.uint8
    np.testing.assert_array_equal(as_bytes, np.round(images))


def test_labels_stay_float32_in_mixed_precision():
    images, labels = MixUp(dtype="mixed_float16")((IMAGES.astype("float32"), ROWS))
    assert (images.dtype, labels.dtype) == (tf.float16, tf.float32)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (IMAGES, "images cannot be mixed without their labels"),
        ({"images": IMAGES}, "images cannot be mixed without their labels"),
        ((IMAGES[0], ROWS[0]), "one image has no other to be mixed with"),
        ({"images": IMAGES, "labels": ROWS, "keypoints": np.zeros((6, 2, 2))}, "`keypoints` cannot be mixed"),
        (
            {
                "images": IMAGES,
                "labels": ROWS,
                "bounding_boxes": {"boxes": np.zeros((6, 1, 4)), "labels": np.zeros((6, 1))},
            },
            "`bounding_boxes` cannot be mixed",
        ),
    ],
)
@pytest.mark.parametrize("training", [True, False])
def test_what_cannot_be_mixed_is_refused(inputs, message, training):
    with pytest.raises(InputError, match=f"MixUp: {message}"):
        MixUp()(inputs, training=training)


def test_in_a_model_it_says_where_it_belongs():
    with pytest.raises(InputError, match=r"^MixUp: images cannot .* belongs into the data, after batching") as caught:
        keras.Sequential([keras.Input((4, 5, 3)), MixUp(num_classes=6)])
    assert "Could not automatically infer" not in str(caught.value)


def test_config_and_seed_counter_survive():
    mix_up = MixUp(0.4, 6, 3, data_format="channels_first", name="m")
    store = {}
    mix_up((IMAGES, NUMBERS))
    mix_up.save_own_variables(store)
    restored = MixUp.from_config(mix_up.get_config())
    restored.load_own_variables(store)
    assert restored.get_config() == mix_up.get_config()
    for ours, expected in zip(restored((IMAGES, NUMBERS)), mix_up((IMAGES, NUMBERS)), strict=True):
        np.testing.assert_array_equal(ours, expected)
