"""What is read from a curve: the moving average, the place of the fall, divergence, and the words for it."""

import numpy as np
import pytest

from keras_opt.callbacks.range_test_result import (
    RangeTestResult,
    first_level,
    growing_rates,
    has_diverged,
    place_of_fall,
    smooth,
)


def test_rates_grow_by_one_factor():
    np.testing.assert_allclose(growing_rates(1e-3, 10, 5), [1e-3, 1e-2, 1e-1, 1, 10])


def test_the_moving_average_is_corrected_for_its_begin():
    np.testing.assert_allclose(smooth(np.array([3.0, 3.0, 3.0]), 0.9), 3.0)
    # 0.5 * 4 = 2, / 0.5 = 4;  0.5 * 2 + 0.5 * 1 = 1.5, / 0.75 = 2
    np.testing.assert_allclose(smooth(np.array([4.0, 1.0]), 0.5), [4.0, 2.0])
    np.testing.assert_array_equal(smooth(np.array([4.0, 1.0]), 0.0), [4.0, 1.0])
    assert smooth(np.array([]), 0.9).size == 0


@pytest.mark.parametrize(
    ("losses", "diverged"),
    [
        ([2.0, 8.0], False),
        ([2.0, 8.1], True),
        ([-2.0, 4.0], False),
        ([-2.0, 4.1], True),
        ([-2.0, -9.0], False),
        ([2.0], False),
    ],
)
def test_divergence_is_a_rise_by_three_times_the_first_level(losses, diverged):
    assert has_diverged(np.array(losses), 0.0, steps=10) is diverged


def test_the_first_level_is_the_mean_of_the_first_tenth_of_the_test():
    losses = np.array([1.0, 3.0, 8.0, 8.1])
    assert [first_level(losses, steps) for steps in (10, 20, 25, 40, 100)] == [1, 2, 2, 5.025, 5.025]
    assert [has_diverged(losses[:count], 0.0, steps=20) for count in (2, 3, 4)] == [False, False, True]
    assert not has_diverged(np.array([1.0, 9.0]), 0.0, steps=20)  # that is chance yet


@pytest.mark.parametrize(
    ("losses", "place"),
    [
        ([10, 10, 8, 6, 4, 2, 0, 5], 5),  # 2 is four fifths of the way from 10 to 0
        ([10, 8, 2.5, 1.9, 0], 2),
        ([9, 10, 0, 20], 1),
        ([5, 4, 3, 2, 1, 0], 4),  # still falling at the end
        ([1, 2, 3], None),  # never falls
        ([5, 5, 5, 5], None),
        ([5, 6, 5, 6, 4.5, 6], None),  # by chance
        ([5], None),
        ([], None),
    ],
)
def test_the_place_where_four_fifths_of_the_fall_are_done(losses, place):
    losses = np.array(losses, float)
    assert place_of_fall(losses, losses, steps=10) == place


def test_noise_that_stays_is_no_fall():
    """Of 1,000 draws of 100 losses around 2, 965 give no suggestion."""
    rng = np.random.default_rng(0)
    found = [RangeTestResult(growing_rates(1e-6, 10, 100), rng.normal(2, 0.3, 100), 0.8) for _ in range(1000)]
    assert np.mean([result.suggestion is None for result in found]) > 0.95


def fallen(count=100):
    """A smooth fall from 2.3 to 0.3 around 1e-2, and divergence above 1."""
    rates = growing_rates(1e-6, 10, count)
    return rates, 0.3 + 2 / (1 + (rates / 1e-2) ** 1.5) + np.maximum(rates - 1, 0)


def test_a_result_says_what_was_found():
    found = RangeTestResult(*fallen(), smoothing=0.0)
    # four fifths: 1 / (1 + z) = 1/5, z = 4, rate = 1e-2 * 4^(2/3)
    assert found.suggestion == pytest.approx(1e-2 * 4 ** (2 / 3), rel=0.15)
    assert repr(found) == f"RangeTestResult(suggestion={found.suggestion:.3g}, updates=100)"
    assert str(found).startswith(f"Learning rate {found.suggestion:.2g}: in 100 updates with rates from 1e-06 to 10")
    assert "fell from 2.3 to 0.30" in str(found)
    assert "still falling" not in str(found)
    assert "it was still falling: test up to a higher rate." in str(
        RangeTestResult(*(part[:65] for part in fallen()), 0)
    )
    assert set(found.curve._asdict()) == {"rates", "losses", "smoothed"}


def test_a_result_without_a_suggestion_says_why():
    rates = growing_rates(1e-3, 1, 4)
    rising = RangeTestResult(rates, np.array([1.0, 2, 3, 4]), 0)
    assert (rising.suggestion, repr(rising)) == (None, "RangeTestResult(suggestion=None, updates=4)")
    assert str(rising) == (
        "No learning rate to suggest: in 4 updates with rates from 0.001 to 1 the smoothed loss, 1 at first, never "
        "fell by more than chance."
    )
    nothing = RangeTestResult(rates[:0], np.array([]), 0.8)
    assert str(nothing) == "No learning rate to suggest: the loss of the first batch is not finite."


def test_the_picture_has_a_log_axis_and_marks_the_suggestion():
    found = RangeTestResult(*fallen(), smoothing=0.5)
    ax = found.plot()
    assert (ax.get_xscale(), ax.get_xlabel(), ax.get_ylabel()) == ("log", "learning rate", "loss")
    assert [len(line.get_xdata()) for line in ax.lines] == [100, 100, 2]
    assert ax.lines[2].get_xdata()[0] == found.suggestion
    assert found.plot(ax) is ax
    assert len(RangeTestResult(growing_rates(1, 2, 3), np.array([1.0, 2, 3]), 0).plot().lines) == 2
    assert RangeTestResult(np.array([]), np.array([]), 0).plot().lines[0].get_xdata().size == 0
