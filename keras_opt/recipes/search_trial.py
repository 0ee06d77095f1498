"""One trial of a search: a training that reports each epoch and may be stopped."""

import dataclasses
import math
from typing import Any

import keras

from keras_opt.core.clocks import Stopwatch
from keras_opt.core.progress import Progress
from keras_opt.recipes.images import Prepared
from keras_opt.recipes.recipe import Recipe
from keras_opt.recipes.training import Trainer
from keras_opt.tuning.trial_store import TrialStore

OBJECTIVE = "val_accuracy"


def run_trial(recipe: Recipe, prepared: Prepared, store: TrialStore, number: int) -> None:
    """Train trial `number` and write down what came of it; one that fails is written down with its error.

    Its value is the validation accuracy of its best epoch.

    Args:
        recipe: Of the search.
        prepared: The images; those for tests stay unread.
        store: Where the trial was begun.
        number: Of the trial.
    """
    watch = Stopwatch()
    reports = _Reports(store, number)
    try:
        own = dataclasses.replace(recipe, **store.trial(number).params)
        history = Trainer(own, prepared, Progress(quiet=True)).trial([keras.callbacks.TerminateOnNaN(), reports])
    except Exception as error:
        store.fail(number, f"{type(error).__name__}: {error}")
        return
    finally:
        keras.backend.clear_session()
    store.note(number, seconds=watch.seconds, cpu_seconds=watch.cpu_seconds, epochs=len(history.get("loss", ())))
    broken = next(
        (epoch for epoch, loss in enumerate(history.get("loss", [math.nan])) if not math.isfinite(loss)), None
    )
    if broken is not None:
        store.fail(number, f"the loss was not finite in epoch {broken + 1}")
    elif reports.is_stopped:
        store.stop(number)
    else:
        store.complete(number, [max(history[OBJECTIVE])])


class _Reports(keras.callbacks.Callback):
    """Reports each epoch, and stops the training where the pruner says so."""

    def __init__(self, store: TrialStore, number: int):
        super().__init__()
        self.is_stopped = False
        self._store, self._number = store, number

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        value = logs[OBJECTIVE]
        if math.isfinite(logs["loss"]) and self._store.report(self._number, epoch + 1, float(value)):
            self.is_stopped = self.model.stop_training = True
