"""keras-tuner's Tuner with a search loop that no failed trial ends."""

import contextlib
import math
import os
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras

from keras_opt.core import folder_lock
from keras_opt.core.errors import InputError, NoEffectWarning, check_positive
from keras_opt.core.optional import require
from keras_opt.core.progress import Progress
from keras_opt.tuning.search_arguments import check_hypermodel
from keras_opt.tuning.search_files import write_json
from keras_opt.tuning.space import is_free
from keras_opt.tuning.trial_metrics import as_numbers, trial_metrics

keras_tuner = require("keras_tuner")
_errors = require("keras_tuner.errors")
_SaveBestEpoch = require("keras_tuner.src.engine.tuner_utils").SaveBestEpoch
Status = require("keras_tuner.engine.trial").TrialStatus

_WAIT_SECONDS = 0.1
_VERBOSE_PLACE = 5  # of `verbose` among the arguments of `fit`


class SearchTuner(keras_tuner.Tuner):
    """Runs the trials of an oracle and records how they ended.

    Args:
        oracle: Gives the trials.
        hypermodel: As keras-tuner's: a function of HyperParameters that gives a compiled model, or a HyperModel.
        max_seconds: No trial begins after so many seconds of `search`; `None` for no limit.
        **kwargs: Those of keras-tuner's Tuner: `directory`, `project_name`, `overwrite`, `executions_per_trial`, ...
    """

    def __init__(
        self,
        oracle: Any,
        hypermodel: Any = None,
        max_seconds: float | None = None,
        **kwargs: Any,
    ):
        owner = type(self).__name__
        if max_seconds is not None:
            check_positive(owner, "max_seconds", max_seconds)
        check_hypermodel(owner, hypermodel, is_needed=_runs_models(type(self)))
        if "KERASTUNER_ORACLE_IP" in os.environ:
            raise RuntimeError(
                f"{owner}: keras-tuner's chief and workers (KERASTUNER_ORACLE_IP is set) are not supported: a killed "
                "worker would leave the chief waiting for ever. Use `keras-opt tune --workers`, or OptunaOracle with "
                "one storage."
            )
        self.max_seconds = max_seconds
        super().__init__(oracle, hypermodel, **kwargs)
        if kwargs.get("tuner_id") and not kwargs.get("overwrite") and self._file.exists():
            self.reload()  # keras-tuner looks for the file of its own id
        if self._is_stock():
            self._check_space(owner)

    def _is_stock(self):
        """Whether trials are builds and plain fits, so that the builds have shown every parameter."""
        if self.hypermodel is None or type(self.hypermodel).fit is not keras_tuner.HyperModel.fit:
            return False
        return _runs_models(type(self))

    def _check_space(self, owner):
        if self.oracle.trials:  # else the space was seen just now
            now = self.oracle.given_space.copy()
            self.hypermodel.build(now)
            self.oracle.check_ranges(now.space)
        space = self.oracle.get_space().space
        if not any(map(is_free, space)):
            names = ", ".join(parameter.name for parameter in space) or "none"
            raise InputError(
                f"{owner}: there is nothing to search: the hypermodel asked for no parameter with more than one "
                f"value. Parameters that were seen: {names}. Ask for one, such as hp.Float('dropout', 0.0, 0.5)."
            )

    def search(self, *fit_args: Any, **fit_kwargs: Any) -> None:
        """Runs trials until the oracle, the space or the time is at its end.

        Args:
            *fit_args: Go to `run_trial`, which gives them to `fit`.
            **fit_kwargs: As `fit_args`. `verbose`, in Keras's values, is also that of the search, which shows the
                trials done and the time left on standard error.

        Raises:
            RuntimeError: Every trial failed, or too many in a row; another process searches in the same folder.

        Warns:
            UserWarning: Some trials failed, or the objective is measured on training data.
            NoEffectWarning: No trial asked for a parameter with more than one value.
        """
        progress = Progress.of(f"{type(self).__name__}.search", fit_kwargs.get("verbose", "auto"))
        folder = Path(self.project_dir)
        if not folder_lock.hold(folder):
            raise RuntimeError(
                f"{type(self).__name__}: another process searches in {str(folder)!r}. Wait until it has ended, or give "
                "another `project_name`."
            )
        try:
            self._search(progress, fit_args, fit_kwargs)
        finally:
            folder_lock.release(folder)
        self._tell()

    def _search(self, progress, fit_args, fit_kwargs):
        left = max(0, self.oracle.expected_trials - len(self.oracle.end_order))
        end = math.inf if self.max_seconds is None else time.monotonic() + self.max_seconds
        self.on_search_begin()
        self.save()
        with progress.stage("search", left) as stage:
            while time.monotonic() < end:
                self.pre_create_trial()
                trial = self.oracle.create_trial(self.tuner_id)
                if trial.status == Status.STOPPED:
                    break
                if trial.status == Status.IDLE:
                    time.sleep(_WAIT_SECONDS)
                    continue
                self.on_trial_begin(trial)
                self._run(trial, fit_args, fit_kwargs)
                self.on_trial_end(trial)
                stage.advance(1, self._standing(end - time.monotonic()))
        self.on_search_end()

    def run_trial(self, trial: Any, *args: Any, **kwargs: Any) -> Any:
        """Builds and fits the model of a trial; override it to search anything else."""
        if self._is_stock() and len(args) < _VERBOSE_PLACE:
            kwargs.setdefault("verbose", 0)  # the progress of the search is shown instead
        return super().run_trial(trial, *args, **kwargs)

    def _build_and_fit_model(self, trial, *args, **kwargs):
        """keras-tuner's hook of each fit."""
        callbacks = kwargs.get("callbacks", ())
        kwargs["callbacks"] = [_BestEpoch(each) if isinstance(each, _SaveBestEpoch) else each for each in callbacks]
        return super()._build_and_fit_model(trial, *args, **kwargs)

    def load_model(self, trial: Any) -> Any:
        """The model of a trial with the weights of its best epoch; its optimizer begins anew."""
        with without_optimizer():
            return super().load_model(trial)

    def results_summary(self, num_trials: int = 10) -> None:
        """Prints the best trials, and those that failed with the last line of their errors."""
        super().results_summary(num_trials)
        for trial in self._failed():
            print(f"\nTrial {trial.trial_id} failed: {_last_line(trial.message)}")
            trial.display_hyperparameters()

    def save(self) -> None:
        """Writes the files of the search, each whole or not at all."""
        self.oracle.save()
        write_json(self._file, self.get_state())

    def reload(self) -> None:
        """Reads the search of its folder back."""
        self.oracle.reload()

    @property
    def _file(self):
        return Path(self.project_dir) / f"{self.tuner_id}.json"

    def _run(self, trial, fit_args, fit_kwargs):
        try:
            results = self.run_trial(trial, *fit_args, **fit_kwargs)
            self._report(trial, results)
            trial.status = Status.COMPLETED
        except _errors.FatalError:
            raise
        except Exception as error:
            fails = isinstance(error, _errors.FailedTrialError)
            trial.status = Status.FAILED if fails else Status.INVALID
            trial.message = "".join(traceback.format_exception(error))

    def _report(self, trial, results):
        known = self.oracle.get_trial(trial.trial_id)
        if known.metrics.exists(self.oracle.objective.name) or (results is None and known.message):
            return  # the trial called `oracle.update_trial` itself, in the second case with NaN or infinity
        self._warn_of_training_metric(results)
        metrics, epoch = trial_metrics(results, self.oracle.objective, f"{type(self).__name__}.run_trial()")
        self.oracle.update_trial(trial.trial_id, metrics, step=epoch)

    def _warn_of_training_metric(self, results):
        first = results[0] if isinstance(results, list) and results else results
        if not isinstance(first, keras.callbacks.History) or self.oracle.end_order:
            return
        seen, objective = first.history, self.oracle.objective
        for name in getattr(objective, "name_to_direction", [objective.name]):
            held_out = name.startswith("val_") or (f"val_{name}" not in seen and any(map(_is_held_out, seen)))
            if name in seen and not held_out:
                warnings.warn(
                    f"{type(self).__name__}: the objective {name!r} is measured on the training data, so the search "
                    f"prefers what overfits. Give objective='val_{name}' and `search` a `validation_data`.",
                    stacklevel=6,
                )

    def _configure_tensorboard_dir(self, callbacks, trial, execution=0):
        """keras-tuner's hook before each fit, which needs the package tensorboard even where nothing writes for it."""
        if any(isinstance(callback, keras.callbacks.TensorBoard) for callback in callbacks):
            super()._configure_tensorboard_dir(callbacks, trial, execution)

    def _failed(self):
        return [trial for trial in self.oracle.trials.values() if trial.status == Status.FAILED]

    def _standing(self, seconds):
        best, failed = self.oracle.get_best_trials(1), len(self._failed())
        parts = [f"best {self.oracle.objective.name} {best[0].score:.5g} in trial {best[0].trial_id}"] if best else []
        parts += [f"{failed} failed"] if failed else []
        parts += [f"at most {max(seconds, 0):.0f} s left"] if math.isfinite(seconds) else []
        return ", ".join(parts)

    def _tell(self):
        """Says once, at the end, what the user has to know."""
        failed, owner = self._failed(), type(self).__name__
        reasons = Counter(_last_line(trial.message) for trial in failed)
        errors = "; ".join(f"{reason} ({count} times)" for reason, count in reasons.most_common(3))
        if failed and not self.oracle.get_best_trials(1):
            raise RuntimeError(f"{owner}: every trial failed ({len(failed)} of {len(failed)}): {errors}")
        if failed:
            warnings.warn(f"{owner}: {len(failed)} of {len(self.oracle.trials)} trials failed: {errors}", stacklevel=3)
        space = self.oracle.get_space().space
        if not any(map(is_free, space)):
            names = ", ".join(parameter.name for parameter in space) or "none"
            warnings.warn(
                f"{owner}: there was nothing to search: no trial asked for a parameter with more than one value. "
                f"Parameters that were seen: {names}.",
                NoEffectWarning,
                stacklevel=3,
            )


class _BestEpoch(keras.callbacks.Callback):
    """Saves the weights of the best epoch by keras-tuner's callback.

    That saves those of an epoch without the objective too, over the best ones: with `validation_freq` most are such.
    """

    def __init__(self, saving: Any):
        super().__init__()
        self._saving = saving

    def set_model(self, model: keras.Model) -> None:
        super().set_model(model)
        self._saving.set_model(model)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self._saving.objective.has_value(logs) or not math.isfinite(self._saving.best_value):
            self._saving.on_epoch_end(epoch, as_numbers(logs))


@contextlib.contextmanager
def without_optimizer() -> Iterator[None]:
    """Load weights into a model that has not been trained: Keras warns that the state of its optimizer is left out."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Skipping variable loading for optimizer", UserWarning)
        yield


def _runs_models(tuner):
    """Whether no subclass of the user's runs trials of its own."""
    return tuner.run_trial.__module__.startswith("keras_opt.")


def _is_held_out(name):
    return name.startswith("val_")


def _last_line(message):
    return message.strip().splitlines()[-1] if message else "no message"
