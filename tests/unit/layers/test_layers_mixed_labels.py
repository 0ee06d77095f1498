import numpy as np
import pytest
import tensorflow as tf

from keras_opt.core.errors import InputError
from keras_opt.layers.mixed_labels import blend, mix_targets, probabilities

ROWS = np.eye(4)[[2, 0, 3]]


def labels(values, num_classes=None, name="labels"):
    return probabilities("MixUp", name, tf.constant(values), num_classes)


@pytest.mark.parametrize("kind", ["int32", "int64", "uint8", "float32", "float64"])
@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_class_numbers_become_one_hot(kind, shape):
    rows = labels(np.array([2, 0, 3], kind).reshape(shape), num_classes=4)
    assert rows.dtype == tf.float32
    np.testing.assert_array_equal(rows, ROWS)


@pytest.mark.parametrize("num_classes", [None, 4])
@pytest.mark.parametrize("kind", ["int32", "bool", "float16", "float64"])
def test_one_hot_rows_stay(kind, num_classes):
    rows = labels(ROWS.astype(kind), num_classes)
    assert rows.dtype == tf.float32
    np.testing.assert_array_equal(rows, ROWS)


def test_binary_floats_stay():
    np.testing.assert_array_equal(labels([[0.0], [1.0]]), [[0], [1]])


def test_soft_labels_may_exceed_one_by_rounding():
    np.testing.assert_allclose(labels([[1.0005, 0.0]]), [[1.0005, 0]])


def test_masks_of_class_numbers_become_one_hot():
    masks = np.array([[[2, 0], [1, 1]]])
    for values in (masks, masks[..., np.newaxis]):
        np.testing.assert_array_equal(labels(values, 3, "segmentation_masks"), np.eye(3)[masks])


@pytest.mark.parametrize("values", [[2, 0, 3], [2.0, 0.0, 3.0], [[2], [0], [3]], [True, False, True]])
def test_class_numbers_without_their_number_are_refused(values):
    with pytest.raises(InputError, match="MixUp: argument `num_classes` must be the number of classes for `labels`"):
        labels(values)


@pytest.mark.parametrize("values", [[0, 4], [-1, 0], [0.5, 1.0], [float("nan"), 0.0]])
def test_what_is_no_class_number_is_refused(values):
    with pytest.raises(InputError, match="`labels` must be class numbers from 0 to num_classes - 1 = 3"):
        labels(values, num_classes=4)


@pytest.mark.parametrize("values", [[[3.0], [4.0]], [[2, 7]], [[-0.1, 1.1]], [[float("nan"), 0.0]]])
def test_what_is_no_probability_is_refused(values):
    with pytest.raises(InputError, match=r"`labels` must be probabilities in \[0, 1\]"):
        labels(values)


def test_a_graph_refuses_when_it_runs():
    @tf.function(autograph=False)
    def turned(values):
        return probabilities("MixUp", "labels", values, 4)

    np.testing.assert_array_equal(turned(tf.constant([2, 0, 3])), ROWS)
    with pytest.raises(tf.errors.InvalidArgumentError, match="MixUp: `labels` must be class numbers from 0"):
        turned(tf.constant([2, 0, 4]))


def test_another_number_of_columns_is_refused():
    with pytest.raises(
        InputError, match=r"`num_classes` must be the number of classes in `labels`, 4\. Received: .*=5"
    ):
        labels(ROWS, num_classes=5)


@pytest.mark.parametrize("values", [["a", "b"], np.zeros((2, 3, 3)), 1.0])
def test_another_form_is_refused(values):
    with pytest.raises(
        InputError, match=r"`labels` must be one tensor, \(batch, classes\), or class numbers \(batch\)"
    ):
        labels(values, num_classes=3)


def test_labels_of_several_heads_are_refused():
    with pytest.raises(InputError, match="Received: a dict"):
        probabilities("MixUp", "labels", {"a": tf.zeros((2, 3))}, None)


def test_blend():
    values = tf.constant([[0, 10], [4, 20]], "uint8")
    np.testing.assert_allclose(blend(values, [1, 0], tf.constant([0.25, 1.0])), [[3, 17.5], [4, 20]])


def test_without_sample_weights_labels_have_the_shares_of_the_images():
    mixed = mix_targets("MixUp", {"labels": tf.eye(2), "other": 1}, ["labels"], [1, 0], tf.constant([0.25, 0.5]))
    np.testing.assert_allclose(mixed["labels"], [[0.25, 0.75], [0.5, 0.5]])
    assert mixed["other"] == 1


@pytest.mark.parametrize("shape", [(2,), (2, 1)])
def test_the_loss_is_that_of_two_weighted_examples(shape):
    weights, own = np.array([1.0, 6.0]), np.array([0.25, 0.5])
    fields = {"labels": tf.eye(2), "sample_weights": tf.constant(weights.reshape(shape))}
    mixed = mix_targets("MixUp", fields, ["labels"], [1, 0], tf.constant(own, "float32"))
    losses = np.array([[0.3, 2.0], [1.1, 0.7]])  # of each example, -log of the probability of each class
    expected = own * weights * np.diag(losses) + (1 - own) * weights[::-1] * np.diag(losses[:, ::-1])
    assert mixed["sample_weights"].shape == shape
    total = np.reshape(mixed["sample_weights"], -1)
    np.testing.assert_allclose(total, own * weights + (1 - own) * weights[::-1])
    np.testing.assert_allclose(total * (mixed["labels"] * losses).numpy().sum(1), expected, rtol=1e-6)


def test_an_example_of_weight_zero_teaches_nothing():
    fields = {"labels": tf.eye(2), "sample_weights": tf.constant([1, 0])}
    mixed = mix_targets("MixUp", fields, ["labels"], [1, 0], tf.constant([0.25, 0.25]))
    np.testing.assert_allclose(mixed["labels"], [[1, 0], [1, 0]])
    np.testing.assert_allclose(mixed["sample_weights"], [0.25, 0.75])


def test_weights_that_are_all_zero_leave_labels_that_add_up():
    fields = {"labels": tf.eye(2), "sample_weights": tf.zeros(2)}
    mixed = mix_targets("MixUp", fields, ["labels"], [1, 0], tf.constant([0.25, 0.25]))
    np.testing.assert_array_equal(mixed["labels"].numpy().sum(1), [1, 1])


def test_weights_of_pixels_are_refused():
    with pytest.raises(InputError, match="MixUp: sample weights must be one number an image"):
        mix_targets("MixUp", {"sample_weights": tf.ones((2, 3, 3))}, [], [1, 0], tf.ones(2))
