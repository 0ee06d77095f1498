"""Points of a space, and what a search knows of them."""

import keras_tuner
import numpy as np
import pytest

from keras_opt.tuning.evidence import Evidence, grid, grid_point, random_point, untried
from keras_opt.tuning.space import all_values, draw, fingerprint, is_free, nearest, place, value_at


def conditional():
    """Six points: a=p, or a=q with b in 1..3, of which b=3 has c."""
    space = keras_tuner.HyperParameters()
    space.Choice("a", ["p", "q"])
    space.Int("b", 1, 3, parent_name="a", parent_values=["q"])
    with space.conditional_scope("a", ["q"]), space.conditional_scope("b", [3]):
        space.Choice("c", [0.1, 0.2, 0.3])
    return space.space


def single(kind, *arguments, **keywords):
    space = keras_tuner.HyperParameters()
    getattr(space, kind)("x", *arguments, **keywords)
    return space.space[0]


def evidence(space, points=(), seed=0):
    return Evidence(space, list(points), np.zeros(len(points)), [], np.random.default_rng([seed, len(points)]))


def all_of(proposer, space):
    points = []
    while (point := proposer(evidence(space, points))) is not None:
        points.append(point)
    return points


@pytest.mark.parametrize("proposer", [random_point, grid_point])
def test_a_finite_space_is_gone_through_once_and_no_more(proposer):
    points = all_of(proposer, conditional())
    assert len(points) == len({fingerprint(conditional(), point) for point in points}) == 6
    assert {"a": "p"} in points
    assert {"a": "q", "b": 3, "c": 0.2} in points


def test_a_grid_begins_with_the_defaults_and_changes_the_last_parameter_fastest():
    assert list(grid(conditional()))[:4] == [
        {"a": "p"},
        {"a": "q", "b": 1},
        {"a": "q", "b": 2},
        {"a": "q", "b": 3, "c": 0.1},
    ]


def test_a_grid_over_a_continuum_has_keras_tuners_values_and_the_default():
    parameter = single("Float", 0.0, 1.0)
    assert [point["x"] for point in grid([parameter])] == [0.0, *sorted(parameter.values)]


def test_the_last_point_of_a_large_space_is_found():
    space = [single("Int", 1, 500)]
    tried = [{"x": value} for value in range(1, 501) if value != 321]
    assert random_point(evidence(space, tried)) == {"x": 321}
    assert untried(evidence(space, tried)) == [{"x": 321}]


def test_the_same_generator_draws_the_same_point_and_two_seeds_share_none():
    space = [single("Float", 0.0, 1.0)]
    drawn = {seed: [random_point(evidence(space, [{"x": -1.0}] * n, seed))["x"] for n in range(9)] for seed in range(3)}
    assert drawn[0] == [random_point(evidence(space, [{"x": -1.0}] * n, 0))["x"] for n in range(9)]
    assert len({value for values in drawn.values() for value in values}) == 27


@pytest.mark.parametrize(
    ("parameter", "values"),
    [
        (single("Boolean"), [False, True]),
        (single("Fixed", 3), [3]),
        (single("Int", 2, 5), [2, 3, 4, 5]),
        (single("Int", 2, 5, sampling="log"), [2, 3, 4, 5]),
        (single("Int", 2, 32, step=2, sampling="log"), [2, 4, 8, 16, 32]),
        (single("Int", 1, 32, step=2, sampling="reverse_log"), [32, 31, 29, 25, 17, 1]),
        (single("Float", 0.0, 0.5, step=0.1), [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]),  # keras-tuner's have no 0.5
        (single("Float", 0.0, 1.0, step=1 / 3), [0.0, 0.3333333333333333, 0.6666666666666666, 0.9999999999999999]),
        (single("Float", 0.0, 0.9, step=0.1 + 0.2), [0.0, 0.30000000000000004, 0.6000000000000001, 0.9]),
        (single("Float", 1e-3, 1.0, step=10, sampling="log"), [0.001, 0.01, 0.1, 1.0]),
        (single("Float", 1.0, 1.0), [1.0]),
        (single("Float", 0.0, 1.0), None),
    ],
    ids=str,
)
def test_all_values_of_a_parameter(parameter, values):
    found = all_values(parameter)
    assert (found and list(found)) == values
    assert all(type(one) is type(other) for one, other in zip(found or (), values or (), strict=True))
    assert is_free(parameter) == (values is None or len(values) > 1)


@pytest.mark.parametrize(
    ("parameter", "value", "expected"),
    [
        (single("Float", 1e-4, 1e-2, sampling="log"), 1e-3, 0.5),
        (single("Float", 1.0, 3.0), 2.5, 0.75),
        (single("Float", 0.0, 1.0, step=0.1), 0.3, 0.3),  # keras-tuner's own place of 0.3 is that of 0.2
        (single("Int", 1, 100, sampling="log"), 10, 0.5),
        (single("Choice", ["a", "b", "c"]), "b", 0.5),
        (single("Boolean"), True, 1.0),
        (single("Fixed", "a"), "a", 0.0),
    ],
    ids=str,
)
def test_the_place_of_a_value(parameter, value, expected):
    assert place(parameter, value) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("sampling", ["linear", "log", "reverse_log"])
def test_the_place_of_a_drawn_value_is_where_keras_tuner_drew_it(sampling):
    parameter = single("Float", 0.5, 8.0, sampling=sampling)
    for at in (0.0, 0.2, 0.7, 1.0):
        assert place(parameter, parameter.prob_to_value(at)) == pytest.approx(at)


def test_a_drawn_point_holds_what_is_active():
    generator = np.random.default_rng(0)
    for _ in range(50):
        point = draw(conditional(), generator)
        assert ("b" in point) == (point["a"] == "q")
        assert ("c" in point) == (point.get("b") == 3)


def test_a_large_range_costs_no_memory():
    parameter = single("Int", 1, 10**12)
    assert is_free(parameter)
    assert value_at(parameter, 1.0) == 10**12
    assert random_point(evidence([parameter]))["x"] > 1


@pytest.mark.parametrize("sampling", ["linear", "log", "reverse_log"])
@pytest.mark.parametrize("kind", ["Int", "Float"])
def test_no_value_is_outside_its_range(kind, sampling):
    for low, high in ((3, 7), (1, 1000)):
        parameter = single(kind, low, high, sampling=sampling)
        found = [value_at(parameter, at) for at in (0.0, 1e-9, 0.3, 1.0 - 1e-9, 1.0)]
        assert all(low <= value <= high for value in found)
        assert found[0] in (low, high)


@pytest.mark.parametrize(
    ("parameter", "value", "expected"),
    [
        (single("Float", 0.0, 0.5, step=0.1), 0.30000000000000004, 0.3),
        (single("Float", 1e-4, 1.0, sampling="log"), 0.0, 1e-4),
        (single("Int", 2, 9), 12, 9),
        (single("Choice", ["a", "b"]), "b", "b"),
    ],
    ids=str,
)
def test_the_nearest_value_that_a_parameter_can_take(parameter, value, expected):
    assert nearest(parameter, value) == expected


def test_the_place_of_a_default_outside_of_its_range_is_at_its_end():
    assert place(single("Float", 1e-4, 1.0, sampling="log"), 0.0) == 0.0
    assert place(single("Int", 2, 9), 12) == 1.0


def test_what_a_trial_has_beside_the_space_makes_no_new_point():
    space = [single("Choice", [1, 2])]
    tried = [{"x": 1, "depth": 3, "tuner/epochs": 9}]
    assert random_point(evidence(space, tried)) == {"x": 2}


def test_points_of_a_rare_branch_are_found():
    """One branch in fifty has a continuum, and the others were tried."""
    space = keras_tuner.HyperParameters()
    space.Int("a", 1, 50)
    space.Float("b", 0.0, 1.0, parent_name="a", parent_values=[50])
    tried = [{"a": value} for value in range(1, 50)]
    for seed in range(30):
        assert random_point(evidence(space.space, tried, seed))["a"] == 50
