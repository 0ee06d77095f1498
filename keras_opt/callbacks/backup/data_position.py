"""The place of a `fit` in its data, saved in one process and found again in another.

Keras has no public name for it: `fit` keeps an `EpochIterator` in a local variable. Three of its private members are
touched, here and nowhere else; `tests/contract/test_keras_canary.py` fails, with the Keras version, when they move.
"""

import hashlib
import re
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_opt.core.errors import InputError
from keras_opt.training.callers import running_fits

# How a place inside an epoch can be found again: TensorFlow saves the pipeline; or the batches before it are drawn and
# discarded, for the order is always one; or not at all, and only the begin of an epoch can.
SAVED, DRAWN, EPOCHS = "saved", "drawn", "epochs"
# Of folders in that of the backups, which a kill may leave behind.
POSITION_PREFIX = ".position-"
# The names in TensorFlow's checkpoint of an iterator, for example "Iterator::Root::Prefetch::BatchV2::Shuffle".
_NAMES = re.compile(rb"Iterator::Root[\w:\[\]]*")
_CACHE, _SHUFFLE = b"::MemoryCache", b"::Shuffle"
# Where an epoch draws several orders, or has several parts with one each.
_SHUFFLES = re.compile(rb"::ShuffleAndRepeat|(Repeat|Concatenate)(\[\d+\])?::.*Shuffle")


class DataPosition:
    """The place in the data of the `fit` that is running now.

    Make it in a callback's `on_train_begin`.

    Args:
        model: The model whose `fit` calls.
        folder: Where files may be written for a moment.

    Attributes:
        way: `SAVED`, `DRAWN` or `EPOCHS`; empty before the first batch.

    Raises:
        RuntimeError: No `fit` of Keras is calling.
    """

    def __init__(self, model: keras.Model, folder: Path):
        self._model = model
        self._folder = folder
        here = self._locals_of_fit()
        self._source = here["epoch_iterator"]
        self._x = here["x"]
        self._arrays = (here["x"], here["y"], here["sample_weight"])
        self._validation = here["validation_data"]
        # Keras lets TensorFlow forget what it draws for shuffle="batch".
        self._may_be_saved = model.distribute_strategy.num_replicas_in_sync == 1 and here["shuffle"] != "batch"
        self._steps_per_execution = self._source.steps_per_execution
        self.way = ""
        # Whether an epoch's order is kept in memory, `shuffle(n).batch(k).cache()`: a new process would draw another.
        self._caches_an_order = False
        # Keras makes one or two iterators an epoch.
        self._iterators = 0
        self._dataset = self._source._get_iterator
        vars(self._source)["_get_iterator"] = self._count_iterators
        self._first_batch = ""

    @property
    def element_spec(self) -> Any:
        """What a batch consists of, as `tf.TypeSpec`s."""
        return self._dataset().element_spec

    @property
    def description(self) -> dict[str, str]:
        """What tells other data from these, without reading them."""
        return {
            "batches": _spec_text(self.element_spec),
            "batches an epoch": str(self._source.num_batches),
            "steps_per_execution": str(self._steps_per_execution),
            "first examples": _digest(_first_rows(self._arrays)),
            "validation data": _described(self._validation),
        }

    def look(self) -> None:
        """At the first batch of a training, before it is read: find out which way there is.

        Raises:
            OSError: The folder cannot be written.
        """
        unread = self._saved(self._locals_of_fit()["iterator"]) if self._may_be_saved else None
        # `_put_back` would set the count of such orders back to that of an epoch's begin.
        if unread is None or (not self._source.steps_per_epoch and any(map(_SHUFFLES.search, _names(unread)))):
            self.way = DRAWN if self._draws_alike() else EPOCHS
            return
        orders = [name.rpartition(_SHUFFLE)[0] for name in _names(unread) if _SHUFFLE in name]
        self._caches_an_order = any(_CACHE in name for name in orders)
        # `_put_back` would have to load an unread state for the one order, and must not for the other.
        is_mixed = _has_cache(unread) and any(_CACHE not in name for name in orders)
        self.way = EPOCHS if is_mixed else SAVED

    def state(self, executions: int) -> dict[str, Any] | None:
        """The place now, `executions` executions into the epoch; `None` if it cannot be found again.

        If `way` is still `SAVED` then, other places can. TensorFlow may find a state that it refuses to save, that of a
        Python function say, only when it has read some.

        Raises:
            OSError: The folder cannot be written.
        """
        # Of the iterator, which may outlive an epoch; the execution that begins now is counted already.
        drawn = self._source._steps_seen - self._steps_per_execution
        has_place = self.way == SAVED and (drawn or self._caches_an_order)
        now = self._saved(self._locals_of_fit()["iterator"]) if has_place else None
        if executions and now is None and self.way != DRAWN:
            self.way = EPOCHS
            return None
        if now is not None and self._caches_an_order and not _has_cache(now):
            return None  # read to its end, the pipeline has let go of the cache that later epochs read
        return {
            "way": self.way,
            "executions": executions,
            "drawn": drawn,
            "batches": self._source._num_batches,
            "iterators": self._iterators,
            "now": now,
            "caches_an_order": self._caches_an_order,
            "first_batch": self._first_batch,
        }

    def differs(self, state: dict[str, Any]) -> bool:
        """Whether the first batch can be told to be another one than it was."""
        return state["way"] == DRAWN and self._draw_first() != state["first_batch"]

    def resume(self, state: dict[str, Any]) -> None:
        """Let the epoch that begins next begin in the place of `state`."""
        self.way, self._first_batch = state["way"], state["first_batch"]
        self._caches_an_order = state["caches_an_order"]
        steps_of_epoch = self._source._enumerate_iterator

        def steps_from_there() -> Iterator[tuple[int, int, Any]]:
            del vars(self._source)["_enumerate_iterator"]
            self._source._num_batches = state["batches"]
            # A set that is shuffled anew in each epoch counts its iterators.
            while self._iterators < state["iterators"] - 1:
                iter(self._source._get_iterator())
            for number, (begin, end, iterator) in enumerate(steps_of_epoch()):
                if number == state["executions"]:
                    self._put_back(iterator, state)
                if number >= state["executions"]:
                    yield begin, end, iterator

        vars(self._source)["_enumerate_iterator"] = steps_from_there

    def _put_back(self, iterator: Any, state: dict[str, Any]) -> None:
        # With `steps_per_epoch` an iterator outlives the epoch; one of several replicas cannot be saved.
        if self.way == DRAWN or (self.way == EPOCHS and not self._may_be_saved):
            self._source._steps_seen = state["drawn"] + self._steps_per_execution
            for _ in range(state["drawn"]):
                next(iterator)
        elif state["now"] is not None:
            self._source._steps_seen = state["drawn"] + self._steps_per_execution
            unread = self._saved(iterator)
            self._load(iterator, state["now"])
            if not self._source.steps_per_epoch and not _has_cache(unread):
                # If the pipeline had read its source to the end, this has counted one iterator too many. Not with a
                # cache: its iterators share it, and an unread state would empty it.
                self._load(iter(self._dataset()), unread)

    def _count_iterators(self) -> Any:
        self._iterators += 1
        return self._dataset()

    def _load(self, iterator: Any, files: dict[str, Any]) -> None:
        with tempfile.TemporaryDirectory(dir=self._folder, prefix=POSITION_PREFIX) as folder:
            for name, content in files.items():
                Path(folder, name).write_bytes(content.tobytes())
            try:
                tf.train.Checkpoint(iterator=iterator).read(f"{folder}/position").assert_consumed()
            except tf.errors.OpError as error:
                raise InputError(
                    f"BackupAndRestore: the backup in {str(self._folder)!r} is that of another tf.data pipeline: its "
                    "place cannot be found in this one. Build the pipeline as before, or delete that folder to train "
                    "anew."
                ) from error

    def _locals_of_fit(self) -> dict[str, Any]:
        for fit in running_fits(self._model):
            return fit.f_locals
        raise RuntimeError(
            "BackupAndRestore: `fit` of the model is not what calls. Give it to `fit(callbacks=[...])`; a loop of your "
            "own does not let a callback choose the epoch to begin with."
        )

    def _saved(self, iterator: Any) -> dict[str, Any] | None:
        """The files of TensorFlow's checkpoint of `iterator`; `None` if it refuses."""
        with tempfile.TemporaryDirectory(dir=self._folder, prefix=POSITION_PREFIX) as folder:
            try:
                tf.train.Checkpoint(iterator=iterator).write(f"{folder}/position")
            except (tf.errors.FailedPreconditionError, tf.errors.UnimplementedError, ValueError, NotImplementedError):
                return None
            except tf.errors.OpError as error:
                raise OSError(str(error)) from error
            return {file.name: np.frombuffer(file.read_bytes(), np.uint8) for file in Path(folder).iterdir()}

    def _draws_alike(self) -> bool:
        if not self._may_be_saved or not isinstance(self._x, tf.data.Dataset):
            return False
        self._first_batch = self._draw_first()
        return self._draw_first() == self._first_batch

    def _draw_first(self) -> str:
        leaves = tf.nest.flatten(next(iter(self._count_iterators())), expand_composites=True)
        return _digest(leaf.numpy() for leaf in leaves)


def _spec_text(element_spec: Any) -> str:
    leaves = tf.nest.flatten(element_spec, expand_composites=True)  # of each replica
    return ", ".join(f"{leaf.dtype.name} {leaf.shape}" for leaf in leaves)


def _described(validation: Any) -> str:
    if isinstance(validation, tf.data.Dataset):
        return f"{int(validation.cardinality())} batches of {_spec_text(validation.element_spec)}"
    return _digest(_first_rows(validation))


def _first_rows(data: Any) -> Iterator[np.ndarray]:
    """Of each array, tensor or pandas table in `data` its shape and first rows."""
    for leaf in keras.tree.flatten(data):
        if hasattr(leaf, "iloc"):
            yield from (np.array(leaf.shape), leaf.iloc[:8].to_numpy())
        elif isinstance(leaf, np.ndarray | tf.Tensor):
            yield from (np.array(leaf.shape), np.asarray(leaf[:8]))


def _names(files: dict[str, np.ndarray]) -> set[bytes]:
    return {name for content in files.values() for name in _NAMES.findall(content.tobytes())}


def _has_cache(files: dict[str, np.ndarray]) -> bool:
    return any(_CACHE in name for name in _names(files))


def _digest(arrays: Iterable[np.ndarray]) -> str:
    # The bytes of an array of texts are their addresses.
    contents = (repr(array.tolist()).encode() if array.dtype == object else array.tobytes() for array in arrays)
    return hashlib.sha256(b"".join(contents)).hexdigest()[:16]
