"""The files that `ModelCheckpoint` has written: which of them stay, and the index that tells of them."""

import dataclasses
import datetime
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keras_opt.callbacks.monitors import better
from keras_opt.core.errors import InputError
from keras_opt.core.files import write_atomic

INDEX_NAME = "index.json"


@dataclasses.dataclass(frozen=True)
class CheckpointFile:
    """A saved model or its weights.

    Args:
        file: Its path from the folder of the index, with `/` on every system.
        epoch: The epoch after or in which it was saved, from 1 as in its name.
        batch: The batch in that epoch, from 1; `None` at an epoch's end.
        value: What was monitored; `None` if that was not in the logs, or not finite.
        date: When it was saved, in ISO 8601 with the time zone.
    """

    file: str
    epoch: int
    batch: int | None
    value: float | None
    date: str


def best_files(files: Sequence[CheckpointFile], mode: str, count: int) -> list[CheckpointFile]:
    """The `count` best of `files`, the best first; of equal ones the earlier, of those without a value the later."""
    sign = -1 if mode == "max" else 1
    valued = sorted((one for one in files if one.value is not None), key=lambda one: sign * one.value)
    valueless = [one for one in reversed(files) if one.value is None]
    return [*valued, *valueless][:count]


class CheckpointFiles:
    """The files of one `filepath`, in the order they were saved.

    Only files that were added here are ever deleted. The index is written before they are, so that each file it names
    is there at any moment.

    Args:
        filepath: With or without fields, as in `str.format`. The index lies in the last folder that has none.
        monitor: What ranks the files.
        keep: How many of the best stay, beside the last one; `None` keeps all.

    Attributes:
        is_writer: Whether this process writes and deletes; else it only keeps count of what another one does.
    """

    def __init__(self, filepath: str, monitor: str, keep: int | None):
        self.folder = Path(filepath.partition("{")[0] + "x").parent  # "x": what is before the field may end in "/"
        self._name = self._relative(filepath)
        self._monitor = monitor
        self._keep = keep
        self.is_writer = True
        self.files: list[CheckpointFile] = []

    def begin(self, temporary: Path, mode: str) -> None:
        """Note that `temporary` is being written, so that what a kill leaves of it can be told from other files."""
        index = self._read_index()
        entry = index.get(self._name) or self._entry(mode)
        self._write(index | {self._name: entry | {"writing": self._relative(str(temporary))}})

    def remove_unfinished(self) -> None:
        """Remove the file that an earlier training with this `filepath` was writing when it was killed."""
        unfinished = self._read_index().get(self._name, {}).get("writing")
        if unfinished is not None and self.is_writer:
            (self.folder / unfinished).unlink(missing_ok=True)

    def add(self, path: str, epoch: int, batch: int | None, value: float | None, mode: str) -> None:
        """Note that `path` was written, write the index, and delete the files that no longer stay."""
        date = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
        value = value if value is not None and math.isfinite(value) else None
        added = CheckpointFile(self._relative(path), epoch, batch, value, date)
        files = [one for one in self.files if one.file != added.file] + [added]
        stay = files if self._keep is None else [*best_files(files, mode, self._keep), added]
        self.files = [one for one in files if one in stay]
        if not self.is_writer:
            return
        self._write_index(mode)
        for one in files:
            if one not in stay:
                (self.folder / one.file).unlink(missing_ok=True)

    def best(self, mode: str) -> Path | None:
        """The file with the best value, if one has a value."""
        best = best_files(self.files, mode, 1)
        return self.folder / best[0].file if best and best[0].value is not None else None

    @property
    def last(self) -> Path | None:
        """The file that was saved last."""
        return self.folder / self.files[-1].file if self.files else None

    def check_index(self) -> None:
        """Raise if the index cannot be read, or is somebody else's."""
        self._read_index()

    def state_dict(self) -> list[dict[str, Any]]:
        return [dataclasses.asdict(one) for one in self.files]

    def load_state_dict(self, saved: list[dict[str, Any]]) -> None:
        """Go on with those files that are still there: some may have been deleted after the state was taken."""
        files = [CheckpointFile(**one) for one in saved]
        self.files = [one for one in files if not self.is_writer or (self.folder / one.file).exists()]

    def _relative(self, path: str) -> str:
        return Path(os.path.relpath(path, self.folder)).as_posix()

    def _read_index(self) -> dict[str, Any]:
        path = self.folder / INDEX_NAME
        if not path.exists():
            return {}
        try:
            index = json.loads(path.read_text("utf-8"))
        except (ValueError, OSError) as error:
            raise _foreign(path, f"it cannot be read ({error})") from error
        if not isinstance(index, dict) or not all(isinstance(one, dict) and "files" in one for one in index.values()):
            raise _foreign(path, "it holds something else")
        return index

    def _write_index(self, mode: str) -> None:
        self._write(self._read_index() | {self._name: self._entry(mode)})

    def _entry(self, mode: str) -> dict[str, Any]:
        best, last = self.best(mode), self.last
        return {
            "monitor": self._monitor,
            "mode": mode,
            "best": None if best is None else self._relative(str(best)),
            "last": None if last is None else self._relative(str(last)),
            "files": self.state_dict(),
            "writing": None,
        }

    def _write(self, index: dict[str, Any]) -> None:
        write_atomic(self.folder / INDEX_NAME, json.dumps(index, indent=1, allow_nan=False) + "\n")


def is_improvement(value: float | None, best: float | None, mode: str) -> bool:
    """Whether a finite `value` is strictly better than `best`; the first one always is."""
    if value is None or not math.isfinite(value):
        return False
    return best is None or better(value, best, mode)


def _foreign(path: Path, why: str) -> InputError:
    return InputError(
        f"ModelCheckpoint: {str(path)!r} is no index of checkpoints: {why}. Move it away, or save in another folder."
    )
