"""Criteria fed with scripted logs: the exact epoch and sentence."""

import math

import keras
import pytest

from keras_opt.callbacks import Plateau, Target

NAN, INF = math.nan, math.inf


def stop_at(criterion, values, monitor="loss"):
    """The first epoch (from 0) at which the criterion holds."""
    criterion.reset()
    for epoch, value in enumerate(values):
        logs = value if isinstance(value, dict) else {monitor: value}
        if criterion.update(epoch, logs):
            return epoch
    return None


@pytest.mark.parametrize(
    ("settings", "values", "epoch"),
    [
        ({"patience": 2}, [3, 2, 1, 1.5, 1.2, 0.5], 4),
        ({"patience": 2}, [3, 2, 1, 1.5, 0.9, 1.5, 1.5], 6),
        ({"patience": 2}, [1, 1, 1], 2),  # a tie is no improvement
        ({"patience": 0}, [1, 2], 1),
        ({"patience": 0}, [NAN, NAN], 1),  # never in the first epoch
        ({"patience": 2}, [NAN, 2, 1, 3, 3], 4),  # a NaN is never best
        ({"patience": 2}, [INF, 1, NAN, -INF], 3),
        ({"patience": 2}, [NAN, NAN, NAN], 1),
        ({"patience": 1, "min_delta": 0.5}, [3.0, 2.6], 1),
        ({"patience": 1, "min_delta": 0.5}, [3.0, 2.4, 1.8, 1.7], 3),
        ({"patience": 1, "min_delta": -0.5}, [3.0, 2.6], 1),  # as in Keras, the sign does not count
        ({"patience": 1, "min_delta": 0.1, "relative": True}, [10.0, 8.9, 8.1], 2),
        ({"patience": 1, "min_delta": 0.1, "relative": True}, [10.0, 8.9, 8.0, 7.1, 6.3, 5.6], None),
        ({"patience": 1, "mode": "max"}, [1, 2, 2], 2),
        ({"patience": 1, "start_from_epoch": 3}, [1, 2, 3, 4, 5], 4),
        ({"patience": 1, "baseline": 0.5}, [3, 2, 1, 0.9, 0.9], 4),
        ({"patience": 1, "baseline": 0.5}, [3, 0.4, 0.4], 2),
    ],
)
def test_plateau_holds_at_the_epoch_computed_by_hand(settings, values, epoch):
    assert stop_at(Plateau("loss", **settings), values) == epoch


def test_plateau_lets_go_when_the_value_improves():
    plateau = Plateau("loss", patience=1)
    assert [plateau.update(epoch, {"loss": value}) for epoch, value in enumerate([1, 2, 0.5])] == [False, True, False]
    assert plateau.reason == ""


@pytest.mark.parametrize(
    ("settings", "values", "reason"),
    [
        ({"patience": 2}, [0.5, 0.25, 0.3, 0.3], "loss has not improved for 2 epochs; best 0.25 at epoch 2"),
        ({"patience": 1}, [0.5, 0.5], "loss has not improved for 1 epoch; best 0.5 at epoch 1"),
        (
            {"patience": 1, "min_delta": 0.001},
            [0.5, 0.4999],
            "loss has not improved by 0.001 for 1 epoch; best 0.5 at epoch 1",
        ),
        (
            {"patience": 1, "min_delta": 0.01, "relative": True},
            [0.5, 0.4999],
            "loss has not improved by 0.01 of itself for 1 epoch; best 0.5 at epoch 1",
        ),
        ({"patience": 2}, [NAN, NAN], "loss has not been finite for 2 epochs"),
    ],
)
def test_plateau_says_why(settings, values, reason):
    plateau = Plateau("loss", **settings)
    assert stop_at(plateau, values) is not None
    assert plateau.reason == reason


def test_target_latches_at_the_first_epoch_that_reaches_it():
    target = Target("val_accuracy", 0.9)
    logs = [{"val_accuracy": value} for value in (0.5, NAN, 0.9, 0.2)]
    assert [target.update(epoch, log) for epoch, log in enumerate(logs)] == [False, False, True, True]
    assert target.reason == "val_accuracy reached 0.9 with 0.9 at epoch 3"
    target.reset()
    assert not target.update(0, {"val_accuracy": 0.2})


def test_target_downwards():
    assert stop_at(Target("loss", 0.1), [0.3, 0.2, 0.05]) == 2


def test_an_epoch_without_validation_is_not_counted():
    logs = [{"loss": 1.0}, {"loss": 1.0, "val_loss": 1.0}, {"loss": 1.0}, {"loss": 1.0, "val_loss": 2.0}]
    plateau = Plateau("val_loss", patience=1)
    assert stop_at(plateau, logs) == 3
    assert plateau.wait == 1
    assert stop_at(Target("val_loss", 0.5), logs) is None


def test_and_holds_when_both_hold_at_the_same_check():
    both = Plateau("loss", patience=1) & Plateau("accuracy", patience=1)
    values = [(1.0, 0.1), (2.0, 0.2), (0.5, 0.2), (0.6, 0.1)]  # loss worse, accuracy worse, both worse
    assert stop_at(both, [{"loss": loss, "accuracy": accuracy} for loss, accuracy in values]) == 3
    assert both.reason == (
        "loss has not improved for 1 epoch; best 0.5 at epoch 3 and "
        "accuracy has not improved for 2 epochs; best 0.2 at epoch 2"
    )


def test_or_holds_when_one_holds_and_gives_its_reason_alone():
    either = Plateau("loss", patience=5) | Target("accuracy", 0.9)
    assert stop_at(either, [{"loss": 1.0, "accuracy": 0.5}, {"loss": 1.0, "accuracy": 0.95}]) == 1
    assert either.reason == "accuracy reached 0.9 with 0.95 at epoch 2"


def test_nested_criteria_keep_their_own_counts():
    criterion = (Plateau("loss", patience=2) & Target("accuracy", 0.5)) | Target("loss", 0.01)
    plateau = [{"loss": 1.0, "accuracy": value} for value in (0.6, 0.1, 0.1)]
    assert stop_at(criterion, plateau) == 2
    assert stop_at(criterion, [{"loss": 1.0, "accuracy": 0.0}, {"loss": 0.001, "accuracy": 0.0}]) == 1
    assert stop_at(criterion, [{"loss": 1.0, "accuracy": 0.0}] * 5) is None


def test_a_criterion_that_is_used_twice_counts_each_epoch_once():
    plateau = Plateau("loss", patience=6)
    criterion = (plateau & Target("accuracy", 0.5)) | (plateau & Target("accuracy", 0.9))
    assert stop_at(criterion, [{"loss": 1.0, "accuracy": 0.6}] * 9) == 6
    assert criterion.reason.startswith("loss has not improved for 6 epochs")
    assert stop_at(plateau | plateau, [1.0] * 9) == 6


@pytest.mark.parametrize(
    "criterion",
    [Plateau("ranking", 3, -0.1, True, "auto", 0.5, 2), Plateau("val_loss", 1), Target("ranking", 0.9, "max")],
)
def test_a_criterion_comes_back_from_its_config(criterion):
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(criterion))
    assert type(again) is type(criterion)
    assert vars(again) == vars(criterion)


@pytest.mark.parametrize("criterion", [Plateau("ranking", 1), Target("ranking", 1.0)], ids=["Plateau", "Target"])
def test_a_direction_that_nothing_tells_is_asked_for_at_the_first_epoch(criterion):
    message = f'{type(criterion).__name__}: argument `mode` must be "min" or "max" here. .* give mode="min" or "max"'
    with pytest.raises(ValueError, match=message):
        criterion.update(0, {"ranking": 1.0})


@pytest.mark.parametrize(
    "combine",
    [
        lambda a, b: a and b,
        lambda a, b: a or b,
        lambda a, b: not a,
        lambda a, b: (a & b) and a,
        lambda a, b: (a | b) or a,
    ],
    ids=["and", "or", "not", "Both and", "Either or"],
)
def test_python_words_raise_instead_of_dropping_a_side(combine):
    with pytest.raises(TypeError, match=r"combine criteria with & or \|, not with `and`, `or`, `not`"):
        combine(Plateau("loss", 1), Target("loss", 0.1))


@pytest.mark.parametrize("other", ["val_loss", 3, {"update": 1}, None])
def test_only_criteria_combine(other):
    with pytest.raises(ValueError, match="Both: argument `second` must be a criterion"):
        Plateau("loss", 1) & other


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Plateau("loss", -1), "Plateau: argument `patience` must be an integer of at least 0"),
        (lambda: Plateau("loss", 1, min_delta=NAN), "Plateau: argument `min_delta` must be a finite number"),
        (lambda: Plateau("loss", 1, mode="mini"), "Did you mean 'min'"),
        (lambda: Plateau("loss", 1, start_from_epoch=-1), "`start_from_epoch` must be an integer of at least 0"),
        (lambda: Target("loss", INF), "Target: argument `value` must be a finite number"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
