"""The state of any callback: its own `state_dict`, or what Keras's callbacks would forget when a training is resumed.

A state holds dicts with names as keys, lists, numbers, texts, `None` and NumPy arrays.
"""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_opt.callbacks.backup.chief_files import is_left_to_chief
from keras_opt.callbacks.backup.event_files import cut_event_files, event_file_lengths
from keras_opt.core.errors import argument_error
from keras_opt.core.files import write_atomic
from keras_opt.core.own_classes import is_own

State = dict[str, Any]


def state_of(callback: keras.callbacks.Callback) -> State | None:
    """What `callback` carries from step to step and epoch to epoch, as a copy; `None` if nothing that is known.

    Its own `state_dict()` if it has that and `load_state_dict`. Else, if it is one of Keras's callbacks or derives from
    one, that callback's state. Call it between two steps of a training.
    """
    if is_left_to_chief(callback):
        return None
    if _speaks_for_itself(callback):
        return callback.state_dict()
    adapter = _adapter_of(callback)
    return None if adapter is None else adapter.state_of(callback)


def load_state_of(callback: keras.callbacks.Callback, state: State | None) -> None:
    """Let `callback` go on where `state_of` was called. Loading a state twice is the same as once.

    The training must have begun, since `on_train_begin` starts anew: it empties the file of a `CSVLogger`, for example.
    Log files are put back to what they were: the state of a `CSVLogger` holds its text, that of a `TensorBoard` the
    lengths of its event files.

    Raises:
        ValueError: The state is another callback's.

    Warns:
        UserWarning: A log file of TensorBoard is shorter than it was.
    """
    if state is None:
        return
    if _speaks_for_itself(callback):
        callback.load_state_dict(state)
        return
    adapter = _adapter_of(callback)
    if adapter is None:
        cure = "Give the callbacks that the state was made with, in the same order."
        raise argument_error("load_state_of", "callback", callback, "of the class that the state came from", cure)
    adapter.load(callback, state)


def is_known(callback: keras.callbacks.Callback) -> bool:
    """Whether a resumed training lacks nothing of `callback`: its state is taken and put back, or it has none.

    A class that derives from one of Keras's callbacks may carry more than that one; it is known once it has
    `state_dict` and `load_state_dict`.
    """
    kind = type(callback)
    return _speaks_for_itself(callback) or is_own(callback) or kind in _ADAPTERS or kind in _STATELESS


def _speaks_for_itself(callback: keras.callbacks.Callback) -> bool:
    return all(callable(getattr(callback, method, None)) for method in ("state_dict", "load_state_dict"))


# --- attributes ------------------------------------------------------------------------------------------------------


class _Adapter(NamedTuple):
    """How the state of a callback is taken, and how it is put back."""

    state_of: Callable[[keras.callbacks.Callback], State]
    load: Callable[[keras.callbacks.Callback, State], None]


def _attributes(*names: str) -> _Adapter:
    """For a callback whose state are these attributes."""

    def take(callback: keras.callbacks.Callback) -> State:
        return {name: _plain(getattr(callback, name)) for name in names}

    def load(callback: keras.callbacks.Callback, state: State) -> None:
        for name in names:
            setattr(callback, name, _plain(state[name]))

    return _Adapter(take, load)


def _monitoring(*names: str) -> _Adapter:
    """For a callback that looks for the best value, and learns at the end of its first epoch in which direction."""
    attributes = _attributes("best", *names)

    def take(callback: keras.callbacks.Callback) -> State:
        direction = {keras.ops.less: "min", keras.ops.greater: "max"}.get(callback.monitor_op)
        return {**attributes.state_of(callback), "direction": direction}

    def load(callback: keras.callbacks.Callback, state: State) -> None:
        attributes.load(callback, state)
        if state["direction"] is not None:
            less = state["direction"] == "min"
            callback.monitor_op = keras.ops.less if less else keras.ops.greater
            callback.min_delta = -abs(callback.min_delta) if less else abs(callback.min_delta)

    return _Adapter(take, load)


def _plain(value: Any) -> Any:
    """A copy of `value` in the words of a state."""
    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if keras.ops.is_tensor(value):
        value = keras.ops.convert_to_numpy(value)
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0):
        return value.item()
    return value


# --- log files -------------------------------------------------------------------------------------------------------


def _csv_state(callback: keras.callbacks.CSVLogger) -> State:
    callback.csv_file.flush()
    return {
        "content": np.frombuffer(Path(callback.filename).read_bytes(), np.uint8),
        "keys": _plain(callback.keys),
        "append_header": callback.append_header,
    }


def _load_csv(callback: keras.callbacks.CSVLogger, state: State) -> None:
    """The file has its rows again, and the logger writes at its end: without a header, if there is one already."""
    callback.csv_file.close()
    write_atomic(callback.filename, state["content"].tobytes())
    callback.csv_file = Path(callback.filename).open("a")  # noqa: SIM115 - the logger closes it
    callback.append_header = state["append_header"]
    callback.keys = _plain(state["keys"])
    callback.writer = None
    if callback.keys is not None:
        callback.writer = csv.DictWriter(callback.csv_file, ["epoch", *callback.keys], delimiter=callback.sep)


_counters = _attributes("_global_train_batch", "_global_test_batch")
_EVENT_FOLDERS = {"train": "train", "val": "validation"}  # by the name of their writer


def _tensorboard_state(callback: keras.callbacks.TensorBoard) -> State:
    for writer in callback._writers.values():
        writer.flush()
    folders = {name: event_file_lengths(_folder(callback, name)) for name in _EVENT_FOLDERS}
    return {**_counters.state_of(callback), "event_file_lengths": folders}


def _load_tensorboard(callback: keras.callbacks.TensorBoard, state: State) -> None:
    for name, lengths in state["event_file_lengths"].items():
        cut_event_files(_folder(callback, name), lengths, is_open=name in callback._writers)
    _counters.load(callback, state)
    if callback.update_freq != "epoch" and callback._global_train_batch > 0:
        # Every `update_freq`-th batch is written. The writer learns the number of the batch here, and nowhere else.
        callback._global_train_batch -= 1
        keras.callbacks.TensorBoard.on_train_batch_begin(callback, 0)


def _folder(callback: keras.callbacks.TensorBoard, writer: str) -> str:
    return f"{callback.log_dir}/{_EVENT_FOLDERS[writer]}"


# --- Keras's callbacks -----------------------------------------------------------------------------------------------

# The private names among these have a canary in tests/contract/test_keras_canary.py, which names the Keras version.
_ADAPTERS: dict[type, _Adapter] = {
    keras.callbacks.History: _attributes("history", "epoch"),
    keras.callbacks.EarlyStopping: _monitoring("best_epoch", "best_weights", "stopped_epoch", "wait"),
    keras.callbacks.ReduceLROnPlateau: _monitoring("cooldown_counter", "wait"),
    keras.callbacks.ModelCheckpoint: _monitoring("_batches_seen_since_last_saving", "_last_batch_seen"),
    keras.callbacks.SwapEMAWeights: _attributes("_ema_weights_in_model"),
    keras.callbacks.CSVLogger: _Adapter(_csv_state, _load_csv),
    keras.callbacks.TensorBoard: _Adapter(_tensorboard_state, _load_tensorboard),
}
# What these do follows from the epoch, the logs and the optimizer alone.
_STATELESS = {
    keras.callbacks.Callback,
    keras.callbacks.LambdaCallback,
    keras.callbacks.LearningRateScheduler,
    keras.callbacks.ProgbarLogger,
    keras.callbacks.RemoteMonitor,
    keras.callbacks.TerminateOnNaN,
}


def _adapter_of(callback: keras.callbacks.Callback) -> _Adapter | None:
    return next((_ADAPTERS[kind] for kind in type(callback).__mro__ if kind in _ADAPTERS), None)
