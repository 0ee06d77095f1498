"""Optuna behind keras-tuner's Oracle, in keras-tuner's own Tuner."""

import importlib.util
import math

import keras
import keras_tuner
import numpy as np
import optuna
import pytest

from keras_opt.core.errors import InputError, NoEffectWarning
from keras_opt.tuning.optuna_oracle import OptunaOracle
from keras_opt.tuning.optuna_space import coordinate_of

LOSS = keras_tuner.Objective("score", "min")
X = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")


class Bowl(keras_tuner.Tuner):
    """A function with conditions instead of trainings; some trials come to nothing."""

    def run_trial(self, trial, dies_at=None, verbose=0):
        hp = trial.hyperparameters
        kind = hp.Choice("kind", ["wide", "deep"])
        x = hp.Float("x", -2.0, 2.0)
        with hp.conditional_scope("kind", ["wide"]):
            width = hp.Int("size", 8, 64, sampling="log") if kind == "wide" else 0
        with hp.conditional_scope("kind", ["deep"]):
            depth = hp.Int("size", 1, 3) if kind == "deep" else 0
        if trial.trial_id == dies_at:
            raise KeyboardInterrupt
        if trial.trial_id == "0003":
            raise ArithmeticError("too steep")
        return math.inf if trial.trial_id == "0004" else x * x + width / 64 + depth


def bowl(folder, dies_at=None, trials=8, **settings):
    oracle = OptunaOracle(LOSS, trials, seed=5, pruner=None, **settings)
    Bowl(oracle, directory=folder, project_name="bowl").search(dies_at=dies_at, verbose=0)
    return oracle


def points(oracle):
    return [trial.hyperparameters.values for trial in oracle.trials.values()]


def test_failed_trials_are_written_down_in_both_books_and_end_nothing(tmp_path):
    oracle = bowl(tmp_path)
    states = [trial.state.name for trial in oracle.study.trials]
    assert states == ["COMPLETE"] * 3 + ["FAIL"] * 2 + ["COMPLETE"] * 3
    assert "too steep" in oracle.study.trials[3].user_attrs["error"]
    assert oracle.trials["0004"].message == "score is inf"
    assert oracle.study.best_value == oracle.get_best_trials()[0].score


def test_a_search_that_was_cut_off_goes_on_with_the_same_trials(tmp_path):
    whole = bowl(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        bowl(tmp_path / "parts", dies_at="0006")
    (tmp_path / "parts" / "bowl" / "trial_0006" / "trial.json").unlink()  # killed before that was written
    parts = bowl(tmp_path / "parts")
    assert points(parts) == points(whole)
    assert len(parts.study.trials) == 8


class Noise(keras_tuner.Tuner):
    """A training that is nothing but chance."""

    def run_trial(self, trial, verbose=0):
        return trial.hyperparameters.Float("x", 0.0, 1.0) + np.random.random()


def test_a_seed_is_that_of_the_trainings_too(tmp_path):
    scores = []
    for folder in ("one", "other"):
        oracle = OptunaOracle(LOSS, 3, seed=5, pruner=None)
        Noise(oracle, directory=tmp_path / folder).search(verbose=0)
        scores.append([trial.score for trial in oracle.trials.values()])
    assert scores[0] == scores[1]
    assert len(set(scores[0])) == 3


def test_each_condition_has_parameters_of_its_own_in_optuna(tmp_path):
    for trial in bowl(tmp_path).study.trials:
        own, other = ("wide", "deep") if trial.params["kind"] == "wide" else ("deep", "wide")
        assert f"size (kind={own})" in trial.params
        assert f"size (kind={other})" not in trial.params


def test_a_damaged_storage_is_filled_again_from_the_other_files(tmp_path, monkeypatch):
    monkeypatch.setattr("keras_opt.tuning.storage_rescue._MOST_MISSING_ROWS", 50)
    before = points(bowl(tmp_path))
    path = tmp_path / "bowl" / "study.db"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.warns(UserWarning, match="was damaged"):
        oracle = bowl(tmp_path, trials=9)
    assert points(oracle)[:8] == before
    assert len(oracle.study.trials) == 9


def build(hp):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(hp.Float("rate", 1e-5, 1.0, sampling="log")), "mse")
    return model


def fit(oracle, folder, hypermodel=build, **settings):
    tuner = keras_tuner.Tuner(oracle, hypermodel, directory=folder)
    tuner.search(X, X[:, :1], validation_data=(X, X[:, :1]), verbose=0, **settings)
    return tuner


class Scripted(keras_tuner.Tuner):
    """Epochs whose values are known: a trial is as good as its x."""

    def run_trial(self, trial, callbacks=(), verbose=0):
        x = trial.hyperparameters.Float("x", 0.0, 1.0)
        model = keras.Sequential()
        model.stop_training = False
        for callback in self._deepcopy_callbacks(list(callbacks)):
            callback.set_model(model)
            callback.on_train_begin()
            for epoch in range(3):
                callback.on_epoch_end(epoch, {"score": x + 1 / (1 + epoch)})
                if model.stop_training:
                    break
        return x


def test_the_callback_stops_trials_that_are_worse(tmp_path):
    oracle = OptunaOracle(LOSS, 6, seed=1, min_epochs=2)
    Scripted(oracle, directory=tmp_path).search(callbacks=[oracle.pruning_callback()], verbose=0)
    trials = oracle.study.trials
    assert {trial.state.name: trial.last_step for trial in trials} == {"COMPLETE": 3, "PRUNED": 2}
    assert trials[0].intermediate_values == {epoch: trials[0].params["x"] + 1 / epoch for epoch in (1, 2, 3)}
    assert [trial.status for trial in oracle.trials.values()] == ["COMPLETED"] * 6
    assert oracle.get_best_trials()[0].score == pytest.approx(oracle.study.best_value)


def test_a_trial_that_runs_again_is_judged_by_its_own_epochs(tmp_path):
    epochs = []

    class Diverges(keras_tuner.Tuner):
        """A training whose loss is NaN until it runs again."""

        def run_trial(self, trial, callbacks=(), verbose=0):
            trial.hyperparameters.Float("x", 0.0, 1.0)
            value = 0.5 if epochs else math.nan
            epochs.append(0)
            model = keras.Sequential()
            (callback,) = self._deepcopy_callbacks(list(callbacks))
            callback.set_model(model)
            callback.on_train_begin()
            model.stop_training = False
            while epochs[-1] < 6 and not model.stop_training:
                callback.on_epoch_end(epochs[-1], {"score": value})
                epochs[-1] += 1
            return value

    oracle = OptunaOracle(LOSS, 1, seed=1, min_epochs=2, max_retries_per_trial=1)
    Diverges(oracle, directory=tmp_path).search(callbacks=[oracle.pruning_callback()], verbose=0)
    assert epochs == [2, 6]
    assert [trial.state.name for trial in oracle.study.trials] == ["COMPLETE"]


def test_a_pruner_without_the_callback_is_said_to_do_nothing(tmp_path):
    with pytest.warns(NoEffectWarning, match="nothing to judge"):
        Scripted(OptunaOracle(LOSS, 1), directory=tmp_path).search(verbose=0)


def test_an_objective_that_no_trial_reports_is_named_with_those_that_were_seen(tmp_path):
    oracle = OptunaOracle(keras_tuner.Objective("val_acc", "max"), 3, pruner=None)
    with pytest.raises(keras_tuner.errors.FatalValueError, match=r"'val_acc' was not reported .* loss, val_loss"):
        fit(oracle, tmp_path, epochs=1)


def test_several_objectives_give_a_pareto_front(tmp_path):
    class Priced(keras_tuner.Tuner):
        def run_trial(self, trial, verbose=0):
            x = trial.hyperparameters.Float("x", 0.0, 1.0)
            return {"gain": x, "price": x * x, "note": -x}

    gain, price = keras_tuner.Objective("gain", "max"), keras_tuner.Objective("price", "min")
    oracle = OptunaOracle([gain, price], 4, pruner=None, seed=0)
    Priced(oracle, directory=tmp_path).search(verbose=0)
    front = [trial.metrics.get_best_value("gain") for trial in oracle.pareto_front()]
    assert front == sorted(front, reverse=True)
    assert len(front) == 4 == len(oracle.study.best_trials)
    assert oracle.get_best_trials(1)[0].metrics.get_best_value("gain") == front[0]


def priced(folder, price):
    """A finished search for two objectives of which the second is given."""

    class Priced(keras_tuner.Tuner):
        def run_trial(self, trial, verbose=0):
            return {"gain": trial.hyperparameters.Float("x", 0.0, 1.0), **price(trial.trial_id)}

    gain, least = keras_tuner.Objective("gain", "max"), keras_tuner.Objective("price", "min")
    oracle = OptunaOracle([gain, least], 3, pruner=None, seed=0)
    Priced(oracle, directory=folder).search(verbose=0)
    return oracle


def test_each_of_several_objectives_must_be_reported(tmp_path):
    with pytest.raises(keras_tuner.errors.FatalValueError, match=r"'price' was not reported by .*gain, prize.*'prize'"):
        priced(tmp_path, lambda trial_id: {"prize": 1.0})


def test_a_trial_fails_by_any_of_its_objectives(tmp_path):
    oracle = priced(tmp_path, lambda trial_id: {"price": math.nan if trial_id == "0001" else 1.0})
    assert [trial.state.name for trial in oracle.study.trials] == ["COMPLETE", "FAIL", "COMPLETE"]
    assert oracle.trials["0001"].message == "price is nan"


def test_searches_of_one_name_that_share_a_storage_are_two(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        bowl(tmp_path / "one", dies_at="0002", storage=tmp_path / "study.db")
    other = bowl(tmp_path / "other", trials=3, storage=tmp_path / "study.db")
    assert len(other.study.trials) == 6
    one = bowl(tmp_path / "one", trials=3, storage=tmp_path / "study.db")
    assert len(other.study.trials) == 6
    assert len({str(point) for point in [*points(one), *points(other)]}) == 5  # both begin with the defaults


def test_defaults_outside_of_their_ranges_are_left_out(tmp_path):
    class Late(keras_tuner.Tuner):
        def run_trial(self, trial, verbose=0):
            hp = trial.hyperparameters
            return hp.Float("decay", 1e-6, 1e-2, sampling="log", default=0.0) + hp.Int("n", 1, 9, default=20)

    oracle = OptunaOracle(LOSS, 3, pruner=None, seed=0)
    Late(oracle, directory=tmp_path).search(verbose=0)
    assert [set(trial.params) for trial in oracle.study.trials] == [set(), {"decay", "n"}, {"decay", "n"}]


def test_a_dominated_trial_is_not_in_the_front(tmp_path):
    oracle = OptunaOracle([keras_tuner.Objective(name, "min") for name in "ab"], 9, pruner=None)
    oracle._losses = lambda trial: trial.losses
    for name, losses in {"0": [1, 2], "1": [2, 1], "2": [2, 2], "3": [1, 2]}.items():
        oracle.trials[name] = keras_tuner.engine.trial.Trial(keras_tuner.HyperParameters(), name, "COMPLETED")
        oracle.trials[name].losses = losses
    assert [trial.trial_id for trial in oracle.pareto_front()] == ["0", "3", "1"]


def test_every_kind_of_parameter_goes_to_optuna_and_back():
    hp = keras_tuner.HyperParameters()
    hp.Boolean("flag")
    hp.Choice("choice", [1, 5, 7])
    hp.Int("int", 3, 12, step=4)
    hp.Int("log", 1, 100, sampling="log")
    hp.Float("step", 0.0, 1.0, step=0.3)
    hp.Float("decades", 1e-4, 1.0, sampling="log", step=10)
    hp.Float("reverse", 1e-4, 1.0, sampling="reverse_log")
    found = {each.name: coordinate_of(each) for each in hp.space}
    kinds = optuna.distributions
    assert found["flag"].distribution == kinds.CategoricalDistribution([False, True])
    assert found["choice"].distribution == kinds.CategoricalDistribution([1, 5, 7])
    assert found["int"].distribution == kinds.IntDistribution(3, 11, step=4)
    assert found["log"].distribution == kinds.IntDistribution(1, 100, log=True)
    assert found["step"].distribution == kinds.FloatDistribution(0.0, 0.9, step=0.3)
    assert found["step"].to_value(2 * 0.3 + 1e-16) == 0.6
    hp.Int("powers", 2, 32, step=2, sampling="log")
    assert [type(each) for each in coordinate_of(hp.space[-1]).distribution.choices] == [int] * 5
    assert np.allclose(found["decades"].distribution.choices, [1e-4, 1e-3, 1e-2, 1e-1, 1.0])
    assert found["reverse"].to_drawn(found["reverse"].to_value(0.3)) == pytest.approx(0.3)


def test_gp_without_torch_names_the_cure(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r'BayesianOptimization\(sampler="gp"\)'):
        OptunaOracle("val_loss", sampler="gp")


def test_several_objectives_refuse_a_pruner_and_cmaes():
    both = [LOSS, keras_tuner.Objective("macs", "min")]
    with pytest.raises(InputError, match="`pruner` must be None with several objectives"):
        OptunaOracle(both)
    with pytest.raises(InputError, match="`sampler` must be"):
        OptunaOracle(both, sampler="cmaes", pruner=None)
