"""The folder of a search: one file a trial and one for the search, each whole or not there.

The layout is keras-tuner's (`trial_0000/trial.json`, `oracle.json`). Whatever the search knows about its trials is in
their own files, so that one which cannot be read costs that trial and no other.
"""

import json
import warnings
from pathlib import Path
from typing import Any

from keras_opt.core.files import write_atomic
from keras_opt.core.optional import require

Trial = require("keras_tuner.engine.trial").Trial


def write_json(path: Path, state: dict[str, Any]) -> None:
    """Write `state` to `path` whole or not at all; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps(state))


def write_trial(folder: Path, trial: Any) -> None:
    """Write one trial."""
    write_json(folder / f"trial_{trial.trial_id}" / "trial.json", trial.get_state())


def read_trials(folder: Path) -> dict[str, Any]:
    """The trials of a folder by id, in the order in which they began; warns of those that cannot be read."""
    trials = {}
    for path in sorted(folder.glob("trial_*/trial.json"), key=lambda path: (len(path.parent.name), path.parent.name)):
        state = read_json(path)
        try:
            if state is not None:
                trial = Trial.from_state(state)
                trials[trial.trial_id] = trial
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            _warn_damaged(path, repr(error))
    return trials


def read_json(path: Path) -> dict[str, Any] | None:
    """What `write_json` wrote; `None`, with a warning, where that cannot be read."""
    try:
        state = json.loads(path.read_text("utf-8"))
        if not isinstance(state, dict):
            raise ValueError(f"it holds a {type(state).__name__}")
        return state
    except (OSError, ValueError) as error:
        _warn_damaged(path, str(error))
        return None


def _warn_damaged(path, reason):
    warnings.warn(
        f"{str(path)!r} cannot be read ({reason}): the search goes on with the other files of its folder, and what "
        "this one held is lost.",
        stacklevel=2,
    )
