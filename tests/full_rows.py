"""Which rows of a table a test takes by default; the others it takes with `pytest --full`."""

import pytest


def full(*values, id=None):
    """A row for `--full` only."""
    return pytest.param(*values, id=id, marks=pytest.mark.full)


def few(table, *names):
    """All rows of a table by name: those of `names` always, the others with `--full`."""
    unknown = set(names) - set(table)
    if unknown:
        raise ValueError(f"not in the table: {sorted(unknown)}")
    return [pytest.param(table[name], id=name) if name in names else full(table[name], id=name) for name in table]
