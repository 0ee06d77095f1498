"""Saves the model or its weights while it trains, whole or not at all."""

import os
import string
from pathlib import Path
from typing import Any

import keras

from keras_opt.callbacks.checkpoint_files import CheckpointFiles, is_improvement
from keras_opt.callbacks.copying import copy_without_fit
from keras_opt.callbacks.monitored_logs import MonitoredLogs
from keras_opt.callbacks.monitors import (
    check_mode_is_known,
    is_unvalidated,
    missing_monitor,
    mode_in_model,
    resolve_mode,
)
from keras_opt.callbacks.siblings import siblings
from keras_opt.callbacks.validation_batches import has_validation
from keras_opt.core.errors import (
    InputError,
    argument_error,
    check_at_least,
    check_choice,
    check_name,
    check_path,
    did_you_mean,
    is_number,
)
from keras_opt.core.files import atomic_path
from keras_opt.core.replicas import this_worker
from keras_opt.training.callers import is_called_by_evaluation
from keras_opt.training.step_hooks import StepHooks


class ModelCheckpoint(keras.callbacks.ModelCheckpoint):
    """Saves the model or its weights at the end of epochs, or every so many batches.

    Keras's callback of that name, with these differences. A file is written under another name, flushed to the disk and
    renamed: a kill or a full disk leaves the old one whole. NaN and inf are never best. A monitor, or a name in
    `filepath`, that is not in the logs is an error at the end of the first epoch. Every `save_freq` batches means that,
    also with `steps_per_execution`: at the end of the first execution that reaches them. The state can be saved and
    resumed. And of the files that a `filepath` with fields makes, only the best and the last stay: `keep=None` keeps
    all, as Keras does.

    Beside the files lies `index.json`, which is whole at any moment and names only files that are there. Under each
    `filepath` of that folder it has

        {"monitor": "val_loss", "mode": "min", "best": "03-0.21.keras", "last": "05-0.24.keras",
         "files": [{"file": "03-0.21.keras", "epoch": 3, "batch": null, "value": 0.21, "date": "..."}, ...],
         "writing": null}

    with `value` null where the monitored value was not in the logs or not finite. `writing` names a hidden file that is
    not yet whole: what a kill leaves of it goes when the next training with this `filepath` begins. Only files that
    this callback has saved are deleted; those of an earlier training stay, and leave the index. With a `filepath`
    without fields there is one file, written over at each save.

    To go on with a training that was broken off, use `BackupAndRestore`: a checkpoint knows nothing of the callbacks.
    List it after `WeightAveraging`, so that it saves the averages. Of several workers the chief alone writes files.

    Args:
        filepath: A path that ends in `.keras`, with `save_weights_only` in `.weights.h5`. It may have fields as in
            `str.format`: `{epoch:02d}` (from 1), with an integer `save_freq` `{batch}`, and any name in the logs, as
            in `{val_loss:.2f}`. Folders are made.
        monitor: A name in the logs. Default `"val_loss"`.
        verbose: 1 prints what is saved. Default 0.
        save_best_only: Whether to save only what is better than all before. Default `False`.
        save_weights_only: Whether to save the weights, and the state of the optimizer, without the model. Default
            `False`.
        mode: `"auto"`, `"min"` or `"max"`; `"auto"` asks the name, then the compiled metric of that name.
        save_freq: `"epoch"`, or an int of at least 1, the batches between two saves. What is monitored is then the mean
            over the epoch so far.
        initial_value_threshold: A value that must be beaten by the first best one. Default `None`.
        keep: Int of at least 1, how many of the best files stay, beside the last one; `None` keeps all. Files without a
            value come after all others, the later first. Default 3.

    Attributes:
        best: The best value so far. As in Keras, a second `fit` with the same callback goes on from it.
        best_path, last_path: The file with the best value and the one that was saved last, or `None`.

    Raises:
        ValueError: An argument is out of its range; the folder cannot be written; while training, a name is not in the
            logs, or it is not known which direction is better.

    Warns:
        NoEffectWarning: An epoch ended without the validation that `monitor` asks for. With `save_best_only`, or if a
            name of it is in `filepath`, nothing is saved then.

    Cost: one file at each save, and its flush to the disk; training waits for both.

    Example:
        >>> import keras_opt, tempfile
        >>> folder = tempfile.mkdtemp()
        >>> save = keras_opt.callbacks.ModelCheckpoint(folder + "/{epoch:02d}-{val_loss:.2f}.keras", keep=3)
    """

    def __init__(
        self,
        filepath: str | os.PathLike,
        monitor: str = "val_loss",
        verbose: int = 0,
        save_best_only: bool = False,
        save_weights_only: bool = False,
        mode: str = "auto",
        save_freq: str | int = "epoch",
        initial_value_threshold: float | None = None,
        keep: int | None = 3,
    ):
        check_path("ModelCheckpoint", "filepath", filepath)
        check_name("ModelCheckpoint", "monitor", monitor)
        check_choice("ModelCheckpoint", "mode", mode, ("auto", "min", "max"))
        if save_freq != "epoch":
            check_at_least("ModelCheckpoint", "save_freq", save_freq, 1)
        if keep is not None:
            check_at_least("ModelCheckpoint", "keep", keep, 1)
        if initial_value_threshold is not None and not is_number(initial_value_threshold):
            cure = "Give a number, or leave it out."
            must_be = "a finite number"
            raise argument_error("ModelCheckpoint", "initial_value_threshold", initial_value_threshold, must_be, cure)
        self._fields = _fields(os.fspath(filepath))
        _check_ending(os.fspath(filepath), save_weights_only)
        if "batch" in self._fields and save_freq == "epoch":
            cure = "Leave {batch} out, or give an integer save_freq."
            raise argument_error("ModelCheckpoint", "filepath", filepath, 'without {batch} at save_freq="epoch"', cure)
        if save_freq != "epoch" and save_best_only and monitor.startswith("val_"):
            cure = 'There is no validation within an epoch: monitor "loss", or save at save_freq="epoch".'
            raise argument_error("ModelCheckpoint", "monitor", monitor, "of training at an integer save_freq", cure)
        super().__init__(
            filepath, monitor, verbose, save_best_only, save_weights_only, mode, save_freq, initial_value_threshold
        )
        self.keep = keep
        self._ranks = save_best_only or (bool(self._fields) and keep is not None)
        self._mode = resolve_mode(monitor, mode)
        self._files = CheckpointFiles(self.filepath, monitor, keep)
        self._monitored = MonitoredLogs([monitor])
        self._epoch = 0
        self._batches = self._batches_before_epoch = 0
        self._has_validation = True

    @property
    def best_path(self) -> Path | None:
        """The file with the best value of the monitor; `None` if there is none, or none with a value."""
        return self._files.best(self._mode)

    @property
    def last_path(self) -> Path | None:
        """The file that was saved last."""
        return self._files.last

    def __deepcopy__(self, memo: dict[int, Any]) -> "ModelCheckpoint":
        return copy_without_fit(self, memo)

    # --- fit ---------------------------------------------------------------------------------------------------------

    def set_model(self, model: keras.Model) -> None:
        if not is_called_by_evaluation(model):
            self._files.is_writer = this_worker(model.distribute_strategy).is_chief
            _check_folder(self.filepath, self._files.folder)
            self._files.check_index()
            neighbours = siblings(self) or [self]
            names = [self.monitor] if self._ranks else []
            self._monitored = MonitoredLogs(names, neighbours[neighbours.index(self) + 1 :], "ModelCheckpoint")
        super().set_model(model)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._files.remove_unfinished()
        self._has_validation = has_validation(self.model)
        self._batches_before_epoch = self._batches

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epoch = epoch
        self._batches_before_epoch = self._batches

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        # The last execution of `steps_per_execution` steps ends in a batch that the epoch may not have.
        in_epoch = min(batch + 1, (self.params or {}).get("steps") or batch + 1)
        before, self._batches = self._batches, self._batches_before_epoch + in_epoch
        if self.save_freq != "epoch" and self._batches // self.save_freq > before // self.save_freq:
            self._save(self._epoch, in_epoch, logs or {})

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self.save_freq == "epoch":
            if isinstance(getattr(self.model, "optimizer", None), keras.optimizers.Optimizer):
                StepHooks.of(self.model).flush()
            logs = logs or {}
            if self.save_best_only and is_unvalidated(self.monitor, logs) and not self._has_validation:
                cure = "Give `fit` validation_data, or monitor what is there."
                raise missing_monitor("ModelCheckpoint", self.monitor, logs, cure)
            self._save(epoch, None, self._monitored.look(epoch, logs))

    def _save(self, epoch: int, batch: int | None, logs: dict[str, Any]) -> None:
        value = logs.get(self.monitor)
        value = None if value is None else float(value)
        self._resolve_mode(value)
        place = f"Epoch {epoch + 1}" if batch is None else f"Epoch {epoch + 1}, batch {batch}"
        is_better = is_improvement(value, self.best, self._mode)
        path = self._path(epoch, batch, logs)
        if path is None or (self.save_best_only and not is_better):
            self._say(f"{place}: {self.monitor} is {value}, the best is {self.best}; nothing is saved.")
            return
        if self._files.is_writer:
            self._write(path)
        if is_better:
            self.best = value
        self._files.add(path, epoch + 1, batch, value, self._mode)
        best = f", the best so far: {self.monitor} {value:.5g}" if is_better else ""
        self._say(f"{place}: saved {path!r}{best}.")

    def _write(self, path: str) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            self._files.begin(temporary, self._mode)
            if self.save_weights_only:
                self.model.save_weights(temporary, overwrite=True)
            else:
                self.model.save(temporary, overwrite=True)

    def _resolve_mode(self, value: float | None) -> None:
        if self._mode == "auto" and value is not None:
            self._mode = mode_in_model(self.monitor, self.model)
            if self._ranks:
                check_mode_is_known("ModelCheckpoint", self.monitor, self._mode)

    def _path(self, epoch: int, batch: int | None, logs: dict[str, Any]) -> str | None:
        """The file to write; `None` in an epoch without the validation whose value would be in its name."""
        known = logs | {"epoch": epoch + 1} | ({} if batch is None else {"batch": batch})
        missing = [name for name in self._fields if known.get(name) is None]
        if missing and all(is_unvalidated(name, logs) for name in missing) and batch is None and self._has_validation:
            return None
        if missing:
            names = ", ".join(map(repr, known))
            raise InputError(
                f"ModelCheckpoint: argument `filepath` must have fields that are in the logs. Received: "
                f"filepath={self.filepath!r}; there are {names}, and no {missing[0]!r}. "
                f"{did_you_mean(missing[0], known)}"
            )
        return self.filepath.format(**known)

    def _say(self, message: str) -> None:
        if self.verbose:
            print(message)

    # --- resume ------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The best value, the files that are kept, and how many batches there were."""
        return {
            "best": self.best,
            "mode": self._mode,
            "files": self._files.state_dict(),
            "monitored": self._monitored.state_dict(),
            "batches": self._batches,
            "batches_before_epoch": self._batches_before_epoch,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was called. Training must have begun."""
        self.best = state["best"]
        self._mode = state["mode"]
        self._files.load_state_dict(state["files"])
        self._monitored.load_state_dict(state["monitored"])
        self._batches = state["batches"]
        self._batches_before_epoch = state["batches_before_epoch"]


def _fields(filepath: str) -> list[str]:
    """The names of the fields in a path, as in `str.format`."""
    try:
        fields = [field for _, field, _, _ in string.Formatter().parse(filepath) if field is not None]
    except ValueError as error:
        cure = f"It is a template, as in str.format: {error}."
        raise argument_error("ModelCheckpoint", "filepath", filepath, "a path with whole fields", cure) from error
    for field in fields:
        if not field.isidentifier():
            cure = 'Give for example "{epoch:02d}-{val_loss:.2f}.keras".'
            raise argument_error("ModelCheckpoint", "filepath", filepath, "a path whose fields have names", cure)
    return list(dict.fromkeys(fields))


def _check_ending(filepath: str, save_weights_only: bool) -> None:
    endings = (".weights.h5",) if save_weights_only else (".keras", ".h5")
    if not filepath.endswith(endings):
        cure = f"save_weights_only={save_weights_only} asks for that format."
        raise argument_error("ModelCheckpoint", "filepath", filepath, f"a path ending in {endings[0]}", cure)
    if "://" in filepath:
        cure = "Only there can a file be replaced in one go; copy it elsewhere after training, or mount the bucket."
        raise argument_error("ModelCheckpoint", "filepath", filepath, "a path in the file system", cure)


def _check_folder(filepath: str, folder: Path) -> None:
    """Raise unless `folder` is there, or can be made, and files can be made in it."""
    present = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
    if not present.is_dir() or not os.access(present, os.W_OK | os.X_OK):
        cure = f"{str(present)!r} is no folder that can be written; choose another."
        raise argument_error("ModelCheckpoint", "filepath", filepath, "in a folder that can be written", cure)
    if Path(filepath).is_dir():
        raise argument_error("ModelCheckpoint", "filepath", filepath, "a file", "It is a folder; add a name.")
