"""`keras-opt compress` as one call: read the data, compress the model, judge the best file on test data, report."""

import shutil
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_opt.compression.search.compress import compress
from keras_opt.compression.search.result import AXES, OBJECTIVES, Candidate, CompressionResult
from keras_opt.core.errors import InputError
from keras_opt.core.files import atomic_path
from keras_opt.core.progress import Progress
from keras_opt.data.arrays import arrays
from keras_opt.data.stratified_split import stratified_split
from keras_opt.export.interpreter import LiteRTModel
from keras_opt.export.sidecars import write_sidecars
from keras_opt.loading import load_model
from keras_opt.recipes.images import prepare
from keras_opt.recipes.recipe import Recipe
from keras_opt.report.inputs import Curve, KeyNumber, Line, Report, Table
from keras_opt.report.page import write_report

VALIDATION_SPLIT = 0.2
TEST_SPLIT = 0.1
_READ_ERRORS = (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class CompressionJob:
    """A finished job.

    Args:
        result: What `compress` found.
        folder: Where all files are.
        rows: How many rows each part of the data has, by its name.
        test: The metric on the test data by name of the candidate: of float32 and of the best.
    """

    result: CompressionResult
    folder: Path
    rows: dict[str, int]
    test: dict[str, float]


def compress_file(
    model: str,
    data: str,
    out: str,
    *,
    batch_size: int = 32,
    seed: int = 0,
    command: str = "",
    verbose: str | int = "auto",
    **settings: Any,
) -> CompressionJob:
    """Compress the model of a file on the data of a folder of images or an .npz file.

    The data are split as `keras-opt train` does with the same seed: a tenth for the figures at the end, and of the rest
    a fifth for the choices.

    Args:
        model: A .keras or .h5 file.
        data: A folder with one sub-folder of images a class, or an .npz file with the arrays `x` and `y`.
        out: The folder for the files. Those of a job that was broken off are used.
        batch_size: Of the training.
        seed: Of the split, the order and dropout.
        command: For the report's last line.
        verbose: 0 is silent, as in `compress`.
        settings: What else `compress` takes.

    Raises:
        ValueError: A file cannot be read, or the data do not fit the model.
    """
    progress = Progress.of("compress_file", verbose)
    loaded = load_model(model, compile=False)
    if Path(data).is_dir():
        parts = _folder_parts(loaded, data, seed, progress)
    else:
        parts = _file_parts(loaded, data, seed, progress, has_classes=settings.get("task") != "regression")
    train = arrays(*parts.train, batch_size=batch_size, seed=seed)
    found = compress(loaded, train, parts.validation, folder=out, seed=seed, verbose=verbose, **settings)
    test_x, test_y = parts.read_test()
    job = CompressionJob(
        result=found,
        folder=Path(out),
        rows={"training": len(parts.train[1]), "validation": len(parts.validation[1]), "test": len(test_y)},
        test=_test_metrics(found, test_x, test_y),
    )
    _write_files(job, loaded.name, command)
    return job


@dataclass(frozen=True)
class _Parts:
    """Pairs of inputs and targets; those of the test are read when the choices are made."""

    train: tuple[np.ndarray, np.ndarray]
    validation: tuple[np.ndarray, np.ndarray]
    read_test: Callable[[], tuple[np.ndarray, np.ndarray]]


def _folder_parts(model: keras.Model, folder: str, seed: int, progress: Progress) -> _Parts:
    shape = model.input_shape
    if len(shape) != 4 or shape[1] != shape[2] or shape[3] not in (1, 3):
        raise InputError(
            f"The model takes inputs of shape {shape[1:]}, no square images. Give --data an .npz file with x and y."
        )
    colors = {1: "grayscale", 3: "rgb"}[shape[3]]
    recipe = Recipe(
        data=folder, image_size=shape[1], color_mode=colors, seed=seed,
        validation_split=VALIDATION_SPLIT, test_split=TEST_SPLIT,
    )  # fmt: skip
    prepared = prepare(recipe, progress)
    names = tuple(getattr(model, "class_names", ()) or prepared.class_names)
    if names != tuple(prepared.class_names):
        raise InputError(
            f"The model has the classes {', '.join(names)} and {folder!r} has {', '.join(prepared.class_names)}. "
            "Give the folder that it was trained on, or one with the same sub-folders."
        )
    model.class_names = names

    def read_test():
        images, _ = prepared.read_test()
        return images.pixels, images.labels

    train, validation = ((images.pixels, images.labels) for images in (prepared.train, prepared.validation))
    return _Parts(train, validation, read_test)


def _file_parts(model: keras.Model, path: str, seed: int, progress: Progress, has_classes: bool) -> _Parts:
    try:
        with np.load(path, allow_pickle=False) as file:
            x, y = file["x"], file["y"]
    except _READ_ERRORS as error:
        raise InputError(
            f"Data {path!r} is neither a folder of images nor an .npz file with the arrays x and y ({error}). "
            "Write one with numpy.savez(path, x=x, y=y)."
        ) from error
    if len(x) != len(y) or x.shape[1:] != tuple(model.input_shape[1:]):
        raise InputError(
            f"Data {path!r} has x of shape {x.shape} and y of shape {y.shape}; the model takes rows of shape "
            f"{tuple(model.input_shape[1:])}. Give as many targets as inputs, raw as the model takes them."
        )
    labels = np.zeros(len(y), int)
    if has_classes and y.dtype.kind in "iu" and y.ndim == 1:
        labels = np.unique(y, return_inverse=True)[1]
    progress.say(f"{len(x)} rows of {path}")
    development, test = stratified_split(labels, TEST_SPLIT, seed)
    kept, held = stratified_split(labels[development], VALIDATION_SPLIT, seed)
    train, validation, test = ((x[at], y[at]) for at in (development[kept], development[held], test))
    return _Parts(train, validation, lambda: test)


def _test_metrics(found: CompressionResult, x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """The metric of float32 and of the best file on data that no choice has read."""
    shown = [each for each in found.candidates if each.path is not None and each.name == "float32"]
    shown += [found.best] if found.best is not None and found.best not in shown else []
    return {each.name: found.measure(LiteRTModel(each.path).predict(x), y) for each in shown}


def _write_files(job: CompressionJob, name: str, command: str) -> None:
    """The best file under a name of its own, what goes with it, and the report."""
    best = job.result.best
    if best is not None:
        with atomic_path(job.folder / "model.tflite") as temporary:
            shutil.copyfile(best.path, temporary)
        write_sidecars(job.folder / "model.tflite")
    write_report(job.folder / "report.html", _report(job, name, command))


def table(result: CompressionResult) -> Table:
    """All candidates: what counts on a device first, the host's time last."""
    columns = ("recipe", result.metric, "MACs", "flash", "gzip", "TFLM arena", "host latency", "")
    rows = [
        (
            each.name,
            "-" if each.metric is None else f"{each.metric:.4f}",
            *(_count(value) for value in (each.macs, each.size_bytes, each.gzip_bytes, each.arena_bytes)),
            "-" if each.latency_ms is None else f"{each.latency_ms:.3g} ms",
            _remark(result, each),
        )
        for each in result.candidates
    ]
    note = (
        f"{result.metric} on the validation data ({result.reference:.4f} of the float model), flash, gzip and arena in "
        "bytes; no arena where TFLite Micro does not run the file, or is not installed. Latency is one call on this "
        "host with one thread; a device differs."
    )
    return Table("What was tried", columns, rows, note)


def _count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _remark(result: CompressionResult, candidate: Candidate) -> str:
    place = "Pareto front" if candidate in result.front else ""
    if candidate is result.best:
        place = f"best for {result.objective}"
    return "; ".join(filter(None, (place, candidate.note)))


def _report(job: CompressionJob, name: str, command: str) -> Report:
    result = job.result
    best, rows = result.best, job.rows
    summary = f"No file is within the limits: {result.limits}."
    if best is not None:
        summary = f"{best.name} is the best file for {result.objective} within the limits: {result.limits}."
    return Report(
        title=f"{name}: compressed",
        summary=summary,
        headline=[] if best is None else _headline(job),
        comparison=table(result),
        curves=[_front(result)],
        details=[Table("Rows", ("part", "rows"), [(part, f"{count:,}") for part, count in rows.items()])],
        footer=f"Again with: {command}" if command else "",
    )


def _headline(job: CompressionJob) -> list[KeyNumber]:
    best = job.result.best
    plain = next((each for each in job.result.candidates if each.name == "float32" and each.path), None)

    def beside(attribute: str) -> str:
        return "" if plain is None else f"float32 {_count(getattr(plain, attribute))}"

    on_test = "" if plain is None else f"float32 {job.test[plain.name]:.4f}"
    return [
        KeyNumber(f"{job.test[best.name]:.4f}", f"{job.result.metric} on test data", on_test),
        KeyNumber(_count(best.macs), "multiply-accumulates", beside("macs")),
        KeyNumber(_count(best.size_bytes), "bytes of flash", beside("size_bytes")),
        KeyNumber(_count(best.arena_bytes), "bytes of TFLM arena", beside("arena_bytes")),
    ]


def _front(result: CompressionResult) -> Curve:
    points = [(getattr(each, OBJECTIVES[result.objective]), each.metric) for each in result.front]
    line = Line("Pareto front", [cost for cost, _ in points], [metric for _, metric in points])
    return Curve("What each step costs", AXES[result.objective], f"{result.metric} on validation data", [line])
