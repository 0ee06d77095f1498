"""Class weights as one weight for every example."""

from collections.abc import Mapping

import numpy as np

from keras_opt.core.errors import InputError, argument_error, is_number


def sample_weights(owner: str, y: np.ndarray, class_weight: str | Mapping[int, float]) -> np.ndarray:
    """Give every example the weight of its class.

    `"balanced"` is n / (classes * count of the class), over the classes that occur: every class then has the same
    sum of weights and the mean weight is 1.

    Args:
        owner: The public function that errors name.
        y: Class numbers of shape (n,) or (n, 1), or one-hot rows of shape (n, classes).
        class_weight: `"balanced"`, or a weight of at least 0 for every class that occurs.

    Returns:
        float32 of shape (n,).

    Raises:
        InputError: The labels are neither class numbers nor one-hot, or a weight is missing or negative.

    Source: G. King and L. Zeng, 2001, "Logistic Regression in Rare Events Data", eq. 3, as in scikit-learn.
    """
    labels = _class_numbers(owner, y)
    classes, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if isinstance(class_weight, str) and class_weight == "balanced":
        weights = len(labels) / (len(classes) * counts)
    elif isinstance(class_weight, Mapping):
        missing = [int(label) for label in classes if label not in class_weight]
        if missing or not all(is_number(weight) and weight >= 0 for weight in class_weight.values()):
            must_be = "a dict with a finite weight of at least 0 for every class"
            cure = f"Add a weight for class {missing[0]}." if missing else "Mend the weights; 0 leaves a class out."
            raise argument_error(owner, "class_weight", class_weight, must_be, cure)
        weights = np.array([class_weight[int(label)] for label in classes])
    else:
        must_be = "None, 'balanced' or a dict of class number to weight"
        raise argument_error(owner, "class_weight", class_weight, must_be, "Give for example 'balanced'.")
    return weights.astype(np.float32)[inverse]


def _class_numbers(owner, y):
    if y.ndim == 2 and y.shape[1] > 1:
        if np.isin(y, (0, 1)).all() and (y.sum(axis=1) == 1).all():
            return y.argmax(axis=1)
    elif y.size == len(y) and (y.dtype.kind in "iub" or (y.dtype.kind == "f" and (y == np.round(y)).all())):
        return y.reshape(-1).astype(np.int64)
    raise InputError(
        f"{owner}: class_weight needs class numbers of shape (n,) or one-hot rows of shape (n, classes). "
        f"Received: y of shape {y.shape} and type {y.dtype}. Give such labels, or leave class_weight out."
    )
