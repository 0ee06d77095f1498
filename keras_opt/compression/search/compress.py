"""From a trained model to the best device file within limits."""

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from keras_opt.compression.distillation.soft_targets import TASKS
from keras_opt.compression.search.attempts import Attempts
from keras_opt.compression.search.folder import FinishedCandidates, fingerprint
from keras_opt.compression.search.inputs import (
    batches,
    check_inputs,
    check_numbers,
    check_recipes,
    check_targets,
    loss_of,
    metric_or_raise,
    task_or_raise,
)
from keras_opt.compression.search.judge import Judge
from keras_opt.compression.search.recipe import CompressionRecipe
from keras_opt.compression.search.result import OBJECTIVES, Candidate, CompressionResult, Limits, front_and_best
from keras_opt.compression.search.training import Training
from keras_opt.core.clocks import Stopwatch
from keras_opt.core.errors import check_choice, check_path
from keras_opt.core.optional import require
from keras_opt.core.progress import Progress
from keras_opt.export.latency import benchmark


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
    recipes: Sequence[CompressionRecipe] | None = None,
    seed: int = 0,
    verbose: str | int = "auto",
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
        validation: The same, on which each file is judged, all rows alike: sample weights count in training only.
        metric: `"accuracy"` (by pixel for maps; by label for `multi_label`, logits against 0), another name that
            `compile` knows, or a Keras metric. Its name must tell whether more is better.
        max_drop: Float of at least 0, by how much the file's metric may be worse than the model's.
        objective: What to minimise: `"latency"` of one call on this host with one thread, `"size"` of the
            download (after gzip, where zeros count), or `"macs"`.
        max_flash_bytes: The largest file; `None` for any.
        max_arena_bytes: The largest arena of TFLite Micro; `None` for any.
        budget_seconds: When to stop; what was not tried is said. `None` tries all.
        folder: For the files and the state of the search; made if it is not there. Give another one where `train` has
            changed: only another number of batches, or of rows with a label, is noticed.
        epochs: Int of at least 1, of each fine-tuning.
        learning_rate: Float above 0, the first rate of Adam's cosine decay; a tenth of it for quantization-aware
            training.
        task: `"classification"`, `"multi_label"` (a single sigmoid too), `"regression"` or `"segmentation"`; `None`
            reads it from the last activation, which is possible for a softmax or a sigmoid.
        recipes: What to try, in this order; `None` for `CompressionRecipe.defaults()`.
        seed: Int of at least 0, of dropout and of the order of arrays.
        verbose: 0 is silent, 2 shows plain lines, `"auto"` and 1 a bar with the time left on a terminal and lines
            elsewhere; on standard error.

    Returns:
        A `CompressionResult`: `.best`, `.front`, `.candidates`, `plot()`; printing it shows the table.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: An argument is out of its range, the data do not fit the model, or `folder` has another search.
        ImportError: `max_arena_bytes` is given and tflite-micro is not installed.

    Cost: up to `sum(recipe.epochs(epochs) for recipe in recipes)` epochs, 70 with the defaults, each with one inference
        of `model` more than usual; one run of each file on each validation row; and one pass over `train` to look at
        its labels.

    Source: the order of methods follows B. Jacob et al., 2018 (quantization), H. Li et al., 2017 (channels) and
        G. Hinton et al., 2015 (distillation); the front is V. Pareto's.

    Example:
        >>> import keras_opt, numpy as np, tempfile
        >>> x, y = np.random.default_rng(0).uniform(0, 255, (64, 8, 8, 1)), np.arange(64) % 2
        >>> model = keras_opt.models.convnet([4], (8, 8, 1), 2, preprocessing=keras.layers.Rescaling(1 / 255))
        >>> cheap = [keras_opt.compression.CompressionRecipe("float32")]
        >>> found = keras_opt.compression.compress(
        ...     model, (x, y), (x, y), folder=tempfile.mkdtemp(), recipes=cheap, verbose=0
        ... )
        >>> found.best.name
        'float32'
    """
    limits = Limits(max_drop, max_flash_bytes, max_arena_bytes)
    check_numbers(limits, budget_seconds, epochs, learning_rate, seed)
    epochs, learning_rate, seed = int(epochs), float(learning_rate), int(seed)  # NumPy's cannot be written as JSON
    check_choice("compress", "objective", objective, OBJECTIVES)
    check_choice("compress", "task", task, (None, *TASKS))
    recipes = CompressionRecipe.defaults() if recipes is None else recipes
    check_recipes(recipes)
    check_path("compress", "folder", folder)
    progress = Progress.of("compress", verbose)
    task = task_or_raise(model, task)
    metric, name, lower_is_better = metric_or_raise(metric, task, model)
    train, validation = batches("train", train, seed), batches("validation", validation, seed)
    loss = loss_of(model, task, train)
    labels = {}
    for which, data in (("train", train), ("validation", validation)):
        check_inputs(which, data, model)
        labels[f"labels of {which}"] = check_targets(which, data, model, task, loss)
    if max_arena_bytes is not None:
        require("tflite_micro", extra="micro")
    judge = Judge(validation, metric, name, lower_is_better)
    reference = judge.reference(model)
    settings = {"epochs": epochs, "learning_rate": learning_rate, "seed": seed, "metric": name, "reference": reference}
    settings |= {"batches of train": int(train.cardinality()), "model": fingerprint(model), "task": task}
    settings |= {"loss": json.dumps(keras.saving.serialize_keras_object(loss), sort_keys=True, default=str)}
    settings |= labels
    finished = FinishedCandidates(Path(folder), settings)
    with progress.stage("compress", sum(1 + recipe.epochs(epochs) for recipe in recipes)) as stage:
        training = Training(
            model, train, loss, task, epochs, learning_rate, seed, finished.trainings, Stopwatch(),
            budget_seconds, stage,
        )  # fmt: skip
        attempts = Attempts(training, finished, judge, reference)
        try:
            tried = [attempts.candidate(recipe) for recipe in recipes]
        except KeyboardInterrupt as error:
            raise KeyboardInterrupt(f"{folder} has what is finished; the same call goes on from there.") from error
    tried = _timed(tried)
    front, best = front_and_best(tried, objective, lower_is_better, limits)
    return CompressionResult(tried, front, best, name, reference, objective, str(limits), metric)


def _timed(candidates: list[Candidate]) -> tuple[Candidate, ...]:
    """The candidates with the time of a call, all timed in turn."""
    paths = [each.path for each in candidates if each.path is not None]
    times = {latency.path: latency.median_ms for latency in benchmark(paths)} if paths else {}
    return tuple(dataclasses.replace(each, latency_ms=times.get(each.path)) for each in candidates)
