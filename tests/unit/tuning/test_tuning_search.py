"""The search loop: what trials may return, how they fail, and what a folder of a search survives."""

import itertools
import json
import re
import time
import warnings

import keras
import keras_tuner
import numpy as np
import pytest
from full_rows import full

from keras_opt import tuning
from keras_opt.core import folder_lock
from keras_opt.core.errors import NoEffectWarning
from keras_opt.tuning import tree_parzen_point
from keras_opt.tuning.trial_metrics import trial_metrics

X = np.linspace(-1.0, 1.0, 16, dtype="float32")[:, None]
HELD = {"validation_data": (X, X), "verbose": 0}


def a_search(trial, folder, kind=tuning.RandomSearch, **settings):
    """A search that has not begun."""

    class Search(kind):
        def run_trial(self, each, *args, **kwargs):
            return trial(each.hyperparameters)

    return Search(directory=folder, project_name="search", **settings)


def square(hp):
    return hp.Float("x", -1.0, 2.0) ** 2


def build(hp):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(
        keras.optimizers.SGD(momentum=0.5, learning_rate=hp.Float("rate", 1e-3, 1e-1, sampling="log")),
        "mse",
        metrics=["mae"],
    )
    return model


def statuses(search):
    return [trial.status for trial in search.oracle.trials.values()]


# --- failures


def test_a_crash_is_kept_with_its_error_and_the_search_goes_on(tmp_path, capsys):
    count = itertools.count()

    def trial(hp):
        value = square(hp)
        if next(count) == 1:
            raise ArithmeticError("no such layer")
        return value

    search = a_search(trial, tmp_path, max_trials=3)
    with pytest.warns(UserWarning, match=r"1 of 3 trials failed: ArithmeticError: no such layer \(1 times\)"):
        search.search(verbose=0)
    assert statuses(search) == ["COMPLETED", "FAILED", "COMPLETED"]
    assert "in trial" in search.oracle.trials["0001"].message
    search.results_summary()
    assert "Trial 0001 failed: ArithmeticError: no such layer" in capsys.readouterr().out
    assert len(search.oracle.get_best_trials(5)) == 2


def test_a_failed_trial_is_retried_as_often_as_is_said(tmp_path):
    count = itertools.count()

    def trial(hp):
        return square(hp) if next(count) % 2 else float("nan")

    search = a_search(trial, tmp_path, max_trials=2, max_retries_per_trial=1)
    search.search(verbose=0)
    assert statuses(search) == ["COMPLETED", "COMPLETED"]
    assert next(count) == 4


def test_failures_in_a_row_end_the_search_where_a_limit_is_given(tmp_path):
    def trial(hp):
        square(hp)
        raise ArithmeticError("never")

    search = a_search(trial, tmp_path, max_trials=9, max_consecutive_failed_trials=2)
    with pytest.raises(RuntimeError, match=r"2 trials in a row failed.*(?s:.*)ArithmeticError: never"):
        search.search(verbose=0)
    assert statuses(search) == ["FAILED"] * 2


def test_a_search_whose_every_trial_failed_says_so(tmp_path):
    search = a_search(lambda hp: square(hp) * float("inf"), tmp_path, max_trials=3)
    with pytest.raises(RuntimeError, match=r"every trial failed .3 of 3.: default_objective is inf"):
        search.search(verbose=0)


def test_a_failed_trial_error_and_a_fatal_one_are_keras_tuners(tmp_path):
    def trial(hp):
        square(hp)
        raise keras_tuner.errors.FailedTrialError("too large")

    search = a_search(trial, tmp_path, max_trials=1, max_retries_per_trial=5)
    with pytest.raises(RuntimeError, match="too large"):
        search.search(verbose=0)
    assert statuses(search) == ["FAILED"]

    def fatal(hp):
        raise keras_tuner.errors.FatalError("stop")

    with pytest.raises(keras_tuner.errors.FatalError):
        a_search(fatal, tmp_path / "fatal", max_trials=3).search(verbose=0)


def test_a_retry_has_another_seed_and_another_search_too(tmp_path):
    def drawn(seed):
        found = []

        def trial(hp):
            square(hp)
            found.append(np.random.random())
            return float("nan")

        search = a_search(trial, tmp_path / str(seed), max_trials=2, max_retries_per_trial=1, seed=seed)
        with pytest.raises(RuntimeError):
            search.search(verbose=0)
        return found

    assert len({*drawn(0), *drawn(1)}) == 8


def test_a_nan_that_the_trial_reports_itself_ends_no_search(tmp_path):
    class Search(tuning.RandomSearch):
        def run_trial(self, trial, **kwargs):
            loss = float("nan") if trial.trial_id == "0001" else square(trial.hyperparameters)
            self.oracle.update_trial(trial.trial_id, {"val_loss": loss})

    search = Search(objective="val_loss", max_trials=3, directory=tmp_path)
    with pytest.warns(UserWarning, match="1 of 3 trials failed: val_loss is nan"):
        search.search(verbose=0)
    assert statuses(search) == ["COMPLETED", "FAILED", "COMPLETED"]


# --- what a trial returns


class History(keras.callbacks.History):
    """A History as `fit` returns it."""

    def __init__(self, **history):
        super().__init__()
        self.history = history


LOSS = keras_tuner.Objective("val_loss", "min")
BOTH = keras_tuner.engine.oracle.Oracle([LOSS, keras_tuner.Objective("val_auc", "max")]).objective


@pytest.mark.parametrize(
    ("results", "objective", "expected"),
    [
        (3, LOSS, ({"val_loss": 3.0}, 0)),
        (np.float32(0.5), LOSS, ({"val_loss": 0.5}, 0)),
        ({"val_loss": 2.0, "a": 1.0}, LOSS, ({"val_loss": 2.0, "a": 1.0}, 0)),
        ([1.0, 2.0], LOSS, ({"val_loss": 1.5}, 0)),
        (History(val_loss=[3.0, 1.0, 2.0], a=[1, 2, 3]), LOSS, ({"val_loss": 1.0, "a": 2}, 1)),
        (History(val_loss=[float("nan"), 5.0, float("inf")]), LOSS, ({"val_loss": 5.0}, 1)),
        (History(val_loss=[3.0, 1.0], loss=[4, 3, 2, 1]), LOSS, ({"val_loss": 1.0}, 1)),
        (
            [History(val_loss=[3.0, 1.0]), History(val_loss=[4.0, 2.0, 1.0])],
            LOSS,
            ({"val_loss": 1.0}, 1),
        ),
        ({"val_loss": 2.0, "f1": np.array([0.25, 0.75])}, LOSS, ({"val_loss": 2.0, "f1": 0.5}, 0)),
        (History(val_loss=[np.array([3.0, 5.0]), np.array([1.0, 2.0])]), LOSS, ({"val_loss": 1.5}, 1)),
        ({"val_loss": 2.0, "val_auc": 0.5}, BOTH, ({"val_loss": 2.0, "val_auc": 0.5, "multi_objective": 1.5}, 0)),
    ],
    ids=[
        "int",
        "float32",
        "dict",
        "list",
        "history",
        "history_of_nan",
        "validation_freq",
        "two_histories",
        "a_number_a_class",
        "history_of_a_number_a_class",
        "two_objectives",
    ],
)
def test_what_a_trial_measured(results, objective, expected):
    assert trial_metrics(results, objective, "trial") == expected


@pytest.mark.parametrize(
    ("results", "message"),
    [
        (None, "must return a number, a dict"),
        (True, "must return a number"),
        ([], "must return a number"),
        (History(), "of no epoch"),
        ({"loss": 1.0}, "'val_loss' was not reported by trial, which gave: loss. Give `search` a `validation_data`"),
        ({"val_los": 1.0}, "gave: val_los. Did you mean 'val_los'"),
    ],
    ids=["none", "bool", "empty", "history", "other_metric", "misspelt"],
)
def test_an_objective_that_no_trial_reports_names_what_was_seen(results, message):
    with pytest.raises((ValueError, TypeError), match=re.escape(message)):
        trial_metrics(results, LOSS, "trial")


def test_a_search_without_validation_data_ends_at_its_first_trial(tmp_path):
    search = tuning.RandomSearch(build, "val_loss", max_trials=3, directory=tmp_path)
    with pytest.raises(ValueError, match=r"'val_loss' was not reported.*gave: loss, mae. Give `search` a `validation"):
        search.search(X, X, verbose=0)
    assert len(search.oracle.trials) == 1


def test_a_metric_of_the_model_is_not_told_to_be_of_the_training_data(tmp_path):
    class Priced(keras_tuner.HyperModel):
        def build(self, hp):
            return build(hp)

        def fit(self, hp, model, *args, **kwargs):
            return History(loss=[1.0], val_loss=[1.0], macs=[hp.get("rate")])

    macs = keras_tuner.Objective("macs", "min")
    tuning.RandomSearch(Priced(), ["val_loss", macs], max_trials=1, directory=tmp_path).search(verbose=0)


# --- real training


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    search = tuning.RandomSearch(build, "mae", max_trials=2, seed=0, directory=folder)
    with pytest.warns(UserWarning, match="'mae' is measured on the training data.*objective='val_mae'"):
        search.search(X, X, epochs=2, **HELD)
    return search


def test_the_best_model_has_the_weights_of_its_best_epoch(trained):
    best = trained.oracle.get_best_trials(1)[0]
    with warnings.catch_warnings(action="error", category=UserWarning):
        (model,) = trained.get_best_models()
    assert np.isclose(model.optimizer.learning_rate, best.hyperparameters.values["rate"])
    measured = model.evaluate(X, X, verbose=0, return_dict=True)
    assert measured["loss"] == pytest.approx(best.metrics.get_best_value("val_loss"), rel=1e-5)


def test_epochs_without_validation_are_not_kept_in_place_of_the_best_one(tmp_path):
    def steps_too_far(hp):
        model = build(hp)
        model.optimizer.learning_rate = 2.2
        return model

    search = tuning.RandomSearch(steps_too_far, "val_loss", max_trials=1, seed=0, directory=tmp_path)
    search.search(X, X, epochs=5, batch_size=16, validation_freq=2, **HELD)
    measured = search.get_best_models()[0].evaluate(X, X, verbose=0, return_dict=True)
    assert measured["loss"] == pytest.approx(search.oracle.get_best_trials(1)[0].score, rel=1e-5)


def test_an_objective_of_a_number_a_class_counts_by_its_mean(tmp_path):
    def classifier(hp):
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(2, "softmax")])
        model.compile(keras.optimizers.SGD(hp.Float("rate", 0.1, 1.0)), "mse", metrics=[keras.metrics.F1Score()])
        return model

    y = np.eye(2)[(X[:, 0] > 0).astype(int)]
    search = tuning.RandomSearch(classifier, "val_f1_score", max_trials=1, directory=tmp_path)
    search.search(X, y, validation_data=(X, y), verbose=0)
    found = search.get_best_models()[0].evaluate(X, y, verbose=0, return_dict=True)["f1_score"]
    assert search.oracle.get_best_trials(1)[0].score == pytest.approx(np.mean(found))


def test_the_same_seed_trains_the_same(trained, tmp_path):
    again = tuning.RandomSearch(build, "val_mae", max_trials=1, seed=0, directory=tmp_path)
    again.search(X, X, epochs=2, **HELD)
    one, other = (search.oracle.trials["0000"] for search in (trained, again))
    assert one.metrics.get_best_value("val_mae") == other.metrics.get_best_value("val_mae")


def test_hyperband_goes_on_from_the_weights_of_the_parent(tmp_path):
    search = tuning.Hyperband(build, "val_loss", max_epochs=2, factor=2, seed=0, directory=tmp_path)
    search.oracle.plan = search.oracle.plan[:2]
    with warnings.catch_warnings(action="error", category=UserWarning):
        search.search(X, X, **HELD)
    trials = list(search.oracle.trials.values())
    books = [trial.hyperparameters.values for trial in trials]
    assert [(each["tuner/initial_epoch"], each["tuner/epochs"]) for each in books] == [(0, 1), (0, 1), (1, 2)]
    parent = search.oracle.trials[books[2]["tuner/trial_id"]]
    assert parent.score == min(trial.score for trial in trials[:2])
    assert trials[2].score < parent.score


# --- bad input


def test_a_space_without_a_free_parameter_is_an_error_or_a_warning(tmp_path):
    def plain(hp):
        hp.Fixed("units", 4)
        return build(keras_tuner.HyperParameters())

    with pytest.raises(ValueError, match=r"nothing to search: .*Parameters that were seen: units"):
        tuning.GridSearch(plain, "val_loss", directory=tmp_path)
    search = a_search(lambda hp: 1.0, tmp_path, max_trials=5)
    with pytest.warns(NoEffectWarning, match=r"nothing to search: .*Parameters that were seen: none"):
        search.search(verbose=0)
    assert len(search.oracle.trials) == 1


def test_another_objective_than_that_of_the_folder_is_an_error(tmp_path):
    a_search(square, tmp_path, max_trials=2).search(verbose=0)
    with pytest.raises(ValueError, match=r"was for objective=.*default_objective.*overwrite=True"):
        a_search(square, tmp_path, max_trials=2, objective="val_loss")


def test_another_range_than_that_of_the_folder_is_an_error(tmp_path):
    def wider(hp):
        hp.Float("rate", 1e-3, 1.0, sampling="log")
        return build(hp)

    settings = {"directory": tmp_path, "max_trials": 1}
    fit = {"epochs": 1, **HELD}
    tuning.RandomSearch(build, "val_loss", **settings).search(X, X, **fit)
    with pytest.raises(ValueError, match=r"was for rate=Float\(.*max_value: '0.1'.*not for Float\(.*max_value: '1.0'"):
        tuning.RandomSearch(wider, "val_loss", **settings)
    given = keras_tuner.HyperParameters()
    given.Float("rate", 1e-2, 1e-1, sampling="log")
    with pytest.raises(ValueError, match="was for rate=Float"):
        tuning.RandomSearch(build, "val_loss", hyperparameters=given, **settings)
    assert len(tuning.RandomSearch(build, "val_loss", **settings).oracle.trials) == 1


def test_another_seed_than_that_of_the_folder_is_an_error(tmp_path):
    a_search(square, tmp_path, max_trials=1, seed=0).search(verbose=0)
    with pytest.raises(ValueError, match=r"was for seed=0, not for 7. Give another `project_name`"):
        a_search(square, tmp_path, max_trials=2, seed=7)
    assert a_search(square, tmp_path, max_trials=2).oracle.seed == 0


def test_other_rounds_than_those_of_the_folder_are_an_error(tmp_path):
    a_search(square, tmp_path, tuning.Hyperband, max_epochs=2, factor=2).search(verbose=0)
    with pytest.raises(ValueError, match="was for max_epochs=2, not for 4"):
        a_search(square, tmp_path, tuning.Hyperband, max_epochs=4, factor=2)


@pytest.mark.parametrize(
    ("name", "direction"),
    [
        ("val_loss", "min"),
        ("val_accuracy", "max"),
        ("val_f1_score", "max"),
        ("val_mean_io_u", "max"),
        ("val_r2_score", "max"),
        ("true_positives", "max"),
        ("false_positives", "min"),
    ],
)
def test_the_direction_of_an_objective_is_read_off_its_name(name, direction, tmp_path):
    assert a_search(square, tmp_path, objective=name).oracle.objective.direction == direction


def test_an_objective_of_no_direction_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r'`objective` must be an Objective with direction "min" or "max"'):
        a_search(square, tmp_path, objective=[keras_tuner.Objective("f", "maximize")])


@pytest.mark.parametrize("name", ["tune_new_entries", "allow_new_entries"])
def test_new_entries_are_needed_where_no_space_is_given(name, tmp_path):
    with pytest.raises(ValueError, match=f"`{name}` must be True without `hyperparameters`"):
        a_search(square, tmp_path, **{name: False})


def test_a_numpy_number_is_a_seed(tmp_path):
    a_search(square, tmp_path, max_trials=1, seed=np.int64(3)).search(verbose=0)


def test_keras_tuners_chief_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
    with pytest.raises(RuntimeError, match=r"chief and workers .* are not supported"):
        a_search(square, tmp_path)


def test_an_unknown_argument_names_the_closest():
    with pytest.raises(TypeError, match=r"Search: there is no argument `projectname`. Did you mean 'project_name'"):
        a_search(square, "folder", projectname="a")


def test_arguments_of_keras_tuners_process_have_no_effect_on_another(tmp_path):
    with pytest.warns(NoEffectWarning, match="alpha and beta are arguments of keras-tuner's process"):
        a_search(square, tmp_path, tuning.BayesianOptimization, alpha=1e-3, beta=2.0)


def test_the_users_space_is_not_changed(tmp_path):
    space = keras_tuner.HyperParameters()
    space.Float("x", 0.0, 1.0)
    before = space.get_config()
    a_search(lambda hp: square(hp) + hp.Int("n", 0, 3), tmp_path, max_trials=2, hyperparameters=space).search(verbose=0)
    assert space.get_config() == before


@pytest.mark.parametrize("kind", [tuning.RandomSearch, tuning.GridSearch, tuning.BayesianOptimization])
def test_what_is_not_searched_makes_no_new_point(kind, tmp_path):
    space = keras_tuner.HyperParameters()
    space.Choice("x", [1, 2, 3])
    settings = {"hyperparameters": space, "tune_new_entries": False, "max_trials": 9}
    search = a_search(lambda hp: hp.Choice("x", [1, 2, 3]) + hp.Float("y", 0.0, 1.0), tmp_path, kind, **settings)
    search.search(verbose=0)
    points = [trial.hyperparameters.values for trial in search.oracle.trials.values()]
    assert sorted(point["x"] for point in points) == [1, 2, 3]
    assert {point["y"] for point in points} == {0.0}


@pytest.mark.parametrize("sampler", ["gp", "tpe", full("keras_tuner")])
def test_defaults_outside_of_their_ranges_end_no_search(sampler, tmp_path):
    def trial(hp):
        decay = hp.Float("decay", 1e-6, 1e-2, sampling="log", default=0.0)
        return square(hp) + decay + hp.Float("rate", 0.0, 0.5, step=0.1, default=0.25) + hp.Int("n", 1, 9, default=20)

    settings = {"sampler": sampler, "max_trials": 4, "num_initial_points": 2, "seed": 1}
    search = a_search(trial, tmp_path, tuning.BayesianOptimization, **settings)
    search.search(verbose=0)
    assert statuses(search) == ["COMPLETED"] * 4


@pytest.mark.parametrize("value", [0.0, 1e30, 1.7e308])
def test_constant_and_huge_losses_are_modelled(value, tmp_path):
    def trial(hp):
        x = hp.Float("x", 0.0, 1.0)
        return value * (1 if x > 0.5 else -1)

    search = a_search(trial, tmp_path, tuning.BayesianOptimization, max_trials=6, num_initial_points=3, seed=1)
    with warnings.catch_warnings(action="error"):  # of scikit-learn too
        search.search(verbose=0)
    assert statuses(search) == ["COMPLETED"] * 6


@pytest.mark.parametrize("count", [1, 4])
def test_initial_points_are_drawn_at_random_by_tpe_too(count, tmp_path, monkeypatch):
    made = []
    real = tree_parzen_point.make_sampler
    monkeypatch.setattr(tree_parzen_point, "make_sampler", lambda *each: made.append(each) or real(*each))
    settings = {"sampler": "tpe", "max_trials": 2, "num_initial_points": count}
    a_search(square, tmp_path, tuning.BayesianOptimization, **settings).search(verbose=0)
    assert {initial for _, _, initial in made} == {count}


# --- time and files


def test_no_trial_begins_after_max_seconds(tmp_path):
    def trial(hp):
        time.sleep(0.2)
        return square(hp)

    search = a_search(trial, tmp_path, max_trials=None, max_seconds=0.3)
    search.search(verbose=0)
    assert 1 <= len(search.oracle.trials) <= 2


def test_progress_shows_the_best_trial_and_the_time(tmp_path, capsys):
    search = a_search(square, tmp_path, max_trials=2, seed=1)
    search.search()
    assert re.search(
        r"search: 2/2 in [\d.]+ s \(best default_objective [\de.-]+ in trial 000\d\)", capsys.readouterr().err
    )


def test_a_search_without_end_shows_its_trials_and_the_seconds_left(tmp_path, capsys):
    a_search(square, tmp_path, max_trials=None, max_seconds=0.1).search()
    assert re.search(r"search: (\d+)/\1 in .* at most 0 s left\)", capsys.readouterr().err)


def test_a_tuner_with_an_id_goes_on_too(tmp_path):
    a_search(square, tmp_path, max_trials=2, tuner_id="night").search(verbose=0)
    assert len(a_search(square, tmp_path, tuner_id="night").oracle.trials) == 2
    assert not a_search(square, tmp_path, tuner_id="night", overwrite=True).oracle.trials


def test_two_processes_do_not_search_in_one_folder(tmp_path, monkeypatch):
    search = a_search(square, tmp_path, max_trials=1)
    monkeypatch.setattr(folder_lock, "hold", lambda folder: False)
    with pytest.raises(RuntimeError, match=r"another process searches in .*another `project_name`"):
        search.search(verbose=0)
    assert not search.oracle.trials


def test_an_interrupt_costs_the_trial_in_hand_alone(tmp_path):
    count = itertools.count()

    def trial(hp):
        value = square(hp)
        if next(count) == 2:
            raise KeyboardInterrupt
        return value

    search = a_search(trial, tmp_path, max_trials=4, seed=1)
    with pytest.raises(KeyboardInterrupt):
        search.search(verbose=0)
    assert statuses(search) == ["COMPLETED", "COMPLETED", "RUNNING"]
    cut_off = search.oracle.trials["0002"].hyperparameters.values["x"]
    for goes_on in (a_search(square, tmp_path, max_trials=4, seed=1), search):
        goes_on.search(verbose=0)
        assert statuses(goes_on) == ["COMPLETED"] * 4
        assert goes_on.oracle.trials["0002"].hyperparameters.values["x"] == cut_off


def test_a_search_can_be_made_longer(tmp_path):
    a_search(square, tmp_path, max_trials=2, seed=1).search(verbose=0)
    longer = a_search(square, tmp_path, max_trials=5, seed=1)
    assert longer.remaining_trials == 3
    longer.search(verbose=0)
    assert len(longer.oracle.trials) == 5


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"\xff\xfe", b'{"trial_id": "0001"}'], ids=repr)
def test_a_damaged_trial_costs_that_trial_and_is_named(damage, tmp_path):
    a_search(square, tmp_path, max_trials=4, seed=1).search(verbose=0)
    path = tmp_path / "search" / "trial_0001" / "trial.json"
    path.write_bytes(damage)
    with pytest.warns(UserWarning, match=r"trial_0001.trial.json' cannot be read .*: the search goes on"):
        search = a_search(square, tmp_path, max_trials=4, seed=1)
    assert sorted(search.oracle.trials) == ["0000", "0002", "0003"]
    search.search(verbose=0)
    assert sorted(search.oracle.trials) == ["0000", "0002", "0003", "0004"]
    assert len(search.oracle.get_best_trials(9)) == 4


@pytest.mark.parametrize("damage", [b"", b"[]", b'{"hyperparameters"'], ids=repr)
def test_a_damaged_file_of_the_search_leaves_its_trials(damage, tmp_path):
    whole = a_search(square, tmp_path, max_trials=4, seed=1)
    whole.search(verbose=0)
    (tmp_path / "search" / "oracle.json").write_bytes(damage)
    with pytest.warns(UserWarning, match="oracle.json' cannot be read"):
        search = a_search(square, tmp_path, max_trials=6, seed=1)
    assert list(search.oracle.trials) == list(whole.oracle.trials)
    assert search.get_best_hyperparameters()[0].values == whole.get_best_hyperparameters()[0].values
    search.search(verbose=0)
    assert len(search.oracle.trials) == 6


def test_the_files_are_keras_tuners(tmp_path):
    a_search(square, tmp_path, max_trials=2, seed=1).search(verbose=0)
    state = json.loads((tmp_path / "search" / "trial_0001" / "trial.json").read_text())
    trial = keras_tuner.engine.trial.Trial.from_state(state)
    assert trial.status == "COMPLETED"
    assert trial.score == pytest.approx(trial.hyperparameters.values["x"] ** 2)
