"""Every criterion fed with scripted logs: the exact epoch and sentence, computed by hand."""

import json
import math

import keras
import pytest

from keras_opt.callbacks import (
    Divergence,
    GeneralizationLoss,
    OverfitGap,
    Plateau,
    ProgressQuotient,
    SuccessiveIncreases,
    Target,
    TimeBudget,
)
from keras_opt.callbacks.criteria.criterion import holds
from keras_opt.callbacks.criteria.prechelt import generalization_loss, training_progress

NAN, INF = math.nan, math.inf


class Meter:
    """Ten updates and half a minute an epoch."""

    validation_seconds = 0.0

    def __init__(self):
        self.epochs = 0

    @property
    def updates(self):
        return 10 * self.epochs

    @property
    def seconds(self):
        return 30.0 * self.epochs


def stop_at(criterion, values, monitor="loss"):
    """The first epoch (from 0) at which the criterion holds."""
    meter = Meter()
    if hasattr(criterion, "meter"):
        criterion.meter = meter
    criterion.reset()
    for epoch, value in enumerate(values):
        meter.epochs += 1
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
        # Noise: 1 stays best; the averages 4, 2.5, 2.75, 2.375, 2.1875, 1.84375 still fall.
        ({"patience": 3}, [4, 1, 3, 2, 2, 1.5], 4),
        ({"patience": 3, "smoothing": 0.5}, [4, 1, 3, 2, 2, 1.5], None),
        ({"patience": 1, "smoothing": 0.5}, [4, 1, 3, 2, 2, 1.5], 2),
        ({"patience": 2, "smoothing": 0.5}, [4, NAN, 2, INF, 2, 3, 3], 6),  # averages 4, 3, 2.5, 2.75, 2.875
        ({"patience": 20, "patience_unit": "update"}, [3, 2, 2, 2, 2], 3),
        ({"patience": 21, "patience_unit": "update"}, [3, 2, 2, 2, 2], 4),
        ({"patience": 10, "patience_unit": "update", "start_from_epoch": 3}, [1, 2, 3, 4, 5], 4),
        ({"patience": 59.5, "patience_unit": "second"}, [3, 2, 2, 2, 2], 3),
        ({"patience": 61, "patience_unit": "second"}, [3, 2, 2, NAN, 2], 4),
    ],
)
def test_plateau_holds_at_the_epoch_computed_by_hand(settings, values, epoch):
    assert stop_at(Plateau("loss", **settings), values) == epoch


@pytest.mark.parametrize(
    ("criterion", "values", "epoch"),
    [
        (Target("loss", 0.1), [0.3, 0.2, 0.05], 2),
        (Target("loss", 0.1), [NAN, INF, 0.1], 2),  # reached by a tie
        (Target("loss", 0.1, mode="max"), [NAN, 0.05, 0.1], 2),
        (Target("loss", 0.1), [-INF, 0.2, 0.0], 2),
        (Target("loss", 0.1, mode="max"), [INF, 0.0, 0.2], 2),
        (Divergence("loss", above=10.0), [1, 10, 10.5], 2),
        (Divergence("loss", above=10.0), [1, 2, NAN], 2),
        (Divergence("loss", above=10.0), [1, -INF], 1),
        (Divergence("loss"), [1, 1e30, INF], 2),
        (Divergence("loss", above=10.0), [10, 10, 10], None),
        (GeneralizationLoss(25, "loss"), [1.0, 0.5, 0.625, 0.63], 3),  # 25% is not above 25
        (GeneralizationLoss(5, "loss"), [1.0, 0.5, NAN, INF, 0.4, 0.41], None),
        (GeneralizationLoss(100, "loss"), [0.0, 0.0, 1e-9], 2),  # above 0 by infinitely many percent
        (SuccessiveIncreases(2, 1, "loss"), [3, 2, 2.5, 2.4, 2.5, 2.6], 5),
        (SuccessiveIncreases(2, 1, "loss"), [3, 2, 2.5, 2.5, 2.6, 2.6], None),  # a tie is no increase
        (SuccessiveIncreases(1, 1, "loss"), [2, NAN, 3], 2),
        (SuccessiveIncreases(2, 1, "loss"), [2, 3, NAN, 4], None),  # a strip without a new value does not rise
        (SuccessiveIncreases(2, 2, "loss"), [9, 1, 9, 2, 0, 3], 5),  # only the ends of the strips count: 1, 2, 3
        (SuccessiveIncreases(1), [{"val_loss": value} for value in (1, 1, 1, 1, 1, 9, 9, 9, 9, 1.1)], 9),
    ],
)
def test_the_others_hold_at_the_epoch_computed_by_hand(criterion, values, epoch):
    assert stop_at(criterion, values) == epoch


@pytest.mark.parametrize(
    ("mode", "pairs", "epoch"),
    [
        ("min", [(1.0, 1.2), (0.5, 1.0), (0.3, 1.0)], 2),  # 0.5 is not above 0.5
        ("min", [(1.0, 0.2), (NAN, 3.0), (1.0, INF)], None),
        ("max", [(0.7, 0.9), (0.9, 0.2)], 1),
        ("max", [(0.2, 0.9), (0.7, 0.2)], None),
    ],
)
def test_an_overfit_gap_holds_at_the_epoch_computed_by_hand(mode, pairs, epoch):
    logs = [{"score": train, "val_score": validation} for train, validation in pairs]
    assert stop_at(OverfitGap("score", "val_score", above=0.5, mode=mode), logs) == epoch


def test_an_overfit_gap_lets_go():
    gap = OverfitGap("accuracy", "val_accuracy", above=0.1)
    pairs = [(0.9, 0.5), (0.9, 0.85), (0.9, NAN), (0.9, 0.1)]
    logs = [{"accuracy": train, "val_accuracy": validation} for train, validation in pairs]
    assert [gap.update(epoch, log) for epoch, log in enumerate(logs)] == [True, False, False, True]


@pytest.mark.parametrize(
    ("alpha", "strip", "pairs", "epoch"),
    [
        # Strip 2 ends with GL = 10 and P = 1000 * (0.95 / 0.9 - 1) = 55.6, so PQ = 0.18; strip 4 with GL = 12 and
        # P = 1000 * (0.895 / 0.89 - 1) = 5.6, so PQ = 2.1.
        (0.5, 2, [(1.0, 0.5), (0.9, 0.55), (0.9, 0.9), (0.89, 0.56)], 3),
        (0.1, 2, [(1.0, 0.5), (0.9, 0.55)], 1),
        (2.2, 2, [(1.0, 0.5), (0.9, 0.55), (0.9, 0.9), (0.89, 0.56)], None),
        (9.0, 2, [(1.0, 0.5), (1.0, 0.5), (1.0, 0.5), (1.0, 0.51)], 3),  # no progress at all
        (0.1, 2, [(NAN, 0.5), (1.0, 0.5), (INF, 0.5), (NAN, 0.9), (1.0, NAN), (1.0, NAN)], 5),
    ],
)
def test_the_progress_quotient_holds_at_the_epoch_computed_by_hand(alpha, strip, pairs, epoch):
    logs = [{"loss": train, "val_loss": validation} for train, validation in pairs]
    assert stop_at(ProgressQuotient(alpha, strip), logs) == epoch


def test_the_formulas_of_prechelt():
    assert generalization_loss(0.6, 0.5) == pytest.approx(20)
    assert training_progress([1.2, 1.0, 0.8]) == pytest.approx(250)
    assert training_progress([0.0, 0.0]) == generalization_loss(0.0, 0.0) == 0
    assert training_progress([1.0, 0.0]) == math.inf


def test_a_time_budget_holds_from_the_moment_on_in_which_no_validation_fits_any_more():
    budget = TimeBudget(max_seconds=65)
    assert stop_at(budget, [1.0] * 5) == 2
    assert budget.reason == "90.0 s of the 65 s to train are used"
    budget.reset()
    budget.meter.epochs, budget.meter.validation_seconds = 1, 40.0
    assert budget.check()
    assert budget.reason == "30.0 s of the 65 s to train are used, and 40.0 s are kept for a validation"
    budget.meter.epochs = 0
    assert budget.check()  # it latches


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
        (
            {"patience": 15, "patience_unit": "update"},
            [0.5, 0.5, 0.5],
            "loss has not improved for 20 updates; best 0.5 at epoch 1",
        ),
        (
            {"patience": 15, "patience_unit": "second", "smoothing": 0.5},
            [0.5, 0.7],
            "loss (smoothed) has not improved for 30.0 seconds; best 0.5 at epoch 1",
        ),
    ],
)
def test_plateau_says_why(settings, values, reason):
    plateau = Plateau("loss", **settings)
    assert stop_at(plateau, values) is not None
    assert plateau.reason == reason


@pytest.mark.parametrize(
    ("criterion", "values", "reason"),
    [
        (Divergence("loss"), [1.0, NAN], "loss diverged to nan at epoch 2"),
        (Divergence("loss", 3), [4.5], "loss diverged to 4.5 at epoch 1, above 3"),
        (SuccessiveIncreases(1, 5, "loss"), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10], None),
    ],
)
def test_the_others_say_why(criterion, values, reason):
    assert stop_at(criterion, values) is not None
    assert criterion.reason == (reason or "loss has risen over 1 strip of 5 epochs in a row, to 10 at epoch 10")


def test_target_latches_at_the_first_epoch_that_reaches_it():
    target = Target("val_accuracy", 0.9)
    logs = [{"val_accuracy": value} for value in (0.5, NAN, 0.9, 0.2)]
    assert [target.update(epoch, log) for epoch, log in enumerate(logs)] == [False, False, True, True]
    assert target.reason == "val_accuracy reached 0.9 with 0.9 at epoch 3"
    target.reset()
    assert not target.update(0, {"val_accuracy": 0.2})


def test_divergence_latches():
    divergence = Divergence("loss", 10)
    assert [divergence.update(epoch, {"loss": value}) for epoch, value in enumerate([1, 11, 1])] == [False, True, True]


def test_an_epoch_without_validation_is_not_counted():
    logs = [{"loss": 1.0}, {"loss": 1.0, "val_loss": 1.0}, {"loss": 1.0}, {"loss": 1.0, "val_loss": 2.0}]
    plateau = Plateau("val_loss", patience=1)
    assert stop_at(plateau, logs) == 3
    assert plateau.wait == 1
    assert plateau.update(4, {"loss": 1.0})  # nothing was seen that would let it go
    for criterion in (Target("val_loss", 0.5), Divergence("val_loss", 3), GeneralizationLoss(200)):
        assert stop_at(criterion, logs) is None
    assert stop_at(OverfitGap("loss", "val_loss", 0.5), logs) == 3
    assert stop_at(ProgressQuotient(1, strip=2), logs) == 3
    assert stop_at(SuccessiveIncreases(1, strip=2), logs) == 3


def test_and_holds_when_both_hold_at_the_same_check():
    both = Plateau("loss", patience=1) & Plateau("accuracy", patience=1)
    values = [(1.0, 0.1), (2.0, 0.2), (0.5, 0.2), (0.6, 0.1)]  # loss worse, accuracy worse, both worse
    assert stop_at(both, [{"loss": loss, "accuracy": accuracy} for loss, accuracy in values]) == 3
    assert both.reason == (
        "loss has not improved for 1 epoch; best 0.5 at epoch 3 and "
        "accuracy has not improved for 2 epochs; best 0.2 at epoch 2"
    )


def test_and_with_a_criterion_that_latches_waits_for_the_other():
    both = Divergence("loss", 10) & Target("accuracy", 0.5)
    values = [(1.0, 0.6), (1.0, 0.1), (20.0, 0.1)]
    assert stop_at(both, [{"loss": loss, "accuracy": accuracy} for loss, accuracy in values]) == 2


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


class Third:
    """A criterion of somebody else's."""

    def __init__(self):
        self.reason = ""

    def reset(self):
        self.reason = ""

    def update(self, epoch, logs):
        self.reason = "it is the third" if epoch == 2 else ""
        return epoch == 2


def test_a_criterion_of_ones_own_combines():
    assert stop_at(Plateau("loss", 9) | Third(), [1.0] * 4) == 2
    assert stop_at(Plateau("loss", 1) & Third(), [1.0] * 4) == 2


EVERY = [
    Plateau("ranking", 3, -0.1, True, "auto", 0.3, "second", 2, 0.5),
    Plateau("val_loss", 1),
    Target("ranking", 0.9, "max"),
    Divergence("loss", 3.0),
    OverfitGap("score", "val_score", 0.1, "max"),
    TimeBudget(30),
    GeneralizationLoss(5),
    ProgressQuotient(0.5, strip=2),
    SuccessiveIncreases(2, strip=1),
]
names = [type(criterion).__name__ for criterion in EVERY]


@pytest.mark.parametrize("criterion", EVERY, ids=names)
def test_a_criterion_comes_back_from_its_config(criterion):
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(criterion))
    assert type(again) is type(criterion)
    assert vars(again) | {"meter": None} == vars(criterion) | {"meter": None}


def test_a_combination_comes_back_from_its_config_and_reads_as_it_was_written():
    criterion = (Target("loss", 0.1) & TimeBudget(9)) | Divergence("loss", 5)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(criterion))
    assert (
        repr(again)
        == repr(criterion)
        == (
            "((Target(monitor='loss', value=0.1, mode='min') & TimeBudget(max_seconds=9)) "
            "| Divergence(monitor='loss', above=5))"
        )
    )


SEQUENCE = [2.0, 1.0, NAN, 1.5, 1.2, 1.3, 0.9, 1.0, 1.1, 1.4, 30.0, INF, 3.0]
RESUMED = {
    "Plateau": lambda: Plateau("loss", 3, smoothing=0.2),
    "updates": lambda: Plateau("loss", 35, patience_unit="update", baseline=0.95),
    "seconds": lambda: Plateau("loss", 95, patience_unit="second"),
    "Target": lambda: Target("loss", 0.95),
    "Divergence": lambda: Divergence("loss", 10),
    "OverfitGap": lambda: OverfitGap("train", "loss", 1.0, mode="min"),
    "TimeBudget": lambda: TimeBudget(200),
    "GeneralizationLoss": lambda: GeneralizationLoss(50, "loss"),
    "ProgressQuotient": lambda: ProgressQuotient(1, 3, "loss", "train"),
    "SuccessiveIncreases": lambda: SuccessiveIncreases(2, 2, "loss"),
}


@pytest.mark.parametrize("make", RESUMED.values(), ids=RESUMED)
@pytest.mark.parametrize("interrupted_after", range(0, 13, 3))
def test_a_criterion_that_is_resumed_goes_on_as_if_nothing_had_been(make, interrupted_after):
    def run(criterion, begin, end):
        said = []
        for epoch in range(begin, end):
            meter.epochs = epoch + 1
            said.append(
                (criterion.update(epoch, {"loss": SEQUENCE[epoch], "train": 3 / (1 + epoch)}), criterion.reason)
            )
        return said

    meter, whole, first, second = Meter(), make(), make(), make()
    for criterion in (whole, first, second):
        if hasattr(criterion, "meter"):
            criterion.meter = meter
        criterion.reset()
    expected = run(whole, 0, 13)
    assert any(said for said, _ in expected)
    run(first, 0, interrupted_after)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert run(second, interrupted_after, 13) == expected[interrupted_after:]


def test_a_saved_state_does_not_change_with_the_criterion():
    quotient = ProgressQuotient(1, strip=5)
    quotient.update(0, {"loss": 1.0, "val_loss": 1.0})
    state = quotient.state_dict()
    quotient.update(1, {"loss": 1.0, "val_loss": 1.0})
    assert state["strip"] == [1.0]


@pytest.mark.parametrize(
    "criterion",
    [Plateau("ranking", 1), Target("ranking", 1.0), OverfitGap("ranking", "ranking", 1.0)],
    ids=["Plateau", "Target", "OverfitGap"],
)
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
@pytest.mark.parametrize("first", EVERY, ids=names)
def test_python_words_raise_instead_of_dropping_a_side(combine, first):
    with pytest.raises(TypeError, match=r"combine criteria with & or \|, not with `and`, `or`, `not`"):
        combine(first, Target("loss", 0.1))


@pytest.mark.parametrize("other", ["val_loss", 3, {"update": 1}, None])
def test_only_criteria_combine(other):
    with pytest.raises(ValueError, match="Both: argument `second` must be a criterion"):
        Plateau("loss", 1) & other


@pytest.mark.parametrize("criterion", [Plateau("loss", 1, patience_unit="update"), TimeBudget(1)])
def test_updates_and_seconds_are_measured_by_early_stopping(criterion):
    with pytest.raises(RuntimeError, match=r"is measured by EarlyStopping\. Give the criterion to EarlyStopping"):
        criterion.update(0, {"loss": 1.0})


@pytest.mark.parametrize(
    "criterion", [GeneralizationLoss(1), ProgressQuotient(1), SuccessiveIncreases(1)], ids=lambda c: type(c).__name__
)
def test_a_negative_loss_has_no_ratio(criterion):
    with pytest.raises(ValueError, match=r"val_loss must be at least 0, .* Use Plateau"):
        criterion.update(0, {"loss": 1.0, "val_loss": -1.0})


@pytest.mark.parametrize("criterion", EVERY[1:5] + EVERY[6:], ids=names[1:5] + names[6:])
def test_a_name_that_is_not_in_the_logs_is_answered_with_what_is(criterion):
    with pytest.raises(ValueError, match=f"{type(criterion).__name__}: argument `monitor` must be in the logs"):
        criterion.update(0, {"val_other": 1.0})


def test_a_pair_says_what_its_parts_said_last():
    budget, plateau = TimeBudget(40), Plateau("loss", 9)
    budget.meter = Meter()
    either = budget | plateau
    assert not either.update(0, {"loss": 1.0})
    budget.meter.epochs = 2
    budget.check()
    assert holds(either)
    assert either.reason == budget.reason


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Plateau("loss", -1), "Plateau: argument `patience` must be an integer of at least 0"),
        (lambda: Plateau("loss", 1.5), "Plateau: argument `patience` must be an integer of at least 0"),
        (lambda: Plateau("loss", 1.5, patience_unit="update"), "`patience` must be an integer of at least 0"),
        (lambda: Plateau("loss", -1.5, patience_unit="second"), "`patience` must be a finite number of at least 0"),
        (lambda: Plateau("loss", 1, patience_unit="updates"), "Did you mean 'update'"),
        (lambda: Plateau("loss", 1, smoothing=1.0), r"`smoothing` must be a fraction in \[0, 1\)"),
        (lambda: Plateau("loss", 1, min_delta=NAN), "Plateau: argument `min_delta` must be a finite number"),
        (lambda: Plateau("loss", 1, baseline=NAN), "Plateau: argument `baseline` must be a finite number or None"),
        (lambda: Plateau("loss", 1, mode="mini"), "Did you mean 'min'"),
        (lambda: Plateau("loss", 1, start_from_epoch=-1), "`start_from_epoch` must be an integer of at least 0"),
        (lambda: Target("loss", INF), "Target: argument `value` must be a finite number"),
        (lambda: Divergence("loss", INF), "Divergence: argument `above` must be a finite number"),
        (lambda: OverfitGap("loss", "val_loss", None), "OverfitGap: argument `above` must be a finite number"),
        (lambda: TimeBudget(0), "TimeBudget: argument `max_seconds` must be a finite number above 0"),
        (lambda: GeneralizationLoss(0), "GeneralizationLoss: argument `alpha` must be a finite number above 0"),
        (lambda: ProgressQuotient(-1), "ProgressQuotient: argument `alpha` must be a finite number above 0"),
        (lambda: ProgressQuotient(1, strip=0), "ProgressQuotient: argument `strip` must be an integer of at least 1"),
        (lambda: SuccessiveIncreases(0), "SuccessiveIncreases: argument `count` must be an integer of at least 1"),
        (lambda: SuccessiveIncreases(1, 1.5), "SuccessiveIncreases: argument `strip` must be an integer"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
