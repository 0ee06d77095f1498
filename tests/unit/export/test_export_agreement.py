"""Agreement against its definition, for each task."""

import re

import keras
import numpy as np
import pytest

from keras_opt.core.errors import InputError
from keras_opt.export.agreement import agreement, answers, check_task

REFERENCE = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.3, 0.3, 0.4], [0.2, 0.7, 0.1]])
OTHER = np.array([[0.6, 0.3, 0.1], [0.1, 0.2, 0.7], [0.3, 0.3, 0.4], [0.2, 0.7, 0.1]])


def test_classes_are_compared_for_a_classification_only():
    found = agreement("y", OTHER, REFERENCE, "classification", np.array([0, 1, 2, 0]))
    assert (found.same_answer, found.max_error) == (0.75, pytest.approx(0.4))
    assert found.relative_error == np.linalg.norm(OTHER - REFERENCE) / np.linalg.norm(REFERENCE)
    assert (found.reference_metric, found.other_metric, found.metric_change) == (0.75, 0.5, -0.25)
    one_hot = agreement("y", OTHER, REFERENCE, "classification", np.eye(3)[[0, 1, 2, 0]])
    assert one_hot == found
    assert agreement("y", OTHER, REFERENCE, "regression").same_answer is None


def test_labels_are_compared_one_by_one():
    found = agreement("y", OTHER, REFERENCE, "multi_label", np.eye(3)[[0, 1, 2, 1]])
    assert found.same_answer == 10 / 12  # the second row has two labels on the other side of one half
    assert (found.reference_metric, found.other_metric) == (11 / 12, 9 / 12)


def test_a_segmentation_is_compared_by_pixel():
    maps, others = REFERENCE.reshape(1, 2, 2, 3), OTHER.reshape(1, 2, 2, 3)
    found = agreement("mask", others, maps, "segmentation", np.array([[[0, 1], [2, 0]]]))
    assert (found.same_answer, found.reference_metric, found.other_metric) == (0.75, 0.75, 0.5)


def test_a_regression_has_its_mean_absolute_error():
    found = agreement("y", OTHER[:, :1], REFERENCE[:, :1], "regression", [0.7, 0.1, 0.3, 0.2])
    assert (found.reference_metric, found.metric) == (0.0, "mean absolute error")
    assert found.metric_change == pytest.approx(0.025)


def test_a_keras_metric_is_left_as_it_was():
    metric = keras.metrics.RootMeanSquaredError(name="rmse")
    metric.update_state([1.0], [3.0])
    found = agreement("y", OTHER, REFERENCE, metric, REFERENCE)
    assert (found.metric, found.same_answer, found.reference_metric) == ("rmse", None, 0.0)
    assert found.other_metric == pytest.approx(np.sqrt(np.mean((OTHER - REFERENCE) ** 2)), rel=1e-6)
    assert float(metric.result()) == 2.0


@pytest.mark.parametrize(("other", "error", "sqnr"), [(0.0, 0.0, np.inf), (1.0, np.inf, -np.inf)])
def test_a_reference_of_zeros(other, error, sqnr):
    found = agreement("y", np.full((2, 1), other), np.zeros((2, 1)), "regression")
    assert (found.relative_error, found.sqnr_db) == (error, sqnr)


def test_a_single_unit_answers_at_one_half():
    np.testing.assert_array_equal(answers(np.array([[0.4], [0.6]]), "classification", 0.5), [[False], [True]])
    found = agreement("y", np.array([[0.4], [0.6]]), np.array([[0.6], [0.7]]), "classification", [1, 1])
    assert (found.same_answer, found.reference_metric, found.other_metric) == (0.5, 1.0, 0.5)


@pytest.mark.parametrize("task", ["multi_label", "classification"])
def test_a_logit_answers_at_zero_as_its_sigmoid_does_at_one_half(task):
    logits, others = np.array([[-2.0], [0.3], [0.1], [4.0]]), np.array([[-1.9], [0.4], [-0.1], [3.9]])
    found = agreement("y", others, logits, task, [0, 1, 1, 1])
    probabilities = agreement("y", 1 / (1 + np.exp(-others)), 1 / (1 + np.exp(-logits)), task, [0, 1, 1, 1])
    for each in (found, probabilities):
        assert (each.same_answer, each.reference_metric, each.other_metric) == (0.75, 1.0, 0.75)


def test_one_task_for_all_or_one_for_each():
    assert check_task("verify", "regression", ["a", "b"]) == ("regression", "regression")
    assert check_task("verify", {"b": "multi_label", "a": "regression"}, ["a", "b"]) == ("regression", "multi_label")
    assert check_task("verify", ["regression", "segmentation"], ["a", "b"]) == ("regression", "segmentation")


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("classify", "Received: task='classify'."),
        (3, "`task` must be one of 'classification', 'multi_label', 'regression', 'segmentation', or a keras.metrics"),
        (None, "`task` must be one task, or one for each output: a, b."),
        ({"a": "regression"}, "`task` must be one task, or one for each output: a, b."),
        (["regression"], "Give for example {'a': 'regression', 'b': 'regression'}."),
    ],
)
def test_a_task_that_is_none(task, message):
    with pytest.raises(InputError, match=re.escape(message)):
        check_task("verify", task, ["a", "b"])
