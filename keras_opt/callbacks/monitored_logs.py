"""The logs of an epoch as criteria look at them: what must be there, and what may be missing."""

import warnings
from collections.abc import Sequence
from typing import Any

import keras

from keras_opt.callbacks.log_sources import source_of
from keras_opt.callbacks.monitors import is_unvalidated, missing_monitor
from keras_opt.core.errors import NoEffectWarning


class MonitoredLogs:
    """Checks that what a callback monitors is in the logs.

    Args:
        names: What is monitored.
        later: The callbacks listed after it, for the error that gives the right order.
        owner: The callback's class, for messages.
    """

    def __init__(
        self, names: Sequence[str], later: Sequence[keras.callbacks.Callback] = (), owner: str = "EarlyStopping"
    ):
        self._names = names
        self._later = later
        self._owner = owner
        self._seen: set[str] = set()
        self._has_warned = False

    def look(self, epoch: int, logs: dict[str, Any]) -> dict[str, Any]:
        """The logs, with `None` for names that only earlier epochs had.

        Raises:
            ValueError: A name was never there.

        Warns:
            NoEffectWarning: The first epoch without the validation that a name asks for.
        """
        unvalidated = [name for name in self._names if is_unvalidated(name, logs)]
        if unvalidated and not self._has_warned:
            self._has_warned = True
            warnings.warn(
                f"{self._owner}: epoch {epoch + 1} had no validation, so {unvalidated[0]!r} is not in its logs. Give "
                "`fit` validation_data; with validation_freq above 1 all is well, and only epochs with validation "
                "count.",
                NoEffectWarning,
                stacklevel=3,
            )
        missing = [name for name in self._names if name not in logs and name not in unvalidated]
        for name in missing:
            if name not in self._seen:
                raise missing_monitor(self._owner, name, logs, self._order(name))
        self._seen.update(name for name in self._names if name in logs)
        return logs | dict.fromkeys(missing)

    def __deepcopy__(self, memo: dict[int, Any]) -> "MonitoredLogs":
        made = MonitoredLogs(self._names, self._later, self._owner)  # which does not own the other callbacks
        made.load_state_dict(self.state_dict())
        return made

    def state_dict(self) -> dict[str, Any]:
        return {"seen": sorted(self._seen), "has_warned": self._has_warned}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        self._seen = set(saved["seen"])
        self._has_warned = saved["has_warned"]

    def _order(self, name: str) -> str:
        source = source_of(name, self._later)
        if source is None:
            return "A callback that adds it must stand earlier in the list."
        return f"{source} adds it, but is listed later: list them as callbacks=[{source}, {self._owner}]."
