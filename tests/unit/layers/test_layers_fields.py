import numpy as np
import pytest
import tensorflow as tf

from keras_opt.core.errors import InputError
from keras_opt.layers import CutMix, MixUp, RandAugment
from keras_opt.layers.fields import as_dtype, open_fields

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
        ((None, BATCH), "tuple of NoneType, ndarray"),
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


@pytest.mark.parametrize("shape", [(32, 28, 28), (None, 28, 28)])
def test_a_batch_without_channels_is_not_taken_for_one_image(shape):
    with pytest.raises(InputError, match=r"Layer: a batch .* Received: shape \((32|None), 28, 28\)\. .*np\.newaxis"):
        given_in_a_graph(shape)


@pytest.mark.parametrize("shape", [(28, 28, 4), (3, 28, 28), (None, None, None), (4, 28, 28, 7)])
def test_few_channels_may_be_first_or_last_and_a_batch_may_have_many(shape):
    given_in_a_graph(shape)


@pytest.mark.parametrize("masks", [(2, 3, 5), (2, 6, 8, 1)])
def test_masks_of_another_size_are_refused(masks):
    with pytest.raises(InputError, match=r"Layer: segmentation masks must .* height and width .*\(2, 3, 4, 3\)"):
        open_fields("Layer", {"images": BATCH, "segmentation_masks": np.ones(masks)})


def test_labels_that_are_masks_are_refused():
    for pair in (BATCH, BATCH[..., :1]), (BATCH, BATCH[..., 0]), (BATCH[0], BATCH[0, ..., 0]):
        with pytest.raises(InputError, match=r'Layer: labels with .* are masks.*"segmentation_masks": masks'):
            open_fields("Layer", pair)


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("masks", "segmentation_masks"),
        ("segmentation_mask", "segmentation_masks"),
        ("bboxes", "bounding_boxes"),
        ("bounding_box", "bounding_boxes"),
        ("Keypoint", "keypoints"),
        ("label", "labels"),
    ],
)
def test_a_key_that_would_be_left_behind_is_refused(key, meant):
    with pytest.raises(InputError, match=rf"Layer: the key '{key}' .*Did you mean '{meant}'\?"):
        open_fields("Layer", {"images": BATCH, key: np.ones((2, 3, 4))})


@pytest.mark.parametrize("key", ["file", "image_id", "class_names", "id"])
def test_another_key_passes_through(key):
    assert open_fields("Layer", {"images": BATCH, key: 3})[0][key] == 3


def test_boxes_have_their_dict():
    with pytest.raises(TypeError, match=r'Layer: argument `bounding_boxes` must be a dict .*ndarray.*"boxes": boxes'):
        open_fields("Layer", {"images": BATCH, "bounding_boxes": BOXES["boxes"]})
    for labels in (BOXES["boxes"], BOXES, {"bounding_boxes": BOXES}):
        with pytest.raises(InputError, match=r'Layer: .*labels.*"bounding_boxes": {"boxes": boxes'):
            open_fields("Layer", (BATCH, labels))


def test_a_sequence_of_four_numbers_passes_by_the_way_that_its_error_names():
    sequence = np.ones((2, 7, 4), "float32")
    with pytest.raises(InputError, match=r'pass with a name of their own: \(images, {"sequence": labels}\)\.$'):
        open_fields("Layer", (BATCH, sequence))
    fields, give_back = open_fields("Layer", (BATCH, {"sequence": sequence}))
    np.testing.assert_array_equal(give_back(fields)[1]["sequence"], sequence)


def test_ragged_images_are_refused():
    images = tf.ragged.stack([BATCH[0], BATCH[1, :2]])
    with pytest.raises(InputError, match=r"Layer: `images` must have one size .* RaggedTensor of shape \(2, None, "):
        open_fields("Layer", images)


def test_a_weight_of_none_comes_back():
    fields, give_back = open_fields("Layer", (BATCH, np.array([1, 2]), None))
    assert list(fields) == ["images", "labels"]
    assert give_back(fields)[2] is None


def test_labels_of_unknown_shape_are_none():
    given_in_a_graph((None, None, None, 3), None)
    given_in_a_graph((None, None, None, 3), (None, None, None))
    with pytest.raises(InputError, match="are masks"):
        given_in_a_graph((None, None, 3), (None, None, 1))


def test_bytes_are_the_nearest_ones_and_floats_are_left():
    assert as_dtype(tf.constant([-3.0, 1.4, 254.6, 300]), "uint8").numpy().tolist() == [0, 1, 255, 255]
    assert as_dtype(tf.constant([-3.0, 300]), "float16").numpy().tolist() == [-3, 300]


@pytest.mark.parametrize("layer", [CutMix, MixUp, RandAugment])
def test_every_layer_rounds_where_bytes_are_asked_for(layer):
    images, _ = layer(dtype="uint8")((np.full((2, 3, 4, 3), 254.9), np.eye(2)), training=False)
    assert np.unique(images) == 255


def given_in_a_graph(*shapes):
    opened = tf.function(lambda *inputs: open_fields("Layer", inputs if shapes[1:] else inputs[0])[0], autograph=False)
    opened.get_concrete_function(*map(tf.TensorSpec, shapes))
