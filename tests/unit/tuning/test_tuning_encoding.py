"""Points as rows of numbers."""

import keras_tuner
import numpy as np

from keras_opt.tuning.encoding import Encoding
from keras_opt.tuning.gaussian_process_point import _modelled_losses
from keras_opt.tuning.space import draw


def mixed():
    space = keras_tuner.HyperParameters()
    space.Float("rate", 1e-4, 1e-2, sampling="log")
    space.Int("units", 8, 64, step=8)
    space.Choice("optimizer", ["sgd", "adam", "lion"])
    space.Fixed("classes", 10)
    with space.conditional_scope("optimizer", ["sgd", "lion"]):
        space.Float("momentum", 0.0, 0.9)
        space.Boolean("nesterov")
    return space.space


def test_a_point_comes_back_from_its_row():
    encoding, generator = Encoding(mixed()), np.random.default_rng(0)
    for _ in range(30):
        point = draw(encoding.space, generator)
        back = encoding.point(encoding.snap(encoding.row(point)[None])[0])
        assert back.keys() == point.keys()
        for name, value in point.items():
            assert back[name] == value or np.isclose(back[name], value)


def test_random_rows_snap_to_points_and_stay_there():
    encoding = Encoding(mixed())
    rows = encoding.snap(np.random.default_rng(0).random((200, 6)))
    np.testing.assert_array_equal(encoding.snap(rows), rows)
    np.testing.assert_allclose([encoding.row(encoding.point(row)) for row in rows], rows, atol=1e-12)
    adam = rows[:, 2] == 0.5
    assert 0 < adam.sum() < 200
    assert np.all(rows[adam, 4:] == 0.5)


def test_a_model_sees_one_feature_a_number_and_one_a_value_of_an_unordered_choice():
    encoding = Encoding(mixed())
    point = {"rate": 1e-3, "units": 64, "optimizer": "lion", "classes": 10, "momentum": 0.9, "nesterov": True}
    features = encoding.features(encoding.row(point)[None])[0]
    np.testing.assert_allclose(features, [0.5, 1.0, 0.0, 0.0, 1.0, 1.0, 1.0])
    assert list(encoding.feature_columns[encoding.ordered]) == [0, 1, 5]


def test_a_point_from_before_a_parameter_was_known_has_a_row():
    row = Encoding(mixed()).row({"rate": 1e-4, "optimizer": "adam"})
    np.testing.assert_allclose(row, [0.0, 0.5, 0.5, 0.5, 0.5, 0.5])


def test_a_condition_on_a_continuum_is_met_by_no_row():
    space = keras_tuner.HyperParameters()
    space.Float("rate", 0.0, 1.0)
    space.Int("steps", 1, 10**9)
    for parent in ("rate", "steps"):
        space.Int(f"n_{parent}", 0, 3, parent_name=parent, parent_values=[1])
    encoding = Encoding(space.space)
    rows = encoding.snap(np.random.default_rng(0).random((20, 4)))
    assert encoding.levels[1] is None
    assert not encoding.active(rows)[:, 2:].any()
    assert encoding.point(rows[0]).keys() == {"rate", "steps"}


def test_huge_and_failed_losses_do_not_hide_the_good_ones():
    losses = np.array([1.0, 2.0, 3.0, 4.0, 1e30, np.nan, 7.0])
    found = _modelled_losses(losses) * 1e30
    np.testing.assert_allclose(found[[0, 1, 2]], [1.0, 2.0, 3.0])
    assert np.all(found[:4] < 3.5 + 2.5)
    assert found[3] < found[6] < found[4] == found[5] <= 3.5 + 2.5


def test_losses_that_are_all_the_same_stay_so():
    np.testing.assert_array_equal(_modelled_losses(np.array([3.0, 3.0, np.nan])), 1.0)
    np.testing.assert_array_equal(_modelled_losses(np.zeros(3)), 0.0)
    best_is_median = _modelled_losses(np.array([1.0, 1.0, 1.0, 9.0]))
    np.testing.assert_allclose(best_is_median[3] - best_is_median[0], 4 / 9)
