"""Several models of one kind, each trained by itself."""

import concurrent.futures
import concurrent.futures.process
import copy
import multiprocessing
import multiprocessing.reduction
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from keras_opt.core.errors import argument_error, check_at_least, check_choice, check_path, kind_error
from keras_opt.core.progress import Progress, Stage
from keras_opt.ensemble.member_data import VARIATIONS, MemberData
from keras_opt.ensemble.member_files import MemberFiles, save_member


def train_ensemble(
    build: Callable[[], keras.Model],
    n: int,
    data: Any,
    vary: str = "seed",
    folder: str | os.PathLike | None = None,
    processes: int = 1,
    seed: int = 0,
    verbose: str | int = "auto",
    **fit_arguments: Any,
) -> list[keras.Model]:
    """Trains n models that differ in what `vary` says, and returns them; `PredictionEnsemble` makes one of them.

    "seed", other initial weights and another order of the batches, is what helps deep networks most. "bootstrap" and
    "fold" give each member less to learn from, and help small networks and tables; folds leave each member rows it has
    not seen, on which it is validated.

    Before member i (from 0) is built, `keras.utils.set_random_seed(seed + i)` is called: the same call gives the same
    members. A training with `folder` that was broken off goes on with the next member; those that are finished are
    never trained again.

    Args:
        build: A function without arguments that returns a new compiled model.
        n: Int of at least 1, the number of members.
        data: `(x, y)` or `(x, y, sample_weight)` in NumPy arrays; with `vary="seed"` also a dataset of batches, a
            `tf.data.Dataset` or `keras.utils.PyDataset`, whose order is its own.
        vary: `"seed"`; `"bootstrap"`: as many rows as there are, drawn with replacement; or `"fold"`: all rows but
            those of one of n folds, which are `validation_data`. Default `"seed"`.
        folder: Where finished members are saved, as `member_0.keras`, ... Default `None`: nowhere.
        processes: Int of at least 1, how many members are trained at once, each in a process of its own, which share
            the cores. `build` must then be importable: a function of a module, or of a script that trains behind
            `if __name__ == "__main__":`. One is trained in this process. Default 1.
        seed: Int of at least 0. Default 0.
        verbose: 0 is silent, 2 shows plain lines, `"auto"` and 1 a bar with the time left on a terminal and lines
            elsewhere; on standard error.
        **fit_arguments: Of `fit`: `epochs`, `batch_size`, `validation_data`, ... Each member gets copies of the
            `callbacks`.

    Returns:
        The members, in their order, compiled.

    Raises:
        ValueError: An argument is out of its range; `build` or the data cannot be sent to another process; or the
            members in `folder` were trained with other settings or other data.
        TypeError: `build` returns no compiled model.
        RuntimeError: A process ended before its member was finished.

    Cost: n trainings. Processes other than this one start by importing TensorFlow.

    Source: B. Lakshminarayanan et al., 2017, "Simple and Scalable Predictive Uncertainty Estimation using Deep
        Ensembles"; L. Breiman, 1996, "Bagging Predictors".

    Example:
        >>> import keras_opt, numpy as np
        >>> def build():
        ...     model = keras_opt.models.mlp([8], (5,), 3)
        ...     model.compile("adam", "sparse_categorical_crossentropy")
        ...     return model
        >>> members = keras_opt.ensemble.train_ensemble(build, 2, (np.eye(5), np.zeros(5)), verbose=0)
        >>> len(members)
        2
    """
    if not callable(build):
        raise kind_error("train_ensemble", "build", build, "a function that returns a model", "Give it uncalled.")
    check_choice("train_ensemble", "vary", vary, VARIATIONS)
    for name, value, minimum in (("n", n, 1), ("processes", processes, 1), ("seed", seed, 0)):
        check_at_least("train_ensemble", name, value, minimum)
    progress = Progress.of("train_ensemble", verbose)
    if folder is not None:
        check_path("train_ensemble", "folder", folder)
    members_data = MemberData(data, vary, n, seed)
    if seed + n > 2**32:
        cure = "Keras takes no larger ones, and the last member has seed + n - 1."
        raise argument_error("train_ensemble", "seed", seed, f"at most {2**32 - n}", cure)
    _check_validation(vary, fit_arguments)
    if processes > 1:
        _check_sendable(build, data, fit_arguments)
    with tempfile.TemporaryDirectory() as temporary:
        files = None
        if folder is not None or processes > 1:
            place = Path(temporary if folder is None else folder)
            files = MemberFiles(place, _settings(build, members_data, fit_arguments))
        finished = [member for member in range(n) if files is not None and files.has(member)]
        missing = [member for member in range(n) if member not in finished]
        epochs = fit_arguments.get("epochs", 1)
        with progress.stage("train_ensemble", n * epochs) as stage:
            if finished:
                stage.advance(len(finished) * epochs, f"{len(finished)} of {n} were finished")
            if processes > 1:
                _train_in_processes(build, members_data, fit_arguments, missing, files, processes, stage, epochs)
                return [files.load(member) for member in range(n)]
            trained = {}
            for member in missing:
                ticks = _Ticks(stage, f"member {member + 1} of {n}", epochs)
                trained[member] = _train(build, members_data, fit_arguments, member, ticks, list(trained.values()))
                if files is not None:
                    save_member(trained[member], files.path(member))
        return [trained[member] if member in trained else files.load(member) for member in range(n)]


def _check_validation(vary: str, fit_arguments: dict[str, Any]) -> None:
    """Raise if members were validated on rows that they are trained on, or not on their folds."""
    refused = {
        "bootstrap": {"validation_split": "Rows that are drawn twice would be on both sides: give validation_data."},
        "fold": dict.fromkeys(
            ("validation_data", "validation_split"), "Each member is validated on the fold it leaves out."
        ),
    }
    for name, cure in refused.get(vary, {}).items():
        if fit_arguments.get(name):
            raise argument_error("train_ensemble", name, "given", f"left out for vary={vary!r}", cure)


class _Ticks(keras.callbacks.Callback):
    """Counts the epochs of a member in the bar; those that early stopping saves, at the end."""

    def __init__(self, stage: Stage, note: str, epochs: int):
        super().__init__()
        self._stage, self._note, self._left = stage, note, epochs

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._left -= 1
        self._stage.advance(1, self._note)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._stage.advance(self._left, self._note)


def _train(
    build: Callable[[], keras.Model],
    data: MemberData,
    fit_arguments: dict[str, Any],
    member: int,
    ticks: keras.callbacks.Callback | None = None,
    earlier: Sequence[keras.Model] = (),
) -> keras.Model:
    """One member, from its seed."""
    keras.utils.set_random_seed(data.seed + member)
    model = build()
    if not isinstance(model, keras.Model) or not model.compiled:
        raise kind_error("train_ensemble", "build", build, "a function that returns a compiled model", "Compile it.")
    if any(model is other for other in earlier):
        must_be, cure = "a function that returns a new model each time", "Make the model inside of it."
        raise argument_error("train_ensemble", "build", build, must_be, cure)
    arrays, left_out = data.of(member)
    arguments = {**fit_arguments, "verbose": 0}
    arguments["callbacks"] = [*copy.deepcopy(_as_list(arguments.get("callbacks"))), *([ticks] if ticks else [])]
    if left_out is not None:
        arguments["validation_data"] = left_out
    x, y, weight = (*arrays, None, None)[:3]
    model.fit(x, y, sample_weight=weight, **arguments)
    return model


# --- processes -------------------------------------------------------------------------------------------------------


def _train_in_processes(
    build: Callable[[], keras.Model],
    data: MemberData,
    fit_arguments: dict[str, Any],
    missing: list[int],
    files: MemberFiles,
    processes: int,
    stage: Stage,
    epochs: int,
) -> None:
    pool = concurrent.futures.ProcessPoolExecutor(
        processes, multiprocessing.get_context("spawn"), _share_cores, (processes,)
    )
    with pool:
        tasks = {
            pool.submit(_train_and_save, build, data, fit_arguments, member, files.path(member)): member
            for member in missing
        }
        try:
            for task in concurrent.futures.as_completed(tasks):
                task.result()
                stage.advance(epochs, f"member {tasks[task] + 1} is finished")
        except concurrent.futures.process.BrokenProcessPool as error:
            done = sum(files.has(member) for member in missing)
            raise RuntimeError(
                f"train_ensemble: a process ended before its member was finished; {done} of {len(missing)} are. "
                "If memory ran out, give fewer processes. With a folder, the same call goes on. In a script, train "
                'behind `if __name__ == "__main__":`.'
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _share_cores(processes: int) -> None:
    """Let each process use its share of the cores."""
    tf.config.threading.set_intra_op_parallelism_threads(max(1, (os.cpu_count() or 1) // processes))


def _train_and_save(
    build: Callable[[], keras.Model], data: MemberData, fit_arguments: dict[str, Any], member: int, path: Path
) -> None:
    save_member(_train(build, data, fit_arguments, member), path)


def _check_sendable(build: Callable[[], keras.Model], data: Any, fit_arguments: dict[str, Any]) -> None:
    """Raise unless other processes can be given all that they need."""
    if getattr(build, "__module__", None) == "__main__" and not hasattr(sys.modules["__main__"], "__file__"):
        cure = "Put it into a module and import it from there, or train in one process."
        raise argument_error("train_ensemble", "build", build, "importable for processes > 1", cure)
    for name, value in {"build": build, "data": data, **fit_arguments}.items():
        try:
            multiprocessing.reduction.ForkingPickler.dumps(value)
        except Exception as error:  # what an object of any kind raises that cannot be pickled
            wanted = "a function of a module" if name == "build" else "arrays and plain objects"
            cure = f"It cannot be sent to another process ({error}): give that, or train in one process."
            raise argument_error("train_ensemble", name, value, f"{wanted} for processes > 1", cure) from error


# --- settings --------------------------------------------------------------------------------------------------------


def _settings(build: Callable[[], keras.Model], data: MemberData, fit_arguments: dict[str, Any]) -> dict[str, Any]:
    """What makes a member what it is, as far as it can be told."""
    plain = {name: _told(value) for name, value in sorted(fit_arguments.items())}
    kind = {"n": data.count} if data.vary == "fold" else {}
    name = f"{getattr(build, '__module__', '')}.{getattr(build, '__qualname__', type(build).__name__)}"
    return {"build": name, "data": data.fingerprint(), "vary": data.vary, "seed": data.seed, **kind, "fit": plain}


def _told(value: Any) -> Any:
    """A plain value; a dict, as `class_weight`, by its text; of everything else the kind."""
    if isinstance(value, dict):
        return repr(value)
    return value if isinstance(value, bool | int | float | str | None) else type(value).__name__


def _as_list(callbacks: Any) -> list[keras.callbacks.Callback]:
    return list(callbacks) if isinstance(callbacks, list | tuple) else [callbacks] if callbacks else []
