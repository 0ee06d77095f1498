"""A recipe tried: from the model that it trains to a file that is measured."""

import dataclasses
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras

from keras_opt.compression.pruning.selection import depthwise_layers
from keras_opt.compression.pruning.sparsity import kernels, sparsity
from keras_opt.compression.search.folder import FinishedCandidates
from keras_opt.compression.search.judge import Judge, first_line
from keras_opt.compression.search.recipe import CompressionRecipe
from keras_opt.compression.search.result import Candidate
from keras_opt.compression.search.training import OutOfTime, Training
from keras_opt.core.errors import InputError, NoEffectWarning
from keras_opt.export.interpreter import LiteRTModel
from keras_opt.export.run_tflm import run_tflm
from keras_opt.export.tflite import to_tflite
from keras_opt.models.macs import macs


@dataclass(frozen=True)
class Attempts:
    """Makes the candidate of each recipe.

    Args:
        training: Trains the models.
        finished: The candidates of earlier calls, to which new ones are added.
        judge: Measures the files.
        reference: The judge's figure for the float model.
    """

    training: Training
    finished: FinishedCandidates
    judge: Judge
    reference: float

    def candidate(self, recipe: CompressionRecipe) -> Candidate:
        """That of an earlier call, or a new one; where there is no file, its note says why."""
        training, start = self.training, self.training.clock.seconds
        if (known := self.finished.get(recipe)) is not None:
            training.stage.advance(self._units(recipe), f"{recipe.name}: was there")
            return self._with_arena(known)
        if training.is_out_of_time:
            return Candidate(recipe.name, note=f"not tried: the {training.max_seconds:g} s were over")
        try:
            candidate = self._made(recipe)
        except OutOfTime:
            return Candidate(recipe.name, note=f"not finished: the {training.max_seconds:g} s were over")
        except ImportError as error:  # not kept: the package may be there the next time
            training.stage.advance(self._units(recipe), recipe.name)
            return Candidate(recipe.name, note=first_line(error))
        except (ValueError, NoEffectWarning) as error:
            candidate = Candidate(recipe.name, note=first_line(error))
        training.stage.advance(1, recipe.name)
        candidate = dataclasses.replace(candidate, seconds=training.clock.seconds - start)
        self.finished.add(recipe, candidate)
        return candidate

    def _units(self, recipe: CompressionRecipe) -> int:
        return 1 + recipe.epochs(self.training.epochs)

    def _made(self, recipe: CompressionRecipe) -> Candidate:
        """The candidate of the file that the recipe gives."""
        with warnings.catch_warnings():
            warnings.simplefilter("error", NoEffectWarning)  # such a file would not be what its row says
            plain, model = self.training.model(recipe)
        path = self.finished.folder / f"{recipe.file_name}.tflite"
        representative = None if recipe.aware else self.training.fresh_data
        names = getattr(self.training.teacher, "class_names", None) or None
        export = to_tflite(model, path, recipe.quantize, representative, class_names=names)
        value = self.judge.value(LiteRTModel(path).predict)
        return Candidate(
            recipe.name,
            path,
            metric=value,
            drop=self.judge.drop(value, self.reference),
            macs=_or_none(lambda: macs(plain)),
            size_bytes=export.size_bytes,
            gzip_bytes=export.gzip_bytes,
            arena_bytes=self._arena_bytes(path),
            note=_note(recipe, plain),
        )

    def _with_arena(self, candidate: Candidate) -> Candidate:
        """`candidate`, measured in TFLite Micro if that was not installed when its file was made."""
        if candidate.path is None or candidate.arena_bytes is not None:
            return candidate
        return dataclasses.replace(candidate, arena_bytes=self._arena_bytes(candidate.path))

    def _arena_bytes(self, path: Path) -> int | None:
        return _or_none(lambda: run_tflm(path, self.judge.row).arena_bytes)


def _note(recipe: CompressionRecipe, plain: keras.Model) -> str:
    """How many zeros there are in all, where not every kernel was pruned."""
    are_all_pruned = not depthwise_layers(plain) and all(kernel.trainable for kernel in kernels(plain))
    if not recipe.sparsity or are_all_pruned:
        return ""
    return f"{sparsity(plain)['total']:.0%} zeros in all: depthwise and frozen kernels stay dense"


def _or_none(count: Callable[[], int]) -> int | None:
    """What `count` gives, or `None` where it says that this model has no such figure."""
    try:
        return count()
    except (InputError, ImportError):
        return None
