"""From a trained model to the best device file within limits."""

import dataclasses
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_opt.compression.distillation.soft_targets import TASKS
from keras_opt.compression.search.folder import FinishedCandidates, fingerprint
from keras_opt.compression.search.inputs import (
    batches,
    check_inputs,
    check_numbers,
    check_recipes,
    loss_of,
    metric_or_raise,
    task_or_raise,
)
from keras_opt.compression.search.recipes import RECIPES, CompressionRecipe, OutOfTime, Training
from keras_opt.compression.search.result import OBJECTIVES, Candidate, CompressionResult, judge
from keras_opt.core.clocks import Stopwatch
from keras_opt.core.errors import InputError, NoEffectWarning, argument_error, check_choice, check_path
from keras_opt.core.optional import require
from keras_opt.core.progress import Progress, check_progress
from keras_opt.export.agreement import metric_value
from keras_opt.export.interpreter import LiteRTModel
from keras_opt.export.latency import benchmark
from keras_opt.export.run_tflm import run_tflm
from keras_opt.export.tflite import to_tflite
from keras_opt.models.macs import macs


def compress(
    model: keras.Model,
    train: tf.data.Dataset | tuple[Any, Any],
    validation: tf.data.Dataset | tuple[Any, Any],
    metric: str | keras.metrics.Metric = "accuracy",
    max_drop: float = 0.01,
    objective: str = "latency",
    max_flash_bytes: int | None = None,
    max_arena_bytes: int | None = None,
    budget_seconds: float | None = None,
    folder: str | os.PathLike = "compressed",
    epochs: int = 5,
    learning_rate: float = 1e-3,
    task: str | None = None,
    recipes: Sequence[CompressionRecipe] = RECIPES,
    seed: int = 0,
    progress: Progress | None = None,
) -> CompressionResult:
    """Makes device files of `model` in many ways, from cheap to costly, and says which is the best within the limits.

    It begins with what needs no training (float32, float16, dynamic, int8 and int4 after training), goes on with
    quantization-aware training, alone and on sparse weights, and ends with networks of fewer channels that learn from
    `model` by distillation. Every file is checked, run in LiteRT on all of the validation data, timed on this host and,
    where tflite-micro is installed, run in TFLite Micro. A recipe that fails is a row with its reason.

    Ctrl-C or a kill loses nothing that is finished: the same call goes on, inside the training it was in. Choices are
    made on `validation`, so the figure of the best file there is somewhat flattering: report that on test data.

    Args:
        model: A trained, built functional or Sequential model with one output; it is left as it is.
        train: Batches of (x, y) or (x, y, sample weight) of known number, or a pair of arrays; inputs as the model
            takes them. `keras_opt.data.arrays` and `image_folder` make runs repeat.
        validation: The same, on which each file is judged.
        metric: `"accuracy"` (by pixel for maps, by label for `multi_label`), another name that `compile` knows, or a
            Keras metric. Its name must tell whether more is better.
        max_drop: Float of at least 0, by how much the file's metric may be worse than the model's.
        objective: What to minimise: `"latency"` of one call on this host with one thread, `"size"` of the
            download (after gzip, where zeros count), or `"macs"`.
        max_flash_bytes: The largest file; `None` for any.
        max_arena_bytes: The largest arena of TFLite Micro; `None` for any.
        budget_seconds: When to stop; what was not tried is said. `None` tries all.
        folder: For the files and the state of the search; made if it is not there.
        epochs: Int of at least 1, of each fine-tuning.
        learning_rate: Float above 0, the first rate of Adam's cosine decay; a tenth of it for quantization-aware
            training.
        task: `"classification"`, `"multi_label"` (a single sigmoid too), `"regression"` or `"segmentation"`; `None`
            reads it from the last activation, which is possible for a softmax or a sigmoid.
        recipes: What to try, in this order.
        seed: Int of at least 0, of dropout and of the order of arrays.
        progress: Where to show the bar; by default on standard error.

    Returns:
        A `CompressionResult`: `.best`, `.front`, `.candidates`, `plot()`; printing it shows the table.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: An argument is out of its range, the data do not fit the model, or `folder` has another search.
        ImportError: `max_arena_bytes` is given and tflite-micro is not installed.

    Cost: up to `sum(recipe.epochs(epochs) for recipe in recipes)` epochs, 70 with the defaults, each with one inference
        of `model` more than usual; and one run of each file on each validation row.

    Source: the order of methods follows B. Jacob et al., 2018 (quantization), H. Li et al., 2017 (channels) and
        G. Hinton et al., 2015 (distillation); the front is V. Pareto's.

    Example:
        >>> import keras_opt, numpy as np, tempfile
        >>> x, y = np.random.default_rng(0).uniform(0, 255, (64, 8, 8, 1)), np.arange(64) % 2
        >>> model = keras_opt.models.convnet([4], (8, 8, 1), 2, preprocessing=keras.layers.Rescaling(1 / 255))
        >>> cheap = [keras_opt.compression.CompressionRecipe("float32")]
        >>> quiet = keras_opt.core.progress.Progress(quiet=True)
        >>> found = keras_opt.compression.compress(
        ...     model, (x, y), (x, y), folder=tempfile.mkdtemp(), recipes=cheap, progress=quiet
        ... )
        >>> found.best.name
        'float32'
    """
    check_numbers(max_drop, max_flash_bytes, max_arena_bytes, budget_seconds, epochs, learning_rate, seed)
    check_choice("compress", "objective", objective, OBJECTIVES)
    check_choice("compress", "task", task, (None, *TASKS))
    check_recipes(recipes)
    check_path("compress", "folder", folder)
    check_progress("compress", progress)
    task = task_or_raise(model, task)
    judged, name, lower_is_better = metric_or_raise(metric, task)
    train, validation = (batches(which, data, seed) for which, data in (("train", train), ("validation", validation)))
    for which, data in (("train", train), ("validation", validation)):
        check_inputs(which, data, model)
    if max_arena_bytes is not None:
        require("tflite_micro", extra="micro")
    reference = _reference(model, validation, judged)
    settings = {"epochs": epochs, "learning_rate": learning_rate, "seed": seed, "metric": name, "reference": reference}
    settings |= {"batches of train": int(train.cardinality()), "model": fingerprint(model)}
    found = FinishedCandidates(Path(folder), settings)
    clock = Stopwatch()
    total = sum(1 + recipe.epochs(epochs) for recipe in recipes)
    with (progress or Progress()).stage("compress", total) as stage:
        training = Training(
            model, train, loss_of(model, task, train), task, epochs, learning_rate, seed, found.folder / "trainings",
            clock, budget_seconds, stage,
        )  # fmt: skip
        try:
            tried = [
                _try(recipe, training, found, validation, judged, reference, lower_is_better) for recipe in recipes
            ]
        except KeyboardInterrupt as error:
            raise KeyboardInterrupt(f"{folder} has what is finished; the same call goes on from there.") from error
    tried = _timed(tried)
    front, best = judge(tried, objective, lower_is_better, max_drop, max_flash_bytes, max_arena_bytes)
    limits = [f"a drop of {max_drop:g}"]
    limits += [f"{max_flash_bytes:,} bytes of flash"] if max_flash_bytes is not None else []
    limits += [f"an arena of {max_arena_bytes:,} bytes"] if max_arena_bytes is not None else []
    return CompressionResult(tried, front, best, name, reference, objective, ", ".join(limits), judged)


def _try(
    recipe: CompressionRecipe,
    training: Training,
    found: FinishedCandidates,
    validation: tf.data.Dataset,
    metric: Any,
    reference: float,
    lower_is_better: bool,
) -> Candidate:
    """The candidate of a recipe: that of an earlier call, or a new one."""
    if (known := found.get(recipe)) is not None:
        training.stage.advance(1 + recipe.epochs(training.epochs), f"{recipe.name}: was there")
        if known.path is None or known.arena_bytes is not None:
            return known
        return dataclasses.replace(known, arena_bytes=_or_none(lambda: _arena_bytes(known.path, validation)))
    over = f"not tried: the {training.max_seconds or 0:g} s were over"
    if training.max_seconds is not None and training.clock.seconds > training.max_seconds:
        return Candidate(recipe.name, note=over)
    start = training.clock.seconds
    path = found.folder / f"{recipe.file_name}.tflite"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", NoEffectWarning)  # such a file would not be what its row says
            plain, model = training.model(recipe)
        representative = None if recipe.aware else training.data
        names = getattr(training.teacher, "class_names", None) or None
        export = to_tflite(model, path, recipe.quantize, representative, class_names=names)
    except OutOfTime:
        return Candidate(recipe.name, note=f"not finished: the {training.max_seconds:g} s were over")
    except ImportError as error:  # not kept: the package may be there the next time
        training.stage.advance(1 + recipe.epochs(training.epochs), recipe.name)
        return Candidate(recipe.name, note=_first_line(error))
    except (ValueError, NoEffectWarning) as error:
        candidate = Candidate(recipe.name, seconds=training.clock.seconds - start, note=_first_line(error))
    else:
        value = _measure(LiteRTModel(path).predict, validation, metric)
        candidate = Candidate(
            recipe.name,
            path,
            value,
            (value - reference) * (1 if lower_is_better else -1),
            _or_none(lambda: macs(plain)),
            export.size_bytes,
            export.gzip_bytes,
            _or_none(lambda: _arena_bytes(path, validation)),
            seconds=training.clock.seconds - start,
        )
    training.stage.advance(1, recipe.name)
    found.add(recipe, candidate)
    return candidate


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _arena_bytes(path: Path, data: tf.data.Dataset) -> int:
    x, *_ = next(iter(data))
    return run_tflm(path, keras.tree.map_structure(lambda each: each.numpy()[:1], x)).arena_bytes


def _or_none(count: Callable[[], int]) -> int | None:
    """What `count` gives, or `None` where it says that this model has no such figure."""
    try:
        return count()
    except (InputError, ImportError):
        return None


def _timed(candidates: list[Candidate]) -> tuple[Candidate, ...]:
    """The candidates with the time of a call, all timed in turn."""
    paths = [each.path for each in candidates if each.path is not None]
    times = {latency.path: latency.median_ms for latency in benchmark(paths)} if paths else {}
    return tuple(dataclasses.replace(each, latency_ms=times.get(each.path)) for each in candidates)


def _reference(model: keras.Model, validation: tf.data.Dataset, metric: Any) -> float:
    """The metric of the float model; raise where the data do not fit it."""
    try:
        value = _measure(model.predict_on_batch, validation, metric)
    except (ValueError, TypeError, tf.errors.InvalidArgumentError) as error:
        must_be = f"inputs and targets of {model.name!r} that the metric can judge"
        cure = f"{_first_line(error)} Give data as the model was trained on, and a metric for such targets."
        raise argument_error("compress", "validation", validation.element_spec, must_be, cure) from error
    if not np.isfinite(value):
        cure = "Look at the model's predictions: the weights or the data hold values that are not finite."
        raise argument_error("compress", "validation", value, "data for which the metric is a finite number", cure)
    return value


def _measure(predict: Callable[[Any], np.ndarray], data: tf.data.Dataset, metric: Any) -> float:
    """The metric of what `predict` makes of all the data."""
    outputs, targets = [], []
    for x, y, *_ in data:
        outputs.append(predict(keras.tree.map_structure(lambda each: each.numpy(), x)))
        targets.append(y.numpy())
    return metric_value(np.concatenate(outputs), np.concatenate(targets), metric)
