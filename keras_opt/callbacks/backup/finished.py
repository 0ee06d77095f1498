"""The folders whose training this process has brought to its end."""

import atexit
import sys
from collections import Counter
from pathlib import Path

from keras_opt.callbacks.backup.backup_folder import BackupFolder

# Removed when the process ends well, or trains with them anew.
_removable: dict[Path, BackupFolder] = {}
_counts: Counter[Path] = Counter()


def trainings_before(folder: BackupFolder) -> int:
    """How many trainings with `folder` this process has finished, each of which began anew."""
    return _counts[folder.path]


def note_finished(folder: BackupFolder, is_removable: bool) -> None:
    """A training with `folder` has come to its end; with what this process will remove no other may begin."""
    if is_removable:
        _counts[folder.path] += 1
        _removable[folder.path] = folder
    else:
        folder.leave()


def clear_if_finished(folder: BackupFolder) -> None:
    """Another training with `folder` begins: remove the backups of the one before, if they may go."""
    if _removable.pop(folder.path, None) is not None:
        folder.clear()


def _clear_at_exit() -> None:
    """Unless an error ends the process, maybe before it has saved its model. IPython keeps errors that end nothing."""
    if getattr(sys, "last_value", None) is None or "IPython" in sys.modules:
        for folder in _removable.values():
            folder.end()


atexit.register(_clear_at_exit)
