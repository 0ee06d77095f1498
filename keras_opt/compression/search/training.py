"""How `compress` makes and trains the model of a recipe."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_opt.callbacks.backup_and_restore import BackupAndRestore
from keras_opt.compression.channels.prune_channels import prune_channels
from keras_opt.compression.distillation.distill import distill
from keras_opt.compression.pruning.prune_low_magnitude import PruneLowMagnitude
from keras_opt.compression.pruning.selection import depthwise_layers
from keras_opt.compression.pruning.sparsity_schedules import PolynomialSparsity
from keras_opt.compression.qat.quantize_aware import quantize_aware
from keras_opt.compression.search.recipe import CompressionRecipe
from keras_opt.core.clocks import Stopwatch
from keras_opt.core.errors import InputError
from keras_opt.core.progress import Stage
from keras_opt.ensemble.copies import copy_of


class OutOfTime(Exception):
    """The budget ended in a training, which a later call goes on with."""


@dataclass(frozen=True)
class Training:
    """How recipes are trained: each step learns from the float model, and from the labels.

    Args:
        teacher: The float model.
        data: Batches with targets, of known number.
        loss: That of the labels.
        task: What the model is for, as `distill` takes it.
        epochs: Of one fine-tuning; what loses channels gets twice as many.
        learning_rate: The first rate of a cosine decay by Adam; quantization-aware training begins at a tenth of it.
        seed: Of dropout and of the order of the data where that has none.
        folder: For the backups from which a broken training goes on.
        clock: Runs since the search began.
        max_seconds: When to give up; `None` for never.
        stage: Where epochs are counted.
    """

    teacher: keras.Model
    data: tf.data.Dataset
    loss: Any
    task: str
    epochs: int
    learning_rate: float
    seed: int
    folder: Path
    clock: Stopwatch
    max_seconds: float | None
    stage: Stage

    @property
    def is_out_of_time(self) -> bool:
        """Whether the budget is used up."""
        return self.max_seconds is not None and self.clock.seconds > self.max_seconds

    @property
    def fresh_data(self) -> tf.data.Dataset:
        """The data in the order of a first epoch on, whatever has read them before."""
        return self.data.fresh_copy() if hasattr(self.data, "fresh_copy") else self.data

    def model(self, recipe: CompressionRecipe) -> tuple[keras.Model, keras.Model]:
        """The model of a recipe as a plain one, whose operations can be counted, and trained to the end for export.

        Raises:
            OutOfTime: The time is over.
            ValueError: The recipe does not fit the model.
        """
        model = self.teacher
        if recipe.cuts:
            model = prune_channels(model, recipe.keep)
            self._fit(model, recipe, "channels", 2 * self.epochs, self.learning_rate)
        if recipe.sparsity:
            model = model if recipe.cuts else copy_of(model, "compress")
            steps = len(self.data) * self.epochs
            schedule = PolynomialSparsity(0.0, recipe.sparsity, begin_step=0, end_step=max(1, 2 * steps // 3))
            prune = PruneLowMagnitude(schedule, exclude=depthwise_layers(model), every=max(1, steps // 30))
            self._fit(model, recipe, "zeros", self.epochs, self.learning_rate, [prune])
        if not recipe.aware:
            return model, model
        aware = quantize_aware(model)
        self._fit(aware, recipe, "qat", self.epochs, self.learning_rate / 10)
        return model, aware

    def _fit(self, student, recipe, step, epochs, rate, callbacks=()):
        keras.utils.set_random_seed(self.seed)
        data = self.fresh_data
        learning = distill(student, self.teacher, task=self.task)
        decay = keras.optimizers.schedules.CosineDecay(rate, max(1, len(self.data) * epochs))
        learning.compile(keras.optimizers.Adam(decay), self.loss)
        backup = BackupAndRestore(self.folder / f"{recipe.file_name}_{step}", delete_checkpoint=False, verbose=0)
        watch = _Watch(self, f"{recipe.name}: {step}")
        learning.fit(data, epochs=epochs, shuffle=False, verbose=0, callbacks=[*callbacks, backup, watch])


class _Watch(keras.callbacks.Callback):
    """Counts epochs in the bar, and ends a training that diverged or whose time is over; the latter's backup stays."""

    def __init__(self, training: Training, note: str):
        super().__init__()
        self._training = training
        self._note = note
        self._counted = 0

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self._training.is_out_of_time:
            raise OutOfTime

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._count(epoch)  # those before it have ended in an earlier call, if this one goes on from a backup

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if not np.isfinite(logs["loss"]):
            raise InputError(f"{self._note}: the loss is {logs['loss']} after epoch {epoch + 1}. Lower learning_rate.")
        self._count(epoch + 1)

    def _count(self, epochs: int) -> None:
        if epochs > self._counted:
            self._training.stage.advance(epochs - self._counted, self._note)
            self._counted = epochs
