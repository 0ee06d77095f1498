"""Each benchmark has its committed result, of the claim that it makes today."""

import ast
import json
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
NAMES = sorted(path.stem for path in BENCHMARKS.glob("[a-z]*.py"))


def claim(name):
    tree = ast.parse((BENCHMARKS / f"{name}.py").read_text(encoding="utf-8"))
    (value,) = (
        node.value for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "CLAIM"
    )
    return ast.literal_eval(value)


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_has_a_result_of_its_claim(name):
    result = json.loads((BENCHMARKS / "results" / f"{name}.json").read_text(encoding="utf-8"))
    assert result["claim"] == claim(name)


def test_each_result_has_its_benchmark():
    assert sorted(path.stem for path in (BENCHMARKS / "results").glob("*.json")) == NAMES
