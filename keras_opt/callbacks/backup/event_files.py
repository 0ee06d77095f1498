"""TensorBoard's event files, cut back to what they were when a backup was made."""

import os
import re
import warnings
from collections.abc import Mapping

import tensorflow as tf

_CHUNK_BYTES = 1 << 24
_KERAS_SUFFIX = ".v2"


def event_file_lengths(directory: str | os.PathLike, suffix: str = _KERAS_SUFFIX) -> dict[str, int]:
    """The length of each event file in `directory`, in bytes. Flush the writer first, so that its last record is whole.

    Args:
        directory: Where `tf.summary.create_file_writer` writes, on any file system that TensorFlow knows.
        suffix: The writer's `filename_suffix`; files that end otherwise are another's. Default: TensorFlow's own.
    """
    if not tf.io.gfile.isdir(directory):
        return {}
    names = [name for name in tf.io.gfile.listdir(directory) if _parts(name, suffix)]
    return {name: tf.io.gfile.stat(_join(directory, name)).length for name in sorted(names)}


def cut_event_files(
    directory: str | os.PathLike, lengths: Mapping[str, int], is_open: bool, suffix: str = _KERAS_SUFFIX
) -> None:
    """Take out of `directory` the events that were written since `lengths` were measured.

    A resumed training writes those events again, into a file of its own. Files that have grown are cut to their length;
    a writer of a training that an exception ended may still have one open, so a cut file takes the old one's place,
    and what that writer has left to write goes nowhere. Files that were not there are renamed, `tfevents` to
    `superseded`: TensorBoard reads them no more, and nothing is deleted. A second call finds nothing left to do.

    Args:
        directory: As in `event_file_lengths`, like `suffix`.
        lengths: What that returned.
        is_open: Whether the resumed training has a writer on this directory; its file, the newest, is left alone.

    Warns:
        UserWarning: A file is shorter than it was, or gone: there will be a gap.
    """
    found = event_file_lengths(directory, suffix)
    being_written = max(found, key=lambda name: _age(name, suffix), default=None) if is_open else None
    for name, length in found.items():
        if name == being_written:
            continue
        if name not in lengths:
            superseded = name.replace("tfevents", "superseded")
            tf.io.gfile.rename(_join(directory, name), _join(directory, superseded), overwrite=True)
        elif length > lengths[name]:
            _cut(directory, name, lengths[name])
    short = [name for name, length in lengths.items() if found.get(name, 0) < length]
    if short:
        warnings.warn(
            f"{os.fspath(directory)}: {', '.join(short)} became shorter since the backup was made, or went away. "
            "TensorBoard will show a gap there.",
            UserWarning,
            stacklevel=2,
        )


def _cut(directory: str | os.PathLike, name: str, length: int) -> None:
    unfinished = _join(directory, name.replace("tfevents", "unfinished"))
    with tf.io.gfile.GFile(_join(directory, name), "rb") as source, tf.io.gfile.GFile(unfinished, "wb") as target:
        while length > 0:
            chunk = source.read(min(length, _CHUNK_BYTES))
            target.write(chunk)
            length -= len(chunk)
    tf.io.gfile.rename(unfinished, _join(directory, name), overwrite=True)


def _age(name: str, suffix: str) -> tuple[bool, int, int]:
    """A key by which the newest file of this process comes last: processes may run on hosts whose clocks differ."""
    second, process, number = map(int, _parts(name, suffix).groups())
    return process == os.getpid(), second, number


def _parts(name: str, suffix: str) -> re.Match | None:
    """TensorFlow names a file by the second, the host, the process and how many files that process made before."""
    return re.fullmatch(rf"events\.out\.tfevents\.(\d+)\..+\.(\d+)\.(\d+){re.escape(suffix)}", name)


def _join(directory: str | os.PathLike, name: str) -> str:
    return tf.io.gfile.join(os.fspath(directory), name)
