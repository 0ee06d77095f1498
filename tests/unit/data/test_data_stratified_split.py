"""Sizes by largest remainder, no example lost or doubled, and the class with too few named."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_opt.core.errors import InputError
from keras_opt.data.stratified_split import check_class_counts, class_counts, stratified_split


def held_counts(counts, held_out):
    labels = np.repeat(np.arange(len(counts)), counts)
    kept, held = stratified_split(labels, held_out, seed=0)
    assert sorted([*kept, *held]) == list(range(len(labels)))
    return np.bincount(labels[held], minlength=len(counts)).tolist()


@pytest.mark.parametrize(
    ("counts", "held_out", "expected"),
    [
        ([1000] * 10, 1000, [100] * 10),
        ([50, 30, 20], 0.1, [5, 3, 2]),
        ([55, 32, 13], 10, [6, 3, 1]),  # exact shares 5.5, 3.2, 1.3: the one left over goes to the largest remainder
        ([5, 5, 5], 0.25, [2, 1, 1]),  # 3.75 rounds to 4; equal remainders go to the first class
        ([96, 2, 2], 0.1, [8, 1, 1]),  # exact 9.6, 0.2, 0.2: a rare class is not lost
        ([96, 2, 2], 0.99, [95, 1, 1]),
        ([2, 2], 0.001, [1, 1]),
        ([2, 2], 2, [1, 1]),
    ],
)
def test_share_of_every_class(counts, held_out, expected):
    assert held_counts(counts, held_out) == expected


@given(st.lists(st.integers(2, 60), min_size=1, max_size=8), st.floats(0.01, 0.99))
def test_every_class_gets_its_share_within_one_example(counts, fraction):
    total = sum(counts)
    held = held_counts(counts, fraction)
    wanted = min(max(round(fraction * total), len(counts)), total - len(counts))
    assert sum(held) == wanted
    exact = [wanted * count / total for count in counts]
    bound = [part in (1, count - 1) for part, count in zip(held, counts, strict=True)]
    if not any(bound):
        assert all(abs(part - share) < 1 for part, share in zip(held, exact, strict=True))
    assert all(1 <= part <= count - 1 for part, count in zip(held, counts, strict=True))


def test_seed_decides_and_both_parts_are_shuffled():
    labels = np.repeat([0, 1], 200)
    first, again, other = (stratified_split(labels, 0.25, seed) for seed in (1, 1, 2))
    for part in (0, 1):
        np.testing.assert_array_equal(first[part], again[part])
        assert not np.array_equal(first[part], other[part])
        assert np.count_nonzero(np.diff(labels[first[part]])) > 1
    assert set(labels[first[1][:20]]) == {0, 1}


def test_labels_keep_their_order_of_appearance_out_of_it():
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [30, 20, 10]))
    _, held = stratified_split(labels, 0.5, seed=0)
    np.testing.assert_array_equal(np.bincount(labels[held]), [15, 10, 5])


@pytest.mark.parametrize(
    ("count", "parts", "received"), [(1, 2, "1 image"), (2, 3, "2 images"), (0, 2, "0 images")], ids=str
)
def test_class_with_too_few_is_named(count, parts, received):
    labels = np.repeat([0, 1, 2], [5, count, 5])
    message = (
        f"Class 'bee' has {received}, but the split needs at least {parts}, one for each part. "
        "Add images to the class, remove the class, or ask for fewer parts."
    )
    with pytest.raises(InputError, match="^" + re.escape(message) + "$"):
        check_class_counts(labels, parts, ("ant", "bee", "cat"))
    if parts == 2:
        with pytest.raises(InputError, match=re.escape(message)):
            stratified_split(labels, 0.5, 0, ("ant", "bee", "cat"))
        with pytest.raises(InputError, match="Class '1' has"):
            stratified_split(labels, 0.5, 0)


@pytest.mark.parametrize("held_out", [0.0, 1.0, -0.2, float("nan"), True, "0.2", None])
def test_held_out_is_a_fraction_or_a_count(held_out):
    with pytest.raises(InputError, match=r"argument `held_out` must be a fraction in \(0, 1\) or a count"):
        stratified_split(np.repeat([0, 1], 5), held_out, 0)


@pytest.mark.parametrize("held_out", [0, 1, 9, 10])
def test_count_must_leave_every_class_in_both_parts(held_out):
    message = f"must be between 2 and 8, so that each of 2 classes has an example in both parts. .*held_out={held_out}"
    with pytest.raises(InputError, match=message):
        stratified_split(np.repeat([0, 1], 5), held_out, 0)


def test_class_counts_names_every_class():
    assert class_counts(np.array([0, 2, 2]), ("ant", "bee", "cat")) == {"ant": 1, "bee": 0, "cat": 2}
