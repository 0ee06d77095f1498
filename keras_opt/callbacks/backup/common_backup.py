"""The newest backup that all workers have."""

import os
from pathlib import Path

import tensorflow as tf

from keras_opt.callbacks.backup.backup_folder import BackupFolder
from keras_opt.core.errors import InputError
from keras_opt.core.replicas import Worker, gather_from_workers, this_worker

# So many of the newest are compared.
_COUNT = 8


def folder_of_worker(backup_dir: str | os.PathLike, keep: int, worker: Worker) -> BackupFolder:
    """The folder for the backups of one of the workers that are given the same `backup_dir`.

    Workers are never more than one backup apart: between two of them is a step, which all make together. So each
    keeps two at least.
    """
    if worker.count == 1:
        return BackupFolder(backup_dir, keep)
    folders = [Path(backup_dir, f"worker-{index}") for index in range(worker.count)]
    return BackupFolder(folders[worker.index], max(keep, 2), shared=folders)


def keep_what_all_have(folder: BackupFolder, strategy: tf.distribute.Strategy) -> None:
    """Let the newest backup in `folder` be the newest that all workers have; none, if none holds work that all have.

    All workers call it where their training begins. A backup is counted if it is whole. Backups of a training whose
    workers have all ended well go too.

    Raises:
        InputError: Some workers have backups that hold work, and there is none that all have.
    """
    if this_worker(strategy).count == 1:
        return
    own = {number: state["at"]["has_trained"] for number, state in folder.numbered()}
    kept = sorted(own, reverse=True)[:_COUNT]
    row = [folder.has_ended, any(own.values()), *kept, *[0] * (_COUNT - len(kept))]
    rows = gather_from_workers(list(map(int, row)), strategy)
    common = set.intersection(*({number for number in numbers if number} for _, _, *numbers in rows))
    if common and not all(has_ended for has_ended, *_ in rows):
        folder.go_on_from(max(common))
        return
    have_work = [index for index, (has_ended, has_trained, *_) in enumerate(rows) if has_trained and not has_ended]
    if have_work:
        raise InputError(
            "BackupAndRestore: argument `backup_dir` must have a backup that all workers have, or none. Received: "
            f"backup_dir={str(folder.path.parent)!r}, where workers {have_work} of {len(rows)} have backups that "
            "others have not. Bring back those of the others, or delete that folder to train anew."
        )
    folder.clear()
    folder.take()
