"""The main job as one call: train, prune, quantize, export, run the device file, report."""

import errno
import warnings
from pathlib import Path
from typing import Any

import keras

from keras_opt.core.errors import InputError
from keras_opt.core.files import write_atomic
from keras_opt.core.progress import Progress
from keras_opt.export.latency import benchmark
from keras_opt.export.tflite import TFLiteExport, to_tflite
from keras_opt.models.labelled_file import save_labelled
from keras_opt.recipes.documents import write_documents
from keras_opt.recipes.figures import (
    confusion_matrix,
    device_outputs,
    side_result,
    versions,
    worst_mistakes,
)
from keras_opt.recipes.images import Prepared, prepare
from keras_opt.recipes.recipe import Recipe
from keras_opt.recipes.result import Result
from keras_opt.recipes.run_folder import RunFolder
from keras_opt.recipes.training import Trainer, check_device

LATENCY_CALLS = 300


def run(recipe: Recipe, progress: Progress | None = None, command: str = "") -> Result:
    """Carries out a recipe and leaves a folder with the model, the device file, the report and all figures.

    The stages: train the plain network and the optimised one on the same batches, prune and fine-tune the optimised
    one, export both, and only then read the test images, once, for the figures. Every decision before that reads
    validation images. An interrupted run keeps its finished stages; `Recipe(resume=True)` goes on from them.

    Args:
        recipe: The settings; `Recipe.demo()` for the embedded data.
        progress: Where to show progress; a bar or plain lines on standard error by default.
        command: The command line to write into the model card.

    Returns:
        A `Result`: all that the table shows, and the folder.

    Raises:
        ValueError: A setting, a folder or an image cannot be used; before any training starts.
        OSError: The disk is full; an older run in the output folder is kept.

    Example:
        >>> import keras_opt
        >>> result = keras_opt.recipes.run(keras_opt.recipes.Recipe.demo())     # doctest: +SKIP
        >>> result.optimised.device_test_accuracy                               # doctest: +SKIP
        0.885
    """
    check_device(recipe)
    progress = progress or Progress()
    with RunFolder(recipe) as folder:
        prepared = prepare(recipe, progress)
        try:
            return _run(recipe, prepared, folder, progress, command)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise InputError(f"The disk of {str(folder.path)!r} is full. Free some space. {folder.kept()}") from error


def _run(recipe: Recipe, prepared: Prepared, folder: RunFolder, progress: Progress, command: str) -> Result:
    trainer = Trainer(recipe, prepared, progress, interrupted_model=folder.path / "model.keras")
    plain = _trained(folder, "plain", trainer.plain, prepared) if recipe.baseline else None
    dense = _trained(folder, "optimised", trainer.optimised, prepared)
    shipped = _trained(folder, "pruned", lambda: trainer.pruned(dense[0]), prepared)

    progress.say("exporting and checking the device files")
    sides = [(dense, shipped, _export(recipe, prepared, shipped[0], folder.path / "model.tflite", recipe.quantize))]
    if plain:
        sides.insert(0, (plain, plain, _export(recipe, prepared, plain[0], folder.path / "plain.tflite", "float32")))
    latencies = benchmark([export.path for _, _, export in sides], runs=LATENCY_CALLS, x=prepared.validation.pixels[:1])

    progress.say("reading the test images, for the first and only time")
    test, skipped_test = prepared.read_test()
    outputs = [device_outputs(export, test) for _, _, export in sides]
    plain_history = plain[1]["history"] if plain else None
    equal_cpu = min(facts["history"]["cpu_seconds"][-1] for (_, facts), _, _ in sides) if plain else None
    results = [
        side_result(
            trained=trained,
            shipped=final,
            pruned=final_facts.get("pruned", False),
            export=export,
            latency=latency,
            device_outputs=answers,
            test=test,
            facts=facts,
            plain_history=plain_history,
            equal_cpu_seconds=equal_cpu,
            batch_size=recipe.batch_size,
        )
        for ((trained, facts), (final, final_facts), export), latency, answers in zip(
            sides, latencies, outputs, strict=True
        )
    ]
    histories = {"plain": plain_history, "optimised": dense[1]["history"], "pruned": shipped[1]["history"]}
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
        gradients=dense[1]["gradients"],
        pruning=shipped[1]["decision"],
        confusion=confusion_matrix(outputs[-1], test.labels),
        mistakes=worst_mistakes(outputs[-1], test, prepared.class_names),
        skipped=prepared.skipped + skipped_test,
        equal_cpu_seconds=equal_cpu,
        versions=versions(),
        command=command,
    )
    write_documents(result, folder.path)
    folder.finish()
    return result


def _trained(folder: RunFolder, name: str, train: Any, prepared: Prepared) -> tuple[keras.Model, dict[str, Any]]:
    """Train once; a finished stage's model is read back, so that a resumed run goes on from the same bits."""

    def compute(stages: Path) -> dict[str, Any]:
        model, facts = train()
        save_labelled(model, stages / f"{name}.keras", prepared.class_names)
        return facts

    facts = folder.stage(name, compute)
    finished = folder.stages / f"{name}.keras"
    write_atomic(folder.path / "model.keras", finished.read_bytes())  # what an interrupted run leaves
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
