"""The main job as one call: train, prune, quantize, export, run the device file, report."""

import errno
import functools
import uuid
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

from keras_opt.core.errors import InputError
from keras_opt.core.files import write_atomic
from keras_opt.core.progress import Progress
from keras_opt.export.latency import benchmark
from keras_opt.export.tflite import to_tflite
from keras_opt.export.tflite_export import TFLiteExport
from keras_opt.models.labelled_file import save_labelled
from keras_opt.recipes.devices import check_devices, replicas_of
from keras_opt.recipes.documents import write_documents
from keras_opt.recipes.figures import (
    Side,
    confusion_matrix,
    device_outputs,
    side_result,
    versions,
    worst_mistakes,
)
from keras_opt.recipes.images import Prepared, image_sizes, prepare
from keras_opt.recipes.networks import check_network
from keras_opt.recipes.recipe import Recipe
from keras_opt.recipes.regularization import settled
from keras_opt.recipes.result import Result
from keras_opt.recipes.run_folder import RunFolder
from keras_opt.recipes.training import Trainer

LATENCY_CALLS = 300


def run(recipe: Recipe, verbose: str | int = "auto") -> Result:
    """Carries out a recipe and leaves a folder with the model, the device file, the report and all figures.

    The stages: train the plain network and the optimised one on the same batches, prune and fine-tune the optimised
    one, export both, and only then read the test images, once, for the figures. Every decision before that reads
    validation images. What the recipe leaves open is chosen by the number of training images, and stands in the recipe
    of the result. A run that was interrupted or killed keeps its finished stages and a backup of the training that
    it was in; `Recipe(resume=True)` goes on there, on several replicas with the epoch it was in, and ends with the same
    bits.

    Args:
        recipe: The settings; `Recipe.demo()` for the embedded data.
        verbose: 0 is silent, 2 shows plain lines, `"auto"` and 1 a bar with the time left on a terminal and lines
            elsewhere; on standard error.

    Returns:
        A `Result`: all that the table shows, and the folder.

    Raises:
        InputError: A setting or a folder cannot be used, before any training starts; or none of the test images can be
            read, or the disk is full: the finished trainings and an older run in the output folder are kept.

    Example:
        >>> import keras_opt
        >>> result = keras_opt.recipes.run(keras_opt.recipes.Recipe.demo())     # doctest: +SKIP
        >>> result.optimised.device_test_accuracy                               # doctest: +SKIP
        0.8765
    """
    progress = Progress.of("run", verbose)
    check_devices(recipe)
    check_network(recipe)
    with RunFolder(recipe, image_sizes(recipe)) as folder:
        prepared = prepare(recipe, progress)
        recipe = settled(recipe, len(prepared.train), progress)
        folder.begin(recipe)
        try:
            return _run(recipe, prepared, folder, progress)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise InputError(f"The disk of {str(folder.path)!r} is full. Free some space. {folder.kept()}") from error


def _run(recipe: Recipe, prepared: Prepared, folder: RunFolder, progress: Progress) -> Result:
    if recipe.strategy is not None:
        count = replicas_of(recipe)
        progress.say(f"strategy {recipe.strategy}: {f'{count} replicas' if count > 1 else 'one device'}")
    trainer = Trainer(recipe, prepared, progress, folder)
    trained = functools.partial(_trained, folder, prepared.class_names, uuid.uuid4().hex)
    plain_model, plain_facts = trained("plain", trainer.plain) if recipe.baseline else (None, None)
    dense, facts = trained("optimised", trainer.optimised)
    shipped, pruning = trained("pruned", lambda: trainer.pruned(dense))

    progress.say("exporting and checking the device files")
    export = _export(recipe, prepared, shipped, folder.path / "model.tflite", recipe.quantize)
    optimised = Side(dense, shipped, facts, pruning["pruned"], export)
    plain = None
    if plain_model:
        export = _export(recipe, prepared, plain_model, folder.path / "plain.tflite", "float32")
        plain = Side(plain_model, plain_model, plain_facts, False, export)
    sides = [plain, optimised] if plain else [optimised]
    latencies = benchmark([side.export.path for side in sides], runs=LATENCY_CALLS, x=prepared.validation.pixels[:1])

    progress.say("reading the test images, for the first and only time")
    test, skipped_test = prepared.read_test()
    outputs = [device_outputs(side.export, test) for side in sides]
    equal_cpu = min(side.history["cpu_seconds"][-1] for side in sides) if plain else None
    results = [
        side_result(side, plain, test, answers, latency, equal_cpu, recipe.batch_size)
        for side, answers, latency in zip(sides, outputs, latencies, strict=True)
    ]
    histories = {"plain": plain and plain.history, "optimised": optimised.history, "pruned": pruning["history"]}
    result = Result(
        recipe=recipe,
        folder=folder.final,
        plain=results[0] if plain else None,
        optimised=results[-1],
        class_names=prepared.class_names,
        counts={
            "training": prepared.class_counts(prepared.train.labels),
            "validation": prepared.class_counts(prepared.validation.labels),
            "test": prepared.class_counts(test.labels),
        },
        source=prepared.source,
        histories={name: history for name, history in histories.items() if history},
        gradients=facts["gradients"],
        pruning=pruning["decision"],
        confusion=confusion_matrix(outputs[-1], test.labels),
        mistakes=worst_mistakes(outputs[-1], test, prepared.class_names),
        skipped=skipped_test + prepared.skipped,
        replicas=replicas_of(recipe),
        equal_cpu_seconds=equal_cpu,
        one_session=len({side.facts["session"] for side in sides}) == 1
        and not any(side.facts["resumed"] for side in sides),
        versions=versions(),
    )
    write_documents(result, folder.path)
    folder.finish()
    return result


def _trained(
    folder: RunFolder, class_names: tuple[str, ...], session: str, name: str, train: Callable
) -> tuple[keras.Model, dict[str, Any]]:
    """Train once; a finished stage's model is read back, so that a resumed run goes on from the same bits."""

    def compute(stages: Path) -> dict[str, Any]:
        model, facts = train()
        save_labelled(model, stages / f"{name}.keras", class_names)
        return {**facts, "session": session}

    facts = folder.stage(name, compute)
    finished = folder.stages / f"{name}.keras"
    write_atomic(folder.model, finished.read_bytes())  # what an interrupted run leaves
    return keras.models.load_model(finished, compile=False), facts


def _export(recipe: Recipe, prepared: Prepared, model: keras.Model, path: Path, quantize: str) -> TFLiteExport:
    with warnings.catch_warnings():
        # A folder of a few dozen photos has no hundred images to calibrate on; the figures show what that costs.
        warnings.filterwarnings("ignore", message="to_tflite: representative_data has")
        return to_tflite(
            model,
            path,
            quantize=quantize,
            representative_data=prepared.train.pixels if quantize == "int8" else None,
            class_names=prepared.class_names,
            description=f"Image classifier trained with keras_opt on {prepared.source}.",
        )
