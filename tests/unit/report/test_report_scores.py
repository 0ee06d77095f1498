import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support

from keras_opt.core.errors import InputError
from keras_opt.report.scores import class_scores, most_confused


@pytest.mark.parametrize("seed", range(20))
def test_scores_equal_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    classes = int(rng.integers(2, 9))
    counts = rng.integers(0, 6, (classes, classes))
    if seed % 3 == 0:
        counts[:, 0] = 0  # a class that is never predicted
    if seed % 4 == 0:
        counts[-1] = 0  # a class without images
    true, predicted = (np.repeat(index.ravel(), counts.ravel()) for index in np.indices(counts.shape))
    expected = precision_recall_fscore_support(true, predicted, labels=range(classes), zero_division=0)
    scores = class_scores(counts)
    for ours, theirs in zip((scores.precision, scores.recall, scores.f1, scores.support), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    np.testing.assert_array_equal(scores.predicted, np.bincount(predicted, minlength=classes))


def test_most_confused_is_sorted_and_leaves_out_the_diagonal_and_zeros():
    counts = np.array([[90, 2, 0], [7, 80, 1], [0, 7, 70]])
    assert most_confused(counts) == [(1, 0, 7), (2, 1, 7), (0, 1, 2), (1, 2, 1)]
    assert most_confused(counts, limit=1) == [(1, 0, 7)]
    assert most_confused(np.eye(3, dtype=int)) == []
    assert counts[0, 0] == 90


@pytest.mark.parametrize(
    "counts", [[[1]], [1, 2], [[1, 2, 3], [4, 5, 6]], [[0.5, 1.0], [1.0, 1.0]], [[1, -1], [0, 1]]], ids=str
)
def test_what_is_no_count_matrix_is_refused(counts):
    with pytest.raises(InputError, match="class_scores: argument `counts` must be a square matrix of integers"):
        class_scores(counts)
