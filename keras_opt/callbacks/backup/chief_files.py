"""Keras's callbacks that write files, of which the chief of several workers writes the only ones."""

from typing import Any

import keras

from keras_opt.core.errors import InputError
from keras_opt.core.own_classes import is_own
from keras_opt.core.replicas import this_worker
from keras_opt.training.callers import running_fits

_WRITERS = (
    keras.callbacks.CSVLogger,
    keras.callbacks.ModelCheckpoint,
    keras.callbacks.RemoteMonitor,
    keras.callbacks.TensorBoard,
)
_HOOKS = ["set_model", *(name for name in dir(keras.callbacks.Callback) if name.startswith("on_"))]


def leave_files_to_chief(model: keras.Model) -> None:
    """Let callbacks that would write what the chief writes too do nothing in this process from now on.

    Several workers that write one file damage it. Callbacks of keras_opt see to this themselves. Call it where a `fit`
    of `model` begins, before its callbacks learn of the model.

    Raises:
        InputError: Keras's own `BackupAndRestore` is there, which restores from the file that it writes.
    """
    worker = this_worker(model.distribute_strategy)
    if worker.count == 1:
        return
    for callback in _callbacks_of_fit(model):
        if isinstance(callback, keras.callbacks.BackupAndRestore):
            raise InputError(
                "BackupAndRestore: Keras's callback of this name lets all workers write one file, and the training "
                "dies. Take keras_opt.callbacks.BackupAndRestore, with one `backup_dir` for all."
            )
        if isinstance(callback, _WRITERS) and not is_own(callback) and not worker.is_chief:
            vars(callback).update(dict.fromkeys(_HOOKS, _do_nothing))


def _callbacks_of_fit(model: keras.Model) -> list[keras.callbacks.Callback]:
    for fit in running_fits(model):
        given = fit.f_locals["callbacks"]
        return given.callbacks if isinstance(given, keras.callbacks.CallbackList) else keras.tree.flatten(given or [])
    return []


def is_left_to_chief(callback: keras.callbacks.Callback) -> bool:
    """Whether `callback` does nothing in this process."""
    return vars(callback).get("on_train_begin") is _do_nothing


def _do_nothing(*_args: Any, **_kwargs: Any) -> None:
    """In the place of a hook."""
