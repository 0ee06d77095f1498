"""Which way is better, and what stands in the logs."""

import types

import pytest

from keras_opt.callbacks.monitors import better, mode_in_model, monitored_value, resolve_mode


@pytest.mark.parametrize(
    ("monitor", "mode"),
    [
        ("loss", "min"),
        ("val_loss", "min"),
        ("val_mean_absolute_error", "min"),
        ("root_mean_squared_error", "min"),
        ("binary_crossentropy", "min"),
        ("kl_divergence", "min"),
        ("val_dice_loss", "min"),
        ("accuracy_loss", "min"),
        ("recall_error", "min"),
        ("accuracy", "max"),
        ("val_sparse_top_k_categorical_accuracy", "max"),
        ("auc_1", "max"),
        ("precision_at_recall", "max"),
        ("val_f1_score", "max"),
        ("r2_score", "max"),
        ("mean_io_u", "max"),
        ("cosine_similarity", "max"),
    ],
)
def test_the_last_known_word_decides(monitor, mode):
    assert resolve_mode(monitor, "auto") == mode


def test_a_given_mode_goes_before_the_name_and_an_unknown_name_stays_open():
    assert resolve_mode("loss", "max") == "max"
    assert resolve_mode("classy", "auto") == "auto"  # `acc` and `class` inside a word are no words


def test_better_is_strict_and_never_nan():
    assert better(1.0, 2.0, "min")
    assert better(2.0, 1.0, "max")
    assert not better(1.0, 1.0, "min")
    assert not better(float("nan"), 1.0, "max")


def test_a_name_that_is_not_in_the_logs_is_answered_with_the_closest():
    with pytest.raises(ValueError, match=r"Plateau: .*hold 'loss', 'val_loss'\. Did you mean 'val_loss'"):
        monitored_value("val_los", {"loss": 1.0, "val_loss": 2.0}, "Plateau")
    with pytest.raises(ValueError, match="the logs hold nothing"):
        monitored_value("loss", {}, "Plateau")


def test_an_epoch_without_validation_has_no_value():
    assert monitored_value("val_loss", {"loss": 1.0}, "Plateau") is None


def test_the_logs_may_say_that_an_epoch_has_no_value():
    assert monitored_value("night_loss", {"night_loss": None, "loss": 1.0}, "Plateau") is None


@pytest.mark.parametrize(
    ("monitor", "mode"),
    [
        ("rank", "max"),
        ("val_rank", "max"),
        ("night_val_rank", "max"),
        ("cold_rank", "min"),  # the longest name counts
        ("val_cold_rank", "min"),
        ("crank", "auto"),
        ("plain", "auto"),
    ],
)
def test_the_direction_of_a_compiled_metric_is_found_behind_any_prefix(monitor, mode):
    def metric(name, **direction):
        return types.SimpleNamespace(name=name, **direction)

    group = types.SimpleNamespace(metrics=[metric("rank", _direction="up"), metric("cold_rank", _direction="down")])
    model = types.SimpleNamespace(metrics=[group, metric("plain")])
    assert mode_in_model(monitor, model) == mode
