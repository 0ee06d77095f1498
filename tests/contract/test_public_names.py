"""Every public name has a row in the table, and does what its row says."""

import inspect
import re
from pathlib import Path

import pytest
from public_names import PUBLIC_NAMES, Call, rows

import keras_opt

CALLS = rows(Call)


def public_names(package):
    """The names that a package offers: no underscore, no module."""
    return {name for name in dir(package) if not name.startswith("_") and not inspect.ismodule(getattr(package, name))}


def test_every_public_name_has_a_row_and_every_row_a_name():
    subpackages = [name for name in dir(keras_opt) if inspect.ismodule(getattr(keras_opt, name))]
    offered = {room: public_names(getattr(keras_opt, room)) for room in subpackages}
    offered[""] = set(dir(keras_opt)) - set(subpackages) - {"__version__"}
    assert {room: set(names) for room, names in PUBLIC_NAMES.items()} == offered


@pytest.mark.parametrize("row", CALLS.values(), ids=CALLS)
def test_a_call_has_its_effect(row, tmp_path):
    assert row.effect(tmp_path)


@pytest.mark.parametrize("room", PUBLIC_NAMES)
def test_the_readme_names_it(room):
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    assert [name for name in PUBLIC_NAMES[room] if not re.search(rf"\b{name}\b", readme)] == []
