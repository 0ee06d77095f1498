"""What keras-tuner does wrong, shown on it, and the same search here; the Gaussian process against scikit-learn."""

import itertools
import sys
import warnings

import keras
import keras_tuner
import numpy as np
import pytest
from scipy import integrate, optimize, stats
from sklearn import gaussian_process
from sklearn.gaussian_process import kernels

from keras_opt import tuning
from keras_opt.tuning.encoding import Encoding
from keras_opt.tuning.evidence import Evidence
from keras_opt.tuning.gaussian_process import GaussianProcess
from keras_opt.tuning.gaussian_process_point import _modelled_losses, gaussian_process_point

X = np.linspace(-1.0, 1.0, 16, dtype="float32")[:, None]


def search(tuner_class, folder, trial, name="search", **settings):
    """A finished search for the least of what `trial` gives for a HyperParameters."""

    class Tuner(tuner_class):
        def run_trial(self, each, *args, **kwargs):
            return trial(each.hyperparameters)

    tuner = Tuner(directory=folder, project_name=name, **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tuner.search(verbose=0)
    return tuner


def statuses(tuner):
    return [trial.status for trial in tuner.oracle.trials.values()]


def points(tuner):
    return [tuple(trial.hyperparameters.values.items()) for trial in tuner.oracle.trials.values()]


def square(hp):
    return hp.Float("x", -1.0, 2.0) ** 2 + hp.Float("y", -1.0, 2.0) ** 2


def build(hp):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(hp.Choice("rate", [0.1, 0.01])), "mse")
    return model


@pytest.mark.parametrize("room", [keras_tuner, tuning], ids=["theirs", "ours"])
def test_no_trial_fails_for_want_of_tensorboard(room, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard.plugins.hparams", None)
    tuner = room.RandomSearch(build, "val_loss", max_trials=1, directory=tmp_path)
    tuner.search(X, X, validation_data=(X, X), verbose=0)
    assert statuses(tuner) == ["COMPLETED" if room is tuning else "FAILED"]


def nan_three_times_of_four():
    count = itertools.count()
    return lambda hp: square(hp) * (1.0 if next(count) % 4 == 3 else float("nan"))


def test_nan_trials_in_a_row_do_not_end_the_search(tmp_path):
    with pytest.raises(RuntimeError, match="consecutive failures"):
        search(keras_tuner.RandomSearch, tmp_path, nan_three_times_of_four(), "theirs", max_trials=8)
    ours = search(tuning.RandomSearch, tmp_path, nan_three_times_of_four(), "ours", max_trials=8)
    assert statuses(ours) == (["FAILED"] * 3 + ["COMPLETED"]) * 2
    assert ours.oracle.trials["0000"].message == "default_objective is nan"


@pytest.mark.parametrize("value", [float("inf"), float("-inf")])
def test_an_infinite_trial_is_not_completed(value, tmp_path):
    count = itertools.count()

    def trial(hp):
        return value if next(count) % 3 == 1 else square(hp)

    theirs = search(keras_tuner.RandomSearch, tmp_path, trial, "theirs", max_trials=3)
    assert statuses(theirs) == ["COMPLETED"] * 3
    count = itertools.count()
    ours = search(tuning.RandomSearch, tmp_path, trial, "ours", max_trials=3)
    assert statuses(ours) == ["COMPLETED", "FAILED", "COMPLETED"]
    assert np.isfinite(ours.oracle.get_best_trials(1)[0].score)


def three_points(hp):
    return float(hp.Choice("x", [1, 2, 3]))


def test_no_point_of_three_is_tried_twice(tmp_path):
    theirs = points(search(keras_tuner.BayesianOptimization, tmp_path, three_points, "theirs", max_trials=12, seed=1))
    assert len(theirs) - len(set(theirs)) > 5
    for sampler in ("gp", "tpe", "keras_tuner"):
        ours = search(tuning.BayesianOptimization, tmp_path, three_points, sampler, max_trials=12, sampler=sampler)
        assert sorted(points(ours)) == [(("x", 1),), (("x", 2),), (("x", 3),)]


def test_the_seed_zero_is_a_seed(tmp_path):
    twice = [search(keras_tuner.RandomSearch, tmp_path, square, f"theirs {n}", max_trials=4, seed=0) for n in range(2)]
    assert points(twice[0]) != points(twice[1])
    for room in (tuning.RandomSearch, tuning.BayesianOptimization):
        twice = [search(room, tmp_path, square, f"{room} {n}", max_trials=6, seed=0) for n in range(2)]
        assert points(twice[0]) == points(twice[1])


def test_searches_of_two_seeds_share_no_point(tmp_path):
    """keras-tuner draws the n-th number of a search by the seed plus n."""
    theirs = [
        points(search(keras_tuner.RandomSearch, tmp_path, square, f"theirs {seed}", max_trials=6, seed=seed))[1:]
        for seed in (1, 3)
    ]
    assert len(set(theirs[0]) & set(theirs[1])) == 4
    ours = [
        points(search(tuning.RandomSearch, tmp_path, square, f"ours {seed}", max_trials=6, seed=seed))[1:]
        for seed in (1, 3)
    ]
    assert set(ours[0]).isdisjoint(ours[1])


class Killed(BaseException):
    """As if the process had ended: no handler of a search catches it."""


def killed_at(count, trial):
    calls = itertools.count(1)

    def dies(hp):
        value = trial(hp)
        if next(calls) == count:
            raise Killed
        return value

    return dies


def resumed(tuner_class, folder, trial, **settings):
    with pytest.raises(Killed):
        search(tuner_class, folder, killed_at(4, trial), **settings)
    return search(tuner_class, folder, trial, **settings)


def nine_points(hp):
    return hp.Choice("a", [1, 2, 3]) + 10.0 * hp.Choice("b", [1, 2, 3])


def test_a_grid_search_that_was_killed_goes_on(tmp_path):
    with pytest.raises(KeyError):
        resumed(keras_tuner.GridSearch, tmp_path / "theirs", nine_points)
    ours = resumed(tuning.GridSearch, tmp_path / "ours", nine_points)
    assert points(ours) == points(search(tuning.GridSearch, tmp_path / "whole", nine_points))
    assert len(points(ours)) == 9


@pytest.mark.parametrize("name", ["RandomSearch", "BayesianOptimization"])
def test_a_search_that_was_killed_has_the_trials_that_it_would_have_had(name, tmp_path):
    settings = {"max_trials": 8, "seed": 3}
    ours = resumed(getattr(tuning, name), tmp_path / "killed", square, **settings)
    assert points(ours) == points(search(getattr(tuning, name), tmp_path / "whole", square, **settings))


def test_a_failed_trial_does_not_keep_hyperband_from_its_last_rounds(tmp_path):
    def trial_that_fails_at(failing):
        count = itertools.count()
        return lambda hp: float("nan") if next(count) in failing else square(hp)

    def rounds(tuner):
        values = [trial.hyperparameters.values for trial in tuner.oracle.trials.values()]
        return [(each["tuner/bracket"], each["tuner/round"]) for each in values]

    settings = {"max_epochs": 9, "hyperparameters": keras_tuner.HyperParameters()}
    square(settings["hyperparameters"])
    theirs = search(keras_tuner.Hyperband, tmp_path, trial_that_fails_at({1, 3}), "theirs", seed=1, **settings)
    assert (2, 2) not in rounds(theirs)
    ours = search(tuning.Hyperband, tmp_path, trial_that_fails_at({1, 3}), "ours", seed=1, **settings)
    whole = search(tuning.Hyperband, tmp_path, square, "whole", seed=1, **settings)
    assert rounds(ours) == rounds(whole)
    assert (2, 2) in rounds(ours)


def test_a_dict_of_several_objectives_is_no_error(tmp_path):
    objective = [keras_tuner.Objective("val_accuracy", "max"), keras_tuner.Objective("macs", "min")]

    def trial(hp):
        return {"val_accuracy": hp.Float("x", 0.0, 1.0), "macs": 2.0}

    with pytest.raises(ValueError, match="multi_objective"):
        search(keras_tuner.RandomSearch, tmp_path, trial, "theirs", objective=objective, max_trials=2)
    ours = search(tuning.RandomSearch, tmp_path, trial, "ours", objective=objective, max_trials=2)
    for each in ours.oracle.trials.values():
        assert each.score == pytest.approx(2.0 - each.hyperparameters.values["x"])


# --- the Gaussian process


@pytest.fixture(scope="module")
def process():
    generator = np.random.default_rng(0)
    x = generator.random((25, 3))
    return GaussianProcess(x, np.sin(5.0 * x[:, 0]) + x[:, 1] ** 2 + 0.01 * generator.normal(size=25))


def test_the_process_predicts_what_scikit_learn_does(process):
    kernel = kernels.ConstantKernel(process.scale) * kernels.Matern(process.lengths, nu=2.5)
    peer = gaussian_process.GaussianProcessRegressor(kernel, alpha=process.noise + 1e-10, optimizer=None)
    generator = np.random.default_rng(0)
    x = generator.random((25, 3))
    y = np.sin(5.0 * x[:, 0]) + x[:, 1] ** 2 + 0.01 * generator.normal(size=25)
    peer.fit(x, (y - y.mean()) / y.std())
    new = np.random.default_rng(1).random((40, 3))
    mean, deviation = peer.predict(new, return_std=True)
    np.testing.assert_allclose(process.predict(new)[0], mean, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(process.predict(new)[1], deviation, rtol=1e-5)


def test_the_expected_improvement_is_the_integral(process):
    rows = np.random.default_rng(2).random((50, 3))
    means, deviations = process.predict(rows)
    standard = (process.best - means) / deviations
    assert np.sum(standard < -1.0) > 10
    for place in np.flatnonzero(standard > -20.0):
        density = stats.norm(means[place], deviations[place]).pdf
        low = min(means[place], process.best) - 12.0 * deviations[place]
        improvement, _ = integrate.quad(
            lambda y: (process.best - y) * density(y),  # noqa: B023
            low,
            process.best,
            points=[process.best - 0.1 * deviations[place]],
            epsabs=0.0,
            limit=500,
        )
        value = process.log_expected_improvement(rows[[place]])[0]
        assert value == pytest.approx(np.log(improvement), rel=1e-6, abs=1e-6)


def test_the_gradient_of_the_expected_improvement_is_that_of_differences(process):
    for row in np.random.default_rng(3).random((5, 3)):
        value, gradient = process.log_expected_improvement_and_gradient(row)
        assert value == pytest.approx(process.log_expected_improvement(row[None])[0], rel=1e-12)
        numeric = optimize.approx_fprime(row, lambda x: process.log_expected_improvement(x[None])[0], 1e-7)
        np.testing.assert_allclose(gradient, numeric, rtol=2e-4, atol=1e-4)


def test_the_proposed_point_is_the_best_of_a_dense_grid():
    space = keras_tuner.HyperParameters()
    space.Float("x", 0.0, 1.0)
    space.Int("n", 1, 9)
    generator = np.random.default_rng(0)
    tried = [{"x": float(generator.random()), "n": int(generator.integers(1, 10))} for _ in range(12)]
    losses = np.array([(point["x"] - 0.3) ** 2 + 0.01 * (point["n"] - 6) ** 2 for point in tried])
    point = gaussian_process_point(Evidence(space.space, tried, losses, [], generator))
    encoding = Encoding(space.space)
    process = GaussianProcess(np.array([encoding.row(each) for each in tried]), _modelled_losses(losses))
    dense = np.array([encoding.row({"x": x, "n": n}) for x in np.linspace(0.0, 1.0, 301) for n in range(1, 10)])
    best = process.log_expected_improvement(dense).max()
    assert process.log_expected_improvement(encoding.row(point)[None])[0] >= best - 1e-3
