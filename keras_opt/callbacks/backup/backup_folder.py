"""The folder that holds the backups of one training."""

import contextlib
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from keras_opt.callbacks.backup.data_position import POSITION_PREFIX
from keras_opt.core import folder_lock
from keras_opt.core.errors import InputError
from keras_opt.core.state_files import DamagedFile, read_state, write_state

_NAME = re.compile(r"backup-(\d{8})(-epoch)?\.npz")
# What a kill in the middle of a write leaves.
_UNFINISHED_FILES, _UNFINISHED_FOLDERS = ".backup-*.npz", f"{POSITION_PREFIX}*"
_DONE, _ENDED = "training_is_done", "worker_has_ended"


class BackupFolder:
    """Backups by number, the newest last; those of an epoch's begin bear it in their name.

    Args:
        path: The folder, made if it is not there.
        keep: How many of the newest files stay; the newest of an epoch's begin stays too.
        shared: The folders of all workers, if it is one worker's. Default: none.

    Raises:
        InputError: The folder cannot be made or written, or another live process has it.
    """

    def __init__(self, path: str | os.PathLike, keep: int, shared: Sequence[Path] = ()):
        self.path = Path(path).absolute()  # the process may go to another folder
        self._keep = keep
        self._shared = [folder.absolute() for folder in shared]
        self._last: int | None = None

    def take(self) -> None:
        """Take the folder for this process; raise an InputError if another has it, or no file can be written there."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):
                is_ours = folder_lock.hold(self.path)
        except OSError as error:
            raise InputError(
                "BackupAndRestore: argument `backup_dir` must be a folder that can be written. "
                f"Received: backup_dir={str(self.path)!r} ({error}). Give another one."
            ) from error
        if not is_ours:
            raise InputError(
                "BackupAndRestore: argument `backup_dir` must be the folder of one process. Received: backup_dir="
                f"{str(self.path)!r}, with which another process that still runs trains or has trained. Wait for it or "
                "end it, or give another folder."
            )

    def leave(self) -> None:
        """Let another process have the folder."""
        folder_lock.release(self.path)

    def write(self, state: dict[str, Any], is_epoch: bool) -> None:
        """Add a backup, and remove those that it makes needless. The training has not come to its end, or not yet.

        One that could not be written has its number too: workers count alike.
        """
        for mark in (_DONE, _ENDED):
            (self.path / mark).unlink(missing_ok=True)
        if self._last is None:
            self._last = max((number for number, _ in self._files()), default=0)
        self._last += 1
        write_state(self.path / f"backup-{self._last:08d}{'-epoch' if is_epoch else ''}.npz", state)
        files = self._files()
        epochs = [path for _, path in files if _is_epoch(path)]
        for path in {path for _, path in files[: -self._keep]} - set(epochs[-1:]):
            path.unlink(missing_ok=True)
        self._remove_unfinished()

    def whole(self) -> Iterator[dict[str, Any]]:
        """The backups, the newest first; damaged ones are removed with a warning."""
        return (state for _, state in self.numbered())

    def numbered(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """The same, with their numbers."""
        for number, path in reversed(self._files()):
            try:
                yield number, read_state(path)
            except DamagedFile as error:
                path.unlink()
                warnings.warn(
                    f"BackupAndRestore: {path} was damaged ({error}); the one before it is used, if there is one.",
                    UserWarning,
                    stacklevel=2,
                )

    def go_on_from(self, number: int) -> None:
        """Let the backup of that number be the newest, and the process one that has not ended."""
        for later, path in self._files():
            if later > number:
                path.unlink()
        self._last = number
        (self.path / _ENDED).unlink(missing_ok=True)

    @property
    def has_ended(self) -> bool:
        """Whether `end` was called after the last backup, and others had not ended yet."""
        return (self.path / _ENDED).exists()

    def end(self) -> None:
        """The process ends well and needs the backups no more: they go, those of workers once all of these say so.

        Where workers share no disk each keeps its own. They find that all have ended when they begin anew.
        """
        if not self._shared:
            self.clear()
            return
        (self.path / _ENDED).touch()
        if all((folder / _ENDED).exists() for folder in self._shared):
            for folder in self._shared:
                BackupFolder(folder, self._keep).clear()
            with contextlib.suppress(OSError):
                self.path.parent.rmdir()

    @property
    def is_done(self) -> bool:
        """Whether the training has come to its end."""
        return (self.path / _DONE).exists()

    def mark_done(self) -> None:
        (self.path / _DONE).touch()

    def clear(self) -> None:
        """Remove all backups, and the folder if nothing else is in it."""
        for _, path in self._files():
            path.unlink(missing_ok=True)
        self._remove_unfinished()
        for mark in (_DONE, _ENDED):
            (self.path / mark).unlink(missing_ok=True)
        self._last = None
        with contextlib.suppress(OSError):
            self.path.rmdir()
        self.leave()

    def _remove_unfinished(self) -> None:
        for path in self.path.glob(_UNFINISHED_FILES):
            path.unlink(missing_ok=True)
        for path in self.path.glob(_UNFINISHED_FOLDERS):
            shutil.rmtree(path, ignore_errors=True)

    def _files(self) -> list[tuple[int, Path]]:
        names = [_NAME.fullmatch(path.name) for path in self.path.iterdir()] if self.path.is_dir() else []
        return sorted((int(name[1]), self.path / name[0]) for name in names if name)


def _is_epoch(path: Path) -> bool:
    return _NAME.fullmatch(path.name)[2] is not None
