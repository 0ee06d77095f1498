import numpy as np
import pytest

from keras_opt.core.errors import InputError
from keras_opt.report import Bar, ConfusionMatrix, Line, Mistake, Table

IMAGE = np.zeros((4, 4, 1), np.uint8)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Table("T", ("a", "b"), [("1",)]), "Table: argument `rows` must be rows of 2 cells"),
        (lambda: Line("l", [1, 2], [1]), "Line: argument `y` must be as long as x"),
        (lambda: Line("l", [1], [1], series=-1), "Line: argument `series` must be an integer of at least 0"),
        (lambda: Bar("b", float("nan"), "?"), "Bar: argument `value` must be a finite number of at least 0"),
        (lambda: Bar("b", -1.0, "-1"), "Bar: argument `value` must be a finite number of at least 0"),
        (lambda: ConfusionMatrix(["a", "b"], np.eye(3, dtype=int)), "argument `class_names` must be 3 names"),
        (lambda: ConfusionMatrix(["a"], [[3]]), "ConfusionMatrix: argument `counts` must be a square matrix"),
        (lambda: Mistake(IMAGE, "a", "b", 91.0), "Mistake: argument `probability` must be a fraction"),
        (lambda: Mistake(IMAGE[..., 0], "a", "b", 0.9), "Mistake: argument `image` must be uint8"),
        (lambda: Mistake(IMAGE / 255, "a", "b", 0.9), "Mistake: argument `image` must be uint8"),
        (lambda: Mistake(IMAGE[:0], "a", "b", 0.9), "Mistake: argument `image` must be uint8"),
    ],
)
def test_wrong_data_is_refused_where_it_is_made(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_a_confusion_matrix_takes_nested_lists():
    assert ConfusionMatrix(["a", "b"], [[3, 1], [0, 2]]).counts.sum() == 6
