"""Which weights stay, by the formulas: exact masks for each structure, scope and history."""

import numpy as np
import pytest

from keras_opt.compression.pruning.masks import UNSTRUCTURED, Blocks, Pattern, renewed_masks, structure_of

RNG = np.random.default_rng(0)


def mask(weights, target, structure=UNSTRUCTURED, kept=None, regrow=False):
    weights = np.asarray(weights, np.float32)
    kept = np.ones_like(weights) if kept is None else np.asarray(kept, np.float32)
    return renewed_masks([weights], [kept], target, structure, regrow=regrow)[0].tolist()


def column(*values):
    return [[value] for value in values]


def keep_largest(weights, kept, target):
    """Single weights of one kernel by a stable sort, as keras_opt 0.1 had it: committed figures hang on its ties."""
    count = round(target * weights.size)
    if count <= np.sum(kept == 0):
        return kept
    magnitudes = np.where(kept == 0, -1, np.abs(weights))
    result = np.ones(weights.size, kept.dtype)
    result[np.argsort(magnitudes, axis=None, kind="stable")[:count]] = 0
    return result.reshape(weights.shape)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_single_weights_equal_a_stable_sort_bit_for_bit(dtype):
    for size in (1, 2, 7, 1000):
        for weights in (RNG.normal(size=size), RNG.integers(-3, 4, size)):  # the latter has many equals and zeros
            weights = weights.astype(dtype).reshape(-1, 1)
            kept = expected = (weights != 0).astype(dtype)
            for target in (0.0, 0.1, 0.5, 0.45, 0.9, 0.999):
                kept = renewed_masks([weights], [kept], target)[0]
                expected = keep_largest(weights, expected, target)
                assert kept.dtype == dtype
                np.testing.assert_array_equal(kept, expected)


def test_ties_go_by_position_and_what_was_dropped_goes_first():
    weights, kept = column(1, 0, 1, 0), column(1, 1, 1, 0)
    assert mask(weights, 0.5, kept=kept) == column(1, 0, 1, 0)
    assert mask(weights, 0.75, kept=kept) == column(0, 0, 1, 0)
    assert mask(weights, 0.0, kept=kept) == kept


def test_two_of_four():
    weights = np.array([[1, 8], [2, 7], [3, 6], [4, 5], [9, 1], [-9, 1], [0, 1], [1, 1]])
    expected = [[0, 1], [0, 1], [1, 0], [1, 0], [1, 0], [1, 0], [0, 1], [0, 1]]  # of equals the first go
    assert mask(weights, 0.5, Pattern(2, 4)) == expected


def test_on_the_way_to_a_pattern_the_smallest_of_what_it_drops_go_first():
    weights = column(1, 2, 3, 4, 10, 20, 30, 40)
    assert mask(weights, 0.25, Pattern(2, 4)) == column(0, 0, 1, 1, 1, 1, 1, 1)
    assert mask(weights, 0.375, Pattern(2, 4)) == column(0, 0, 1, 1, 0, 1, 1, 1)  # 3 and 4 stay, though they are less
    assert mask(weights, 0.5, Pattern(2, 4)) == column(0, 0, 1, 1, 0, 0, 1, 1)


def test_a_pattern_on_a_kernel_with_zeros_elsewhere_is_met_all_the_same():
    weights, kept = column(1, 2, 3, 4, 10, 20, 30, 40), column(0, 0, 0, 0, 1, 1, 1, 1)
    assert mask(weights, 0.5, Pattern(2, 4), kept) == column(0, 0, 0, 0, 0, 0, 1, 1)
    assert mask(weights, 0.25, Pattern(2, 4), column(1, 1, 1, 1, 1, 1, 0, 1)) == column(0, 1, 1, 1, 1, 1, 0, 1)


def test_one_of_three():
    assert mask(column(1, 2, 3, 6, 5, 4), 1 - 1 / 3, Pattern(1, 3)) == column(0, 0, 1, 1, 0, 0)


def test_blocks_go_by_the_sum_of_their_magnitudes():
    weights = np.array([[9, 0, 3, 3], [0, 0, -3, 3]])  # sums of 9 and 12, though the first has the largest weight
    assert mask(weights, 0.5, Blocks(2, 2)) == [[0, 0, 1, 1]] * 2
    assert mask(weights, 0.5, Blocks(1, 4)) == [[1] * 4, [0] * 4]
    assert mask(weights, 0.5, Blocks(2, 1)) == [[1, 0, 0, 1]] * 2  # of 9, 0, 6 and 6 the 0 and the first 6


def test_a_block_with_single_zeros_is_no_dropped_one_and_keeps_them():
    weights = np.array([[0, 9, 1, 1]])
    assert mask(weights, 0.0, Blocks(1, 2), kept=[[0, 1, 1, 1]]) == [[0, 1, 1, 1]]
    assert mask(weights, 0.5, Blocks(1, 2), kept=[[0, 1, 1, 1]]) == [[0, 1, 0, 0]]
    assert mask(weights, 0.5, Blocks(1, 2), kept=[[0, 0, 1, 1]]) == [[0, 0, 1, 1]]


@pytest.mark.parametrize("structure", [UNSTRUCTURED, Blocks(2, 1), Pattern(1, 2)])
def test_one_ranking_of_all_kernels(structure):
    weights = [np.array(column(1, 4, 9, 7), np.float32), np.array(column(2, 8, 3, 6), np.float32)]
    ones = [np.ones_like(each) for each in weights]
    expected = {
        UNSTRUCTURED: [[0, 1, 1, 1], [0, 1, 0, 1]],  # 1, 2 and 3 of all eight
        Blocks(2, 1): [[0, 0, 1, 1], [1, 1, 0, 0]],  # round(1.5) = 2 of four: 5 and 9
        Pattern(1, 2): [[0, 1, 1, 1], [0, 1, 0, 1]],
    }[structure]
    masks = renewed_masks(weights, ones, 0.375, structure, "global")
    assert [each.ravel().tolist() for each in masks] == expected


def test_what_is_to_return_is_ranked_by_its_magnitude():
    weights, kept = column(5, 1, 4, 2), column(0, 1, 0, 1)
    assert mask(weights, 0.5, kept=kept) == kept
    assert mask(weights, 0.5, kept=kept, regrow=True) == column(1, 0, 1, 0)
    assert mask(weights, 0.0, kept=kept, regrow=True) == column(1, 0, 1, 0)  # sparsity never falls
    assert mask(weights, 0.5, Blocks(2, 1), column(1, 1, 0, 0), regrow=True) == column(0, 0, 1, 1)
    assert mask(weights, 0.5, Pattern(1, 2), column(0, 1, 0, 1), regrow=True) == column(1, 0, 1, 0)


def test_the_arguments_stay_as_they_are():
    weights, kept = np.array(column(1, 2), np.float32), np.array(column(1, 1), np.float32)
    for regrow in (False, True):
        renewed_masks([weights], [kept], 0.5, regrow=regrow)
    assert (weights.tolist(), kept.tolist()) == (column(1, 2), column(1, 1))


@pytest.mark.parametrize(
    ("value", "structure"),
    [("unstructured", Blocks(1, 1)), ("2:4", Pattern(2, 4)), ("1:16", Pattern(1, 16)), ([4, 1], Blocks(4, 1))],
)
def test_what_an_argument_stands_for(value, structure):
    assert structure_of("Owner", value) == structure


@pytest.mark.parametrize(
    "value",
    ["2:2", "4:2", "0:4", "2:4:8", "2.0:4", "two", "", 4, None, (4,), (0, 4), (4, 4.0), (True, 4), (4, 4, 4)],
    ids=repr,
)
def test_what_is_no_structure_is_refused(value):
    with pytest.raises(ValueError, match=r'^Owner: argument `structure` must be "unstructured", "n:m" .* Received: '):
        structure_of("Owner", value)
