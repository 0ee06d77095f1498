"""Argument checks: what passes, what is refused, and the exact words."""

import math

import numpy as np
import pytest

from keras_opt.core import errors


def test_an_argument_error_names_owner_argument_constraint_value_and_cure():
    error = errors.argument_error("OneCycle", "total_steps", 1, "an integer of at least 2", "Give 2 or more.")
    assert isinstance(error, ValueError)
    assert str(error) == (
        "OneCycle: argument `total_steps` must be an integer of at least 2. Received: total_steps=1. Give 2 or more."
    )


@pytest.mark.parametrize("value", [2, np.int64(2), 10**30])
def test_whole_numbers_pass(value):
    errors.check_at_least("Owner", "steps", value, 2)


@pytest.mark.parametrize("value", [1, True, 2.0, "2", None, math.nan])
def test_what_is_no_whole_number_is_refused(value):
    with pytest.raises(errors.InputError, match=r"Owner: argument `steps` must be an integer of at least 2\."):
        errors.check_at_least("Owner", "steps", value, 2)


@pytest.mark.parametrize(("value", "passes"), [(2.5, True), (np.float32(2), True), (math.inf, False), ("3", False)])
def test_finite_numbers_pass_where_a_fraction_is_allowed(value, passes):
    if passes:
        errors.check_at_least("Owner", "factor", value, 2, whole=False)
    else:
        with pytest.raises(errors.InputError, match="a finite number of at least 2"):
            errors.check_at_least("Owner", "factor", value, 2, whole=False)


@pytest.mark.parametrize("value", [0, 0.0, 0.5, np.float32(0.999)])
def test_fractions_pass(value):
    errors.check_fraction("Owner", "rate", value)


@pytest.mark.parametrize("value", [1, 50, -0.1, True, math.nan, "0.5", None, 10**400])
def test_what_is_no_fraction_is_refused(value):
    with pytest.raises(errors.InputError, match=r"must be a fraction in \[0, 1\)\..*Give a fraction, not a percentage"):
        errors.check_fraction("Owner", "rate", value)


def test_one_is_a_fraction_only_where_it_is_allowed():
    errors.check_fraction("Owner", "rate", 1, one_allowed=True)
    with pytest.raises(errors.InputError, match=r"\[0, 1\]"):
        errors.check_fraction("Owner", "rate", 1.1, one_allowed=True)


@pytest.mark.parametrize("value", [0, -1, math.inf, math.nan, "1", True])
def test_what_is_not_positive_is_refused(value):
    with pytest.raises(errors.InputError, match="a finite number above 0"):
        errors.check_positive("Owner", "rate", value)


def test_a_choice_that_is_none_is_answered_with_the_closest_one():
    errors.check_choice("Owner", "mode", "min", ("min", "max"))
    with pytest.raises(errors.InputError, match=r"one of 'min', 'max'\. .* Did you mean 'min'\?"):
        errors.check_choice("Owner", "mode", "mim", ("min", "max"))
    with pytest.raises(errors.InputError, match=r"Choose from min, max\.$"):
        errors.check_choice("Owner", "mode", "zzz", ("min", "max"))


def test_nothing_to_choose_from_is_said_so():
    assert errors.did_you_mean("val_loss", {}) == "There is nothing to choose from."
