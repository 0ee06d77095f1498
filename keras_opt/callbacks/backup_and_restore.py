"""Backups from which the same script, started again after a crash, ends as if nothing had happened."""

import os
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import keras

from keras_opt.callbacks.backup.backup_folder import BackupFolder
from keras_opt.callbacks.backup.common_backup import folder_of_worker, keep_what_all_have
from keras_opt.callbacks.backup.data_position import EPOCHS, DataPosition
from keras_opt.callbacks.backup.fingerprint import differences, fingerprint, settings
from keras_opt.callbacks.backup.finished import clear_if_finished, note_finished, trainings_before
from keras_opt.callbacks.backup.first_epoch import FirstEpoch
from keras_opt.callbacks.backup.keras_states import is_known, state_of
from keras_opt.callbacks.backup.training_state import (
    has_outgrown,
    is_built_for,
    put_back,
    state_of_training,
    unbuilt_optimizers,
)
from keras_opt.callbacks.copying import copy_without_fit
from keras_opt.callbacks.siblings import callback_list
from keras_opt.core.errors import InputError, argument_error, check_at_least, check_positive
from keras_opt.core.replicas import this_worker
from keras_opt.core.state_files import check_state
from keras_opt.training.build import build_with_metrics

# Backups inside an epoch may take this share of the time.
_SHARE = 0.01
# When the first of them is due: none has been timed yet.
_FIRST_AFTER_SECONDS = 30.0

# The layout of a backup.
_FORMAT = 2


class BackupAndRestore(keras.callbacks.Callback):
    """Saves the whole training, so that the same script, started again after it was killed, ends as it would have.

    Put it into `fit(callbacks=[...])`; there is nothing else to do. A script that dies, at any moment, by `kill -9` or
    a power cut, is started again and goes on from its last backup. It ends with the same history, weights, optimizer
    state and stop epoch as one that was never broken off, bit for bit on the same machine with the same versions.

    Kept are the weights and the states of seed generators (`model.variables`), the variables of optimizers and metrics,
    the generators of Python and NumPy, the state of every callback of keras_opt and of Keras, and of those of your own
    that have `state_dict()` and `load_state_dict(state)`, and the place in the data. A `CSVLogger`'s file and the event
    files of TensorBoard are cut back to the backup. Keras's callback of this name keeps weights and the epoch. What a
    layer keeps outside of Keras's variables (a raw `tf.Variable`, a `tf.random.Generator`, the state of `tf.random`) is
    not kept.

    It goes to the front of the callbacks by itself, wherever it is listed.

    The data. Inside an epoch a training goes on with the next batch for arrays, sets of `keras_opt.data` and every
    `tf.data.Dataset` that TensorFlow can checkpoint; and for others, such as one with a `numpy_function`, if two draws
    of the first batch are alike: then batches are drawn and discarded up to the place (the two draws move the order of
    a set that reshuffles itself on). What is shuffled without a seed (its own, or `keras.utils.set_random_seed`) sees
    each example once in the epoch, and is shuffled anew later. With all other data (generators, `PyDataset`,
    `shuffle="batch"`, a `cache()` zipped with a shuffled set, a shuffled set that an epoch repeats or that is a part of
    a concatenated one), and under a strategy with several replicas, an epoch begins again, and a warning says so:
    before training, or, where TensorFlow finds out only then, at the first backup within an epoch. A validation set
    must keep one order.

    Several workers, under a strategy of `keras_opt.distribute`, are given one `backup_dir`. Each keeps its whole state
    in a folder of its own there (`worker-0`, ...), and when they are started again all go on from the newest backup
    that all of them have. They need not share a disk.

    When. At the begin of each epoch, before the first batch too, at the end of training, and within an epoch whenever
    the time that all backups so far have taken is below 1% of the time of training.

    Args:
        backup_dir: The folder of this training and of no other. While a process trains with it, and until one that
            finished has removed its backups, another process on the same machine is refused.
        save_freq: `"epoch"`, or every so many batches instead of by time. Default `"epoch"`.
        double_checkpoint: As in Keras; here the last `keep` backups stay anyway.
        delete_checkpoint: `True` removes the backups of a finished training when the process ends without an uncaught
            exception, or trains anew with this folder; one that is killed before it has saved its model loses nothing.
            `False` leaves them: a `fit` with more `epochs` goes on from there, unless a callback had stopped it, and
            one with as many or fewer only gives the result again. Default `True`.
        every_seconds: Float above 0, seconds between backups within an epoch, instead of the 1%. Default `None`.
        keep: Int of at least 1, the number of backups that stay; of several workers each keeps 2 at least. A damaged
            one falls back to the one before. Default 2.
        callbacks: The callbacks to save, if they are not all in the same list as this one. Default `None`.
        verbose: 1 prints from where a training goes on. Default 1.

    Raises:
        InputError: An argument is out of its range; as `fit` begins: the folder cannot be written, another live process
            has it, its backup is that of another model or of other data (the message says what differs; one from before
            the first batch holds no work, and is replaced), some of several workers have backups and others none, or
            an optimizer of the model's own is not built, with `run_eagerly` or several replicas.
        RuntimeError: It is not `fit` that trains; Keras's `BackupAndRestore` is in the list too.

    Warns:
        UserWarning: There is no way to save a place inside an epoch; a callback has a state that is not known; a backup
            was damaged; a backup could not be written, and training goes on; the learning rate or the loss was another
            one as the training began, or several trainings share the folder.

    Cost: one file of the size of all variables, the optimizer's included, and of the shuffle buffer of the data (and of
        what a `cache()` in memory holds above a shuffle), written and synchronised at each backup
        (`benchmarks/results/backup.json`); twice that on disk. The first one comes before the first batch, so a
        training of a few seconds pays for at least two.

    Example:
        >>> import keras, keras_opt, numpy as np, tempfile
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> backup = keras_opt.callbacks.BackupAndRestore(tempfile.mkdtemp())
        >>> history = model.fit(np.ones((8, 3)), np.ones((8, 1)), epochs=2, verbose=0, callbacks=[backup])
    """

    def __init__(
        self,
        backup_dir: str | os.PathLike,
        save_freq: Literal["epoch"] | int = "epoch",
        double_checkpoint: bool = False,
        delete_checkpoint: bool = True,
        every_seconds: float | None = None,
        keep: int = 2,
        callbacks: Sequence[keras.callbacks.Callback] | None = None,
        verbose: int = 1,
    ):
        super().__init__()
        if not isinstance(backup_dir, str | os.PathLike) or not os.fspath(backup_dir):
            raise argument_error(
                "BackupAndRestore", "backup_dir", backup_dir, "a path", "Give the folder for the backups."
            )
        if save_freq != "epoch":
            check_at_least("BackupAndRestore", "save_freq", save_freq, 1)
        if every_seconds is not None:
            check_positive("BackupAndRestore", "every_seconds", every_seconds)
            if save_freq != "epoch":
                must_be = "None with save_freq as a number of batches"
                raise argument_error(
                    "BackupAndRestore", "every_seconds", every_seconds, must_be, "Give one of the two."
                )
        check_at_least("BackupAndRestore", "keep", keep, 1)
        self.backup_dir = backup_dir
        self.save_freq = save_freq
        self.double_checkpoint = double_checkpoint
        self.delete_checkpoint = delete_checkpoint
        self.every_seconds = every_seconds
        self.keep = keep
        self.callbacks = callbacks
        self.verbose = verbose
        self._data: DataPosition | None = None
        self._restored: dict[str, Any] | None = None
        self._path = Path(backup_dir).absolute()  # the process may go to another folder
        self._folder: BackupFolder | None = None

    # --- fit ---------------------------------------------------------------------------------------------------------

    def __deepcopy__(self, memo: dict[int, Any]) -> "BackupAndRestore":
        return copy_without_fit(self, memo, "_data", "_restored")

    def set_model(self, model: keras.Model) -> None:
        super().set_model(model)
        neighbours = callback_list(self)
        others = list(self.callbacks or ()) + [
            each for each in getattr(neighbours, "callbacks", ()) if each is not self
        ]
        if any(isinstance(each, keras.callbacks.BackupAndRestore) for each in others):
            raise RuntimeError("BackupAndRestore: Keras's callback of this name is there too. Leave that one out.")
        self._others = list({id(each): each for each in others}.values())
        if neighbours is not None:
            # In front of all it sees each moment as it is between the callbacks of one step and those of the next.
            neighbours.callbacks.remove(self)
            neighbours.callbacks.insert(0, self)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        worker = this_worker(self.model.distribute_strategy)
        self._folder = folder_of_worker(self._path, max(self.keep, 2 if self.double_checkpoint else 1), worker)
        self._data = DataPosition(self.model, self._folder.path)
        self._check_optimizers()
        self._warn_of_unknown_callbacks()
        clear_if_finished(self._folder)
        self._folder.take()
        keep_what_all_have(self._folder, self.model.distribute_strategy)
        self._head = {
            "format": _FORMAT,
            "fingerprint": fingerprint(self.model, self._data.description),
            "settings": settings(self.model),
            "trainings_before": trainings_before(self._folder),
        }
        self._has_trained, self._epoch = False, 0
        self._executions = self._batches_since = 0
        self._began = self._last = time.perf_counter()
        self._spent = self._cost = 0.0
        self._restored = self._newest_backup()
        if self._restored is not None:
            self._warn_of_changes()
            at = self._restored["at"]
            first_epoch = FirstEpoch(self.params["epochs"] if at["stopped"] else at["epoch"])
            first_epoch.set_model(self.model)
            callback_list(self).callbacks.append(first_epoch)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.model._initial_epoch = None
        self._epoch, self._executions = epoch, 0
        self._forget_what_is_outgrown()
        if self._restored is not None:
            self._tell_where(epoch, self._restore())
            if self._restored["data"] is not None:
                self._executions = self._restored["data"]["executions"]
                self._data.resume(self._restored["data"])

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        is_first = self._executions == 0
        if not self._data.way:
            self._look_at_data()
        if self._restored is not None:
            # Again: what callbacks do where an epoch begins, they had done before the backup.
            self._restore()
            self._restored = None
        elif is_first or self._is_due():
            self._back_up_here(is_first)
        self._has_trained = True
        self._executions += 1
        self._batches_since += self.model.steps_per_execution

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self.model._initial_epoch = None
        if self._restored is not None:  # it had come to its end before
            self._restore()
            self._restored = None
            self._folder.mark_done()
            if self.verbose:
                print(
                    f"This training had come to its end before: all is as in {self.backup_dir}, and nothing is trained."
                    " Delete that folder to train anew."
                )
        elif self._has_trained:
            self._back_up(self._epoch + 1, None, is_epoch=True)
        note_finished(self._folder, is_removable=self.delete_checkpoint)

    # --- backup ------------------------------------------------------------------------------------------------------

    def _is_due(self) -> bool:
        now = time.perf_counter()
        if self._data.way == EPOCHS or self._executions == 0:
            return False
        if self.save_freq != "epoch":
            return self._batches_since >= self.save_freq
        if self.every_seconds is not None:
            return now - self._last >= self.every_seconds
        if self._cost == 0:
            return now - self._began >= _FIRST_AFTER_SECONDS
        return self._spent + self._cost <= _SHARE * (now - self._began)

    def _back_up_here(self, is_epoch: bool) -> None:
        began = time.perf_counter()
        try:
            data = self._data.state(self._executions)
        except OSError as error:
            self._warn_of_disk(error)
            return
        if data is None:
            if self._data.way == EPOCHS:
                self._warn_of_epochs()
            return
        self._back_up(self._epoch, data, is_epoch)
        self._batches_since, self._last = 0, time.perf_counter()
        self._spent += self._last - began
        if not is_epoch:  # these also save what the data have shuffled
            self._cost = self._last - began

    def _back_up(self, epoch: int, data: dict[str, Any] | None, is_epoch: bool) -> None:
        """Write a backup from which `epoch` goes on at the place `data`; `None` of the end of training."""
        is_stopped = data is None and self.model.stop_training
        at = {"epoch": epoch, "stopped": is_stopped, "has_trained": self._has_trained}
        training = state_of_training(self.model, self._others)
        try:
            self._folder.write({**self._head, "at": at, "data": data, "training": training}, is_epoch)
            if data is None:
                self._folder.mark_done()
        except OSError as error:
            self._warn_of_disk(error)

    def _look_at_data(self) -> None:
        check_state([state_of(each) for each in self._others])  # now, not after an epoch
        try:
            self._data.look()
        except OSError as error:
            self._data.way = EPOCHS
            self._warn_of_disk(error)
        if self._data.way == EPOCHS:
            self._warn_of_epochs()

    # --- restore -----------------------------------------------------------------------------------------------------

    def _newest_backup(self) -> dict[str, Any] | None:
        for state in self._folder.whole():
            if state.get("format") != _FORMAT:
                raise self._refusal("was written by another version of keras_opt")
            differing = differences(state["fingerprint"], self._head["fingerprint"])
            if state["data"] is not None and self._data.differs(state["data"]):
                differing.append("the first batch of an epoch is another one")
            if not differing:
                return state
            if not state["at"]["has_trained"] or (self._folder.is_done and self.delete_checkpoint):
                self._folder.clear()  # nothing is lost
                self._folder.take()
                return None
            raise self._refusal(f"is another one's: {'; '.join(differing)}")
        return None

    def _refusal(self, reason: str) -> InputError:
        return InputError(
            "BackupAndRestore: argument `backup_dir` must be the folder of this training. Received: backup_dir="
            f"{str(self.backup_dir)!r}, whose backup {reason}. Give another folder, or delete this one to train anew."
        )

    def _forget_what_is_outgrown(self) -> None:
        """A backup of the begin has no values for what the first step makes, which this process may have made."""
        if self._restored is None or self._restored["at"]["has_trained"]:
            return
        if has_outgrown(self.model, self._restored["training"]):
            _warn("the backup is from before this model's first step, which it has made: training begins anew with it.")
            self._restored = None
            self._folder.clear()
            self._folder.take()

    def _restore(self) -> list[str]:
        """Put everything back; the classes of the callbacks that the backup knows nothing of."""
        saved = self._restored["training"]
        if not is_built_for(self.model, saved):
            build_with_metrics(self.model, self._data.element_spec)
        unmet = put_back(self.model, self._others, saved)
        if self._restored["data"] is None:  # from after an epoch; the next one counts anew
            self.model.reset_metrics()
        return unmet

    def _tell_where(self, epoch: int, unmet: list[str]) -> None:
        data = self._restored["data"]
        batches = data["executions"] * self.model.steps_per_execution if data is not None else 0
        if self.verbose:
            print(f"Resumed in epoch {epoch + 1} after {batches} of its batches, from {self.backup_dir}.")
        if unmet:
            _warn(
                f"{', '.join(unmet)} began anew, for the backup knows nothing of them.",
            )

    # --- checks ------------------------------------------------------------------------------------------------------

    def _check_optimizers(self) -> None:
        unbuilt = unbuilt_optimizers(self.model)
        if unbuilt and (self.model.run_eagerly or self.model.distribute_strategy.num_replicas_in_sync > 1):
            raise InputError(
                f"BackupAndRestore: the optimizers {', '.join(unbuilt)} of the model are not built, and only a trace "
                "of the step on one device can build them for their state to be put back. Call "
                f"`model.{unbuilt[0]}.build(variables)` before `fit`."
            )

    def _warn_of_changes(self) -> None:
        changes = differences(self._restored["settings"], self._head["settings"])
        if self._restored["trainings_before"] != self._head["trainings_before"]:
            changes.append("it is that of another of the trainings that share this folder: give each its own")
        if changes:
            _warn(
                f"the backup in {str(self.backup_dir)!r} is used all the same: {'; '.join(changes)}.",
            )

    def _warn_of_disk(self, error: OSError) -> None:
        _warn(
            f"no backup could be written ({error.strerror or error}). Training goes on; the last "
            f"whole backup stays in {str(self.backup_dir)!r}.",
        )

    def _warn_of_epochs(self) -> None:
        _warn(
            "these data have no place that could be found again, so a training that is resumed "
            "begins with the epoch it was in, in an order that may be another. Train with keras_opt.data, arrays, or a "
            "tf.data.Dataset that TensorFlow can checkpoint, on one device, to go on inside an epoch.",
        )

    def _warn_of_unknown_callbacks(self) -> None:
        bare = set(vars(keras.callbacks.Callback()))
        unknown = [type(each).__name__ for each in self._others if not is_known(each) and set(vars(each)) - bare]
        if unknown:
            _warn(
                f"what {', '.join(unknown)} remember is not saved. Give them the methods "
                "state_dict() and load_state_dict(state), or see that they begin well in the middle of a training.",
            )


def _warn(message: str) -> None:
    warnings.warn(f"BackupAndRestore: {message}", UserWarning, stacklevel=3)
