"""Precision, recall and F1 of each class, from a confusion matrix."""

from dataclasses import dataclass

import numpy as np

from keras_opt.core.errors import argument_error


@dataclass(frozen=True, eq=False)
class ClassScores:
    """Scores by class, each an array `(classes,)`.

    Args:
        precision: Right predictions of the class / all predictions of it; 0 where it was never predicted.
        recall: Right predictions of the class / its images; 0 where it has none.
        f1: Harmonic mean of the two; 0 where both are 0.
        support: Images of the class.
        predicted: Predictions of the class.
    """

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    support: np.ndarray
    predicted: np.ndarray


def class_scores(counts: np.ndarray) -> ClassScores:
    """Compute precision, recall and F1 of each class.

    With `c` the counts: precision_k = c_kk / sum_i c_ik, recall_k = c_kk / sum_j c_kj, and
    F1_k = 2 c_kk / (sum_i c_ik + sum_j c_kj). A quotient 0 / 0 counts as 0, as in scikit-learn with zero_division=0.

    Args:
        counts: Integers `(classes, classes)`: true classes in rows, predicted ones in columns.

    Raises:
        InputError: `counts` is not a square matrix of counts of at least two classes.

    Example:
        >>> class_scores([[3, 1], [0, 4]]).recall
        array([0.75, 1.  ])
    """
    counts = check_counts("class_scores", counts)
    right, support, predicted = counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)
    return ClassScores(
        precision=right / np.maximum(predicted, 1),
        recall=right / np.maximum(support, 1),
        f1=2 * right / np.maximum(support + predicted, 1),
        support=support,
        predicted=predicted,
    )


def most_confused(counts: np.ndarray, limit: int = 5) -> list[tuple[int, int, int]]:
    """The most frequent confusions as (true class, predicted class, count), most frequent first, at most `limit`."""
    wrong = check_counts("most_confused", counts).copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:limit]
    pairs = (divmod(int(index), len(wrong)) for index in order)
    return [(row, column, int(wrong[row, column])) for row, column in pairs if wrong[row, column]]


def check_counts(owner: str, counts: np.ndarray) -> np.ndarray:
    """Return `counts` as an int64 array, or raise unless it is a square matrix of counts of at least two classes."""
    counts = np.asarray(counts)
    square = counts.ndim == 2 and counts.shape[0] == counts.shape[1] >= 2
    if square and np.issubdtype(counts.dtype, np.integer) and counts.min() >= 0:
        return counts.astype(np.int64)
    must_be = "a square matrix of integers of at least 0, for at least two classes"
    cure = "Count true classes in rows and predicted ones in columns."
    raise argument_error(owner, "counts", f"{counts.dtype} {counts.shape}", must_be, cure)
