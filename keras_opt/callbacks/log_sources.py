"""Which callbacks add which values to the logs, and who, listed before them, does not see these."""

import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import keras

from keras_opt.callbacks.siblings import siblings
from keras_opt.training.callers import is_called_by_evaluation

C = TypeVar("C", bound=type)

_ADDED_BY_KERAS = {
    keras.callbacks.LearningRateScheduler: ("learning_rate",),
    keras.callbacks.ReduceLROnPlateau: ("learning_rate",),
}
_LOGGERS = (
    keras.callbacks.CSVLogger,
    keras.callbacks.History,
    keras.callbacks.RemoteMonitor,
    keras.callbacks.TensorBoard,
)
_PACKAGES_OF_LOGGERS = ("aim", "clearml", "comet_ml", "dvclive", "mlflow", "neptune", "wandb")


def adds_to_logs(*names: str) -> Callable[[C], C]:
    """Note that the callbacks of a class add `names` to the logs of an epoch; it calls `warn_of_early_readers` too.

    A callback of your own that has an attribute `added_to_logs` is known as well.
    """

    def note(kind: C) -> C:
        kind.added_to_logs = names
        return kind

    return note


def added_by(callback: keras.callbacks.Callback) -> Sequence[str]:
    """The names that `callback` adds to the logs of an epoch, as far as is known."""
    of_keras = [name for kind, names in _ADDED_BY_KERAS.items() if isinstance(callback, kind) for name in names]
    return tuple(getattr(callback, "added_to_logs", of_keras))


def source_of(name: str, callbacks: Iterable[keras.callbacks.Callback]) -> str | None:
    """The class name of the first of `callbacks` that is known to add `name` to the logs."""
    return next((type(callback).__name__ for callback in callbacks if name in added_by(callback)), None)


def warn_of_early_readers(source: keras.callbacks.Callback) -> None:
    """Warn of loggers and monitors that stand before `source` in its list; for `set_model`, after the model is set.

    They read the logs of an epoch before `source` adds to them. A name that somebody before them adds too is there.
    """
    if is_called_by_evaluation(source.model):
        return
    neighbours = siblings(source) or [source]
    before = neighbours[: next(place for place, each in enumerate(neighbours) if each is source)]
    unseen = {}
    for place, reader in enumerate(before):
        names = [name for name in added_by(source) if source_of(name, before[:place]) is None]
        unseen[id(reader)] = _unseen(reader, names)
    readers = dict.fromkeys(type(reader).__name__ for reader in before if unseen[id(reader)])
    if readers:
        names = dict.fromkeys(name for missed in unseen.values() for name in missed)
        own = type(source).__name__
        warnings.warn(
            f"{own}: what it adds to the logs ({', '.join(names)}) is not seen by {', '.join(readers)}, listed before "
            f"it. List them as callbacks=[{', '.join([own, *readers])}].",
            UserWarning,
            stacklevel=3,
        )


def _unseen(reader: keras.callbacks.Callback, names: Sequence[str]) -> Sequence[str]:
    """What of `names` a callback would have read, had they been there in time."""
    if isinstance(reader, keras.callbacks.TensorBoard):
        return [name for name in names if name != "learning_rate"]  # it finds that by itself
    if isinstance(reader, _LOGGERS) or _is_foreign_logger(reader):
        return names
    return [name for name in names if name == getattr(reader, "monitor", None)]


def _is_foreign_logger(reader: keras.callbacks.Callback) -> bool:
    package = type(reader).__module__.partition(".")[0]
    return package in _PACKAGES_OF_LOGGERS and not isinstance(reader, keras.callbacks.ModelCheckpoint)
