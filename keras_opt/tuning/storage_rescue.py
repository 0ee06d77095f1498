"""What is left of Optuna's SQLite file after it was damaged."""

import contextlib
import sqlite3
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_opt.core.errors import InputError
from keras_opt.core.optional import require

# SQLite lets one process write at a time; the others wait.
LOCK_SECONDS = 120
_HEADER = b"SQLite format 3\x00"
# After so many rows in a row that are not there or cannot be read, a table is taken to be at its end.
_MOST_MISSING_ROWS = 20_000


@dataclass(frozen=True)
class Rescued:
    """What was intact.

    Attributes:
        trials: Optuna's frozen trials, finished ones only.
        study_attributes: What was kept beside the study.
        damaged: Where the damaged file is now.
    """

    trials: list[Any]
    study_attributes: dict[str, Any]
    damaged: Path


def damage_of(path: Path) -> str | None:
    """What is wrong with a SQLite file; `None` if nothing is, or there is no file.

    Raises:
        InputError: It is no SQLite file at all, or cannot be read now; that is no damage.
    """
    if not path.exists() or not path.stat().st_size:
        return None
    with path.open("rb") as file:
        if file.read(len(_HEADER)) != _HEADER:
            raise InputError(
                f"Storage {str(path)!r} is no SQLite file, or its begin is destroyed: no trial in it can be read. "
                "Name another, or put a copy of it back."
            )
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=LOCK_SECONDS)) as file:
            (found,) = file.execute("PRAGMA integrity_check(1)").fetchone()
    except sqlite3.OperationalError as error:
        raise InputError(
            f"Storage {str(path)!r} cannot be read now ({error}); it was left as it is. Wait until no other process "
            "keeps it locked, and look whether it may be read and written here."
        ) from error
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # of the latter kind where names are damaged
        return str(error)
    return None if found == "ok" else found.splitlines()[-1]


def rescue(path: Path) -> Rescued:
    """Put a damaged file aside, and read what is intact in it: the finished trials of which nothing is missing."""
    damaged = _free_name(path)
    optuna = require("optuna")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "rescued.db"
        storage = optuna.storages.RDBStorage(f"sqlite:///{copy}")
        _copy_rows(path, copy)
        studies = storage.get_all_studies()
        trials = [trial for study in studies for trial in _intact(storage, study)]
        attributes = {name: value for study in studies for name, value in study.user_attrs.items()}
        storage.remove_session()
        storage.engine.dispose()
    path.rename(damaged)
    return Rescued(trials, attributes, damaged)


def _intact(storage: Any, study: Any) -> list[Any]:
    """The finished trials with all their parameters and values."""
    found = storage.get_all_trials(storage.get_study_id_from_name(study.study_name))
    most = max((len(trial.params) for trial in found), default=0)  # where the number itself is lost
    trials = []
    for trial in found:
        whole = len(trial.params) == trial.user_attrs.get("parameters", most)
        has_values = trial.values is not None or trial.state.name != "COMPLETE"
        if trial.state.is_finished() and whole and has_values:
            trials.append(trial)
    return trials


def _copy_rows(damaged: Path, copy: Path) -> None:
    """Copy every row that can be read, one by one."""
    with contextlib.closing(sqlite3.connect(damaged)) as old, contextlib.closing(sqlite3.connect(copy)) as new:
        old.execute("PRAGMA writable_schema = ON")  # else SQLite reads nothing of a file that was cut off
        names = new.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (table,) in names:
            columns = [row[1] for row in new.execute(f"PRAGMA table_info({table})")]
            wanted, places = ", ".join(columns), ", ".join("?" * len(columns))
            for row in _rows(old, table, wanted):
                new.execute(f"INSERT OR REPLACE INTO {table} ({wanted}) VALUES ({places})", row)
        new.commit()


def _rows(file: sqlite3.Connection, table: str, columns: str) -> Iterator[tuple[Any, ...]]:
    """The rows of a table that can be read, in the order of their numbers."""
    number = missing = 0
    while missing < _MOST_MISSING_ROWS:
        number += 1
        row = None
        with contextlib.suppress(sqlite3.DatabaseError):
            row = file.execute(f"SELECT {columns} FROM {table} WHERE rowid = ?", (number,)).fetchone()
        missing = missing + 1 if row is None else 0
        if row is not None:
            yield row


def _free_name(path: Path) -> Path:
    names = (path.with_name(f"{path.name}.damaged{number or ''}") for number in range(10**6))
    return next(name for name in names if not name.exists())
