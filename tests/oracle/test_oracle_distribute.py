"""The weights of one device, from several replicas: in one process, and in real worker processes on the loopback."""

import functools

import distribute_cases
import numpy as np
import pytest
from distribute_cases import CASES
from full_rows import full
from workers import TESTS, run_workers

SCRIPT = TESTS / "distribute_cases.py"
GATES = {"float64": 1e-9, "float32/sgd": 1e-5, "float32/adam": 1e-4, "mixed_float16": 1e-2, "mixed_bfloat16": 1e-1}
FEW = ("all at once/adam/float64", "steps_per_execution/sgd/float64")
FEW_STEPS, STEPS = 10, 100


@functools.cache
def one_device(case, steps):
    return CASES[case].fit(None, steps)


def gate(case):
    _, optimizer, dtype = case.split("/")
    return GATES.get(dtype) or GATES[f"{dtype}/{optimizer}"]


def deviation(ours, theirs):
    """The largest relative deviation of weights, predictions and logs."""
    pairs = [*zip(ours["weights"], theirs["weights"], strict=True)]
    pairs += [(ours[kind], theirs[kind]) for kind in ("outputs", "logs", "running")]
    return max(np.linalg.norm(a - b) / (np.linalg.norm(b) or 1.0) for a, b in pairs)


def check(results, steps):
    """Print a line for each case, and fail for those that deviate."""
    found = {case: deviation(result, one_device(case, steps)) for case, result in results.items()}
    for case, number in found.items():
        print(f"{case:42} {number:9.1e}   gate {gate(case):.0e}")
    bad = {case: number for case, number in found.items() if not number <= gate(case)}
    assert not bad


@pytest.mark.parametrize(("cases", "steps"), [(FEW, FEW_STEPS), full(tuple(CASES), STEPS)], ids=["few", "all"])
def test_two_replicas_in_one_process_equal_one_device(cases, steps, our_replicas):
    check({case: CASES[case].fit(our_replicas, steps) for case in cases}, steps)


@pytest.mark.parametrize(
    ("count", "cases", "steps"),
    [(2, FEW, FEW_STEPS), *(full(count, tuple(CASES), STEPS) for count in (1, 2, 4))],
    ids=["2 few", "1 all", "2 all", "4 all"],
)
def test_workers_equal_one_another_bit_for_bit_and_one_device(count, cases, steps, tmp_path):
    run_workers(
        SCRIPT, tmp_path, ",".join(cases), steps, "multiworker", count=count, folder=tmp_path, seconds=60 + 60 * steps
    )
    results = {}
    for case in cases:
        results[case], *others = (
            distribute_cases.load(tmp_path / distribute_cases.file_name(case, index)) for index in range(count)
        )
        for other in others:
            for kind in ("outputs", "logs", "running"):
                np.testing.assert_array_equal(other[kind], results[case][kind], err_msg=f"{case}: {kind}")
            for mine, its in zip(results[case]["weights"], other["weights"], strict=True):
                np.testing.assert_array_equal(its, mine, err_msg=case)
    check(results, steps)
