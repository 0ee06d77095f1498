"""Weights of examples, against scikit-learn."""

import re

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_sample_weight

from keras_opt.core.errors import InputError
from keras_opt.data.class_weights import sample_weights

LABELS = np.array([2, 0, 2, 2, 5, 0, 2, 2, 5, 2], np.uint8)


@pytest.mark.parametrize("class_weight", ["balanced", {0: 2.0, 2: 0, 5: 0.25, 7: 9.0}])
@pytest.mark.parametrize(
    "y",
    [LABELS, LABELS.astype(np.float32), LABELS[:, np.newaxis], np.eye(6, dtype=np.float32)[LABELS]],
    ids=["numbers", "floats", "column", "one-hot"],
)
def test_scikit_learn_gives_the_same(y, class_weight):
    weights = sample_weights("arrays", y, class_weight)
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights, compute_sample_weight(class_weight, LABELS), rtol=1e-6)


def test_balanced_weights_give_every_class_the_same_sum_and_mean_one():
    weights = sample_weights("arrays", LABELS, "balanced")
    np.testing.assert_allclose(np.bincount(LABELS, weights)[[0, 2, 5]], 10 / 3, rtol=1e-6)


@pytest.mark.parametrize(
    ("class_weight", "message"),
    [
        ({0: 1.0, 2: 1.0}, "must be a dict with a finite weight of at least 0 for every class.*weight for class 5."),
        (
            {0: 1.0, 2: 1.0, 5: -1.0},
            "must be a dict with a finite weight of at least 0 for every class.*Mend the weights",
        ),
        (
            {0: 1.0, 2: 1.0, 5: float("nan")},
            "must be a dict with a finite weight of at least 0 for every class.*Mend the weights",
        ),
        ("balance", "must be None, 'balanced' or a dict.*class_weight='balance'. Give for example 'balanced'."),
        ([1.0, 2.0], "must be None, 'balanced' or a dict"),
    ],
)
def test_class_weight_argument(class_weight, message):
    with pytest.raises(InputError, match=f"^arrays: argument `class_weight` {message}"):
        sample_weights("arrays", LABELS, class_weight)


@pytest.mark.parametrize(
    "y",
    [np.array([0.5, 1.0]), np.array([[0.7, 0.3], [0, 1]]), np.array([[1, 1], [0, 1]]), np.zeros((2, 3, 4)), ["a", "b"]],
    ids=["regression", "mixed", "multi-label", "maps", "texts"],
)
def test_labels_without_one_class_each(y):
    y = np.asarray(y)
    message = (
        "arrays: class_weight needs class numbers of shape (n,) or one-hot rows of shape (n, classes). "
        f"Received: y of shape {y.shape} and type {y.dtype}. Give such labels, or leave class_weight out."
    )
    with pytest.raises(InputError, match="^" + re.escape(message) + "$"):
        sample_weights("arrays", y, "balanced")
