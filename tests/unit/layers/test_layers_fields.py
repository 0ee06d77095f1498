import numpy as np
import pytest
import tensorflow as tf

from keras_opt.layers.fields import open_fields

BATCH = np.arange(2 * 3 * 4 * 3, dtype="uint8").reshape(2, 3, 4, 3)
BOXES = {"boxes": np.ones((2, 5, 4), "float32"), "labels": np.ones((2, 5), "int32")}
DICT = {
    "images": BATCH,
    "labels": np.array([1, 2]),
    "bounding_boxes": BOXES,
    "segmentation_masks": np.ones((2, 3, 4), "int32"),
    "keypoints": np.ones((2, 6, 2), "float32"),
    "file": b"a.jpg",
}


def one_of(value):
    return {name: one_of(part) for name, part in value.items()} if isinstance(value, dict) else value[0]


def test_images_alone_come_back_alone():
    fields, give_back = open_fields("Layer", BATCH)
    assert list(fields) == ["images"]
    np.testing.assert_array_equal(give_back(fields), BATCH)


@pytest.mark.parametrize("form", [tuple, list])
@pytest.mark.parametrize("rest", [("labels",), ("labels", "sample_weights")])
def test_pairs_and_triples_come_back_in_their_form(form, rest):
    inputs = form([BATCH, *(np.array([number, number]) for number, _ in enumerate(rest))])
    fields, give_back = open_fields("Layer", inputs)
    assert list(fields) == ["images", *rest]
    back = give_back(fields)
    assert type(back) is form
    for given, got in zip(inputs, back, strict=True):
        np.testing.assert_array_equal(got, given)


def test_a_dict_comes_back_with_all_its_keys_and_is_not_mutated():
    inputs = dict(DICT)
    fields, give_back = open_fields("Layer", inputs)
    fields["images"] = fields["images"] + 1
    fields["bounding_boxes"]["boxes"] = 0
    back = give_back(fields)
    assert list(back) == list(DICT)
    assert back["file"] is DICT["file"]
    assert inputs == DICT
    assert isinstance(BOXES["boxes"], np.ndarray)


def test_one_image_is_a_batch_of_one_in_every_known_field():
    one = {**one_of({name: value for name, value in DICT.items() if name != "file"}), "file": b"a.jpg"}
    fields, give_back = open_fields("Layer", one)
    assert fields["images"].shape == (1, 3, 4, 3)
    assert fields["labels"].shape == (1,)
    assert fields["bounding_boxes"]["boxes"].shape == (1, 5, 4)
    assert fields["segmentation_masks"].shape == (1, 3, 4)
    assert fields["keypoints"].shape == (1, 6, 2)
    back = give_back(fields)
    assert back["file"] is DICT["file"]
    np.testing.assert_array_equal(back["images"], BATCH[0])
    np.testing.assert_array_equal(back["bounding_boxes"]["boxes"], BOXES["boxes"][0])


def test_labels_may_be_a_structure():
    labels = {"kind": np.array([1, 2]), "age": np.array([3.0, 4.0])}
    fields, give_back = open_fields("Layer", (BATCH, labels))
    np.testing.assert_array_equal(give_back(fields)[1]["age"], [3.0, 4.0])


def test_ragged_boxes_become_dense():
    boxes = tf.ragged.constant([[[1.0, 2, 3, 4]], [[1, 2, 3, 4], [5, 6, 7, 8]]], ragged_rank=1)
    ragged = {"boxes": boxes, "labels": tf.ragged.constant([[7], [8, 9]])}
    fields, _ = open_fields("Layer", {"images": BATCH, "bounding_boxes": ragged})
    assert fields["bounding_boxes"]["boxes"].numpy()[0].tolist() == [[1, 2, 3, 4], [0, 0, 0, 0]]
    assert fields["bounding_boxes"]["labels"].numpy().tolist() == [[7, -1], [8, 9]]


@pytest.mark.parametrize(
    ("inputs", "received"),
    [
        ("image", "str"),
        ({"image": BATCH}, "a dict of ['image']"),
        ((BATCH,), "tuple of ndarray"),
        (({"images": BATCH}, BATCH), "tuple of dict, ndarray"),
        (None, "NoneType"),
    ],
)
def test_another_form_is_refused(inputs, received):
    with pytest.raises(TypeError, match="Layer: argument `inputs` must be images, ") as caught:
        open_fields("Layer", inputs)
    assert received in str(caught.value)


@pytest.mark.parametrize("images", [np.zeros((3, 4)), np.zeros((1, 2, 3, 4, 5)), np.zeros((3, 4, 3), bool)])
def test_what_is_no_image_is_refused(images):
    with pytest.raises(ValueError, match="Layer: images must be numbers of shape"):
        open_fields("Layer", images)
