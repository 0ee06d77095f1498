"""The files of a finished run for people to read: report, model card, history, labels, scripts."""

import csv
import io
from collections.abc import Callable
from pathlib import Path

from keras_opt.core.files import write_atomic
from keras_opt.export.sidecars import write_sidecars
from keras_opt.recipes.recipe import SAMPLE, Recipe
from keras_opt.recipes.result import Result, SideResult
from keras_opt.recipes.training import PLAIN_EPOCHS_FACTOR, PLAIN_LEARNING_RATE, PLAIN_PATIENCE
from keras_opt.report.inputs import (
    Bar,
    Chart,
    ConfusionMatrix,
    Curve,
    KeyNumber,
    Line,
    Mistake,
    Report,
    Table,
)
from keras_opt.report.model_card import ModelCard, write_model_card
from keras_opt.report.page import write_report

_TITLES = {"plain": "plain Keras", "optimised": "with keras_opt", "pruned": "pruning"}
_SECONDS_TO_PLAIN_BEST = ("seconds_to_plain_best", "cpu_seconds_to_plain_best")


def write_documents(result: Result, folder: Path) -> None:
    """Write everything but the models into `folder`."""
    write_atomic(folder / "history.csv", _history_csv(result))
    write_sidecars(folder / "model.tflite")
    write_model_card(folder / "model_card.md", _model_card(result))
    write_report(folder / "report.html", _report(result))
    result.save(folder / "result.json")


def comparison(result: Result) -> Table:
    """The table that a run ends with: plain beside optimised."""
    sides = [side for side in (result.plain, result.optimised) if side]
    kinds = [side.quantize for side in sides]
    rows = [
        ("Test accuracy, Keras model", _percent, "test_accuracy"),
        ("Test accuracy after pruning", _percent, "pruned_test_accuracy"),
        (f"Test accuracy, device file ({' | '.join(kinds)})", _percent, "device_test_accuracy"),
        ("Seconds to plain's best validation accuracy", _seconds, "seconds_to_plain_best"),
        ("CPU seconds to plain's best validation accuracy", _seconds, "cpu_seconds_to_plain_best"),
        (f"Validation accuracy at {_equal(result)} CPU seconds", _percent, "validation_accuracy_at_equal_cpu"),
        ("Best validation accuracy", _percent, "validation_accuracy"),
        ("Epochs", str, "epochs"),
        ("Parameters", "{:,}".format, "parameters"),
        ("Sparsity of the kernels", _percent, "sparsity"),
        ("Multiply-accumulates", "{:,}".format, "macs"),
        ("Device file, bytes", "{:,}".format, "tflite_bytes"),
        ("Device file, gzip bytes", "{:,}".format, "tflite_gzip_bytes"),
        ("Latency on this host, 1 thread", _milliseconds, "latency_ms"),
        ("Device file agrees with Keras model", _percent, "argmax_agreement"),
    ]
    cells = [(label, *(_cell(show, side, name, result.plain) for side in sides)) for label, show, name in rows]
    columns = ("", *([_TITLES["plain"]] if result.plain else []), _TITLES["optimised"])
    note = f"Decisions read the validation images, accuracies the test images, once. Pruning: {result.pruning}."
    if result.plain:
        note += (
            f" Plain: Adam at {PLAIN_LEARNING_RATE:g}, up to {PLAIN_EPOCHS_FACTOR} times the epochs, until "
            f"{PLAIN_PATIENCE} of them bring no better validation accuracy."
        )
    if result.replicas > 1:
        note += f" Each batch was trained on {result.replicas} replicas, a share on each."
    if not result.one_session:
        note += " The run was interrupted: the seconds of the two trainings were taken at different times."
    title = f"{_name(result)}: what was {'gained' if result.plain else 'trained'}"
    return Table(title, columns, [row for row in cells if set(row[1:]) != {"-"}], note)


def _cell(show: Callable, side: SideResult, name: str, plain: SideResult | None) -> str:
    value = getattr(side, name)
    if value is None:
        return "not reached" if plain and name in _SECONDS_TO_PLAIN_BEST else "-"
    return show(value)


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2f} %"


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s"


def _milliseconds(milliseconds: float) -> str:
    return f"{milliseconds:.3f} ms"


def _equal(result: Result) -> str:
    return f"{result.equal_cpu_seconds:.0f}" if result.equal_cpu_seconds else "equal"


def _name(result: Result) -> str:
    return result.folder.name


def _history_csv(result: Result) -> str:
    """One row an epoch of every training, with the union of their columns."""
    columns = list(dict.fromkeys(name for history in result.histories.values() for name in history))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["training", "epoch", *columns])
    for training, history in result.histories.items():
        for epoch in range(len(history["loss"])):
            cells = (history[name][epoch] if name in history else "" for name in columns)
            writer.writerow([training, epoch + 1, *cells])
    return text.getvalue()


def _report(result: Result) -> Report:
    return Report(
        title=f"{_name(result)}: an image classifier for the device",
        summary=_summary(result),
        headline=_headline(result),
        comparison=comparison(result),
        skipped=_skipped(result),
        charts=_charts(result),
        curves=_curves(result),
        confusion=ConfusionMatrix(result.class_names, result.confusion),
        mistakes=[
            Mistake(
                wrong.pixels, wrong.true_class, wrong.predicted_class, wrong.probability, f"test image {wrong.index}"
            )
            for wrong in result.mistakes
        ],
        details=[_counts(result), _settings(result), _versions(result), _files(result)],
        footer=f"Made by keras_opt {result.versions['keras_opt']}. Again with: {result.command}",
    )


def _summary(result: Result) -> str:
    device = result.optimised
    return (
        f"{len(result.class_names)} classes, {result.source}. The {device.quantize} device file is right on "
        f"{_percent(device.device_test_accuracy)} of {sum(result.counts['test'].values()):,} test images."
    )


def _headline(result: Result) -> list[KeyNumber]:
    plain, ours = result.plain, result.optimised
    numbers = [
        KeyNumber(
            _percent(ours.device_test_accuracy),
            "device test accuracy",
            f"plain Keras {_percent(plain.test_accuracy)}" if plain else "",
        ),
        KeyNumber(
            f"{ours.tflite_bytes / 1000:.0f} kB",
            f"{ours.quantize} file",
            _size_note(plain, ours) if plain else "",
        ),
        KeyNumber(
            _milliseconds(ours.latency_ms),
            "latency, 1 thread",
            f"plain {_milliseconds(plain.latency_ms)}, on this host" if plain else "on this host",
        ),
    ]
    return [*numbers, _speed(plain, ours)] if plain else numbers


def _size_note(plain: SideResult, ours: SideResult) -> str:
    times = plain.tflite_bytes / ours.tflite_bytes
    return f"{times:.1f} times smaller than plain" if times > 1 else f"plain {plain.tflite_bytes / 1000:.0f} kB"


def _speed(plain: SideResult, ours: SideResult) -> KeyNumber:
    """How long the optimised run took to plain's best validation accuracy, or that it never got there."""
    if ours.cpu_seconds_to_plain_best is None:
        note = f"plain's {_percent(plain.validation_accuracy)} was not reached"
        return KeyNumber(_percent(ours.validation_accuracy), "best validation accuracy", note)
    share = plain.cpu_seconds_to_plain_best / ours.cpu_seconds_to_plain_best
    note = f"{_seconds(ours.cpu_seconds_to_plain_best)} of CPU, plain {_seconds(plain.cpu_seconds_to_plain_best)}"
    if share < 1:
        return KeyNumber(f"{1 / share:.1f}×", "slower to plain's best", note)  # noqa: RUF001
    return KeyNumber(f"{share:.1f}×", "faster to plain's best", note)  # noqa: RUF001


def _skipped(result: Result) -> Table | None:
    if not result.skipped:
        return None
    rows = [(str(file.path), file.reason) for file in result.skipped]
    return Table("Files that were left out", ("file", "why"), rows)


def _charts(result: Result) -> list[Chart]:
    sides = [(_TITLES["plain"], result.plain), (_TITLES["optimised"], result.optimised)]
    sides = [(f"{title}, {side.quantize}", side) for title, side in sides if side]

    def chart(title: str, name: str, show: Callable, note: str) -> Chart:
        bars = [
            Bar(label, getattr(side, name), show(getattr(side, name)), highlight=side is result.optimised)
            for label, side in sides
        ]
        return Chart(title, bars, note)

    return [
        chart("Device file, bytes", "tflite_bytes", "{:,}".format, "smaller is better"),
        chart("Latency on this host", "latency_ms", _milliseconds, "smaller is better; a device differs"),
        chart("Test accuracy of the device file", "device_test_accuracy", _percent, "larger is better"),
    ]


def _curves(result: Result) -> list[Curve]:
    def lines(*metrics: str) -> list[Line]:
        return [
            Line(
                f"{_TITLES[training]}, {'validation' if metric.startswith('val_') else 'training'}",
                range(1, len(history[metric]) + 1),
                history[metric],
                series=series,
                dashed=not metric.startswith("val_"),
            )
            for series, (training, history) in enumerate(result.histories.items())
            for metric in metrics
            if metric in history
        ]

    cost = [
        Line(_TITLES[training], history["cpu_seconds"], history["val_accuracy"], series=series)
        for series, (training, history) in enumerate(result.histories.items())
        if training != "pruned"
    ]
    rates = [
        Line(_TITLES[training], range(1, len(history["loss"]) + 1), history["learning_rate"], series=series)
        for series, (training, history) in enumerate(result.histories.items())
    ]
    norms = Line(_TITLES["optimised"], result.gradients["step"], result.gradients["grad_norm"], series=1)
    smoothing = result.recipe.label_smoothing
    loss_note = f"The optimised loss holds label smoothing of {smoothing:g}: compare accuracies." if smoothing else ""
    is_augmented = result.recipe.augment != "none"
    training_note = "The optimised training figures are those of augmented images." if is_augmented else ""
    return [
        Curve("Validation accuracy by CPU time", "CPU seconds", "accuracy", cost),
        Curve("Accuracy", "epoch", "accuracy", lines("accuracy", "val_accuracy"), note=training_note),
        Curve("Loss", "epoch", "loss", lines("loss", "val_loss"), note=f"{training_note} {loss_note}".strip()),
        Curve("Learning rate", "epoch", "learning rate", rates),
        Curve("Gradient norm", "update", "L2 norm", [norms], log_y=True),
    ]


def _counts(result: Result) -> Table:
    rows = [(name, *(str(part[name]) for part in result.counts.values())) for name in result.class_names]
    return Table("Images by class", ("class", *result.counts), rows)


def _settings(result: Result) -> Table:
    return Table(
        "Settings", ("setting", "value"), [(name, str(value)) for name, value in result.recipe.settings.items()]
    )


def _versions(result: Result) -> Table:
    return Table("Versions", ("package", "version"), list(result.versions.items()))


def _files(result: Result) -> Table:
    kind = result.recipe.quantize
    rows = [
        ("model.tflite", f"the {kind} device file; takes raw pixels, carries its labels"),
        ("model.keras", "the same model for Keras; takes raw pixels, opens without keras_opt"),
        *([("plain.tflite", "the plain network as float32, for comparison")] if result.plain else []),
        ("predict.py", "runs model.tflite on image files; needs ai-edge-litert, numpy, pillow"),
        ("labels.txt", "class names in the order of the outputs"),
        ("preprocess.json", "shape, type, scale and zero point of the device file's input and output"),
        ("report.html", "everything to look at, in one file"),
        ("model_card.md", "what the model is and is not for"),
        ("history.csv", "every metric of every epoch"),
        ("result.json", "every figure"),
        ("recipe.yaml", "every setting; makes the same weights again"),
    ]
    return Table("Files", ("file", "what it is"), rows)


def _model_card(result: Result) -> ModelCard:
    recipe, device = result.recipe, result.optimised
    sizes = {part: sum(counts.values()) for part, counts in result.counts.items()}
    tested = [name for name in result.class_names if result.counts["test"][name]]
    worst = min(tested, key=lambda name: _recall(result, name))
    test_source = f"the test folder {Path(recipe.test).resolve().name!r}" if recipe.test else "the same source"
    return ModelCard(
        name=_name(result),
        purpose=f"Tells {len(result.class_names)} classes of images apart: {', '.join(result.class_names)}.",
        intended_use=f"Single images of one of these classes, taken as the training images were; "
        f"resized to {recipe.image_size}x{recipe.image_size} pixels, {recipe.color_mode}.",
        limits=[
            "It names one of its classes for any image, also for one that shows none of them.",
            f"It finds fewest of class {worst!r}: {_percent(_recall(result, worst))} of its test images.",
            f"Its figures come from {sizes['test']:,} test images of {test_source}; others may differ.",
        ],
        data_source=result.source,
        data_licence="MIT" if recipe.data == SAMPLE else "that of the folder's images",
        split=", ".join(f"{size:,} {part}" for part, size in sizes.items())
        + f"; {_drawn(recipe)} by class with seed {recipe.seed}; "
        "the test images were read once, after the last decision",
        class_counts=_counts(result),
        metrics=comparison(result),
        command=result.command,
        seed=recipe.seed,
        settings=_settings(result),
        versions=_versions(result),
        files=_files(result),
        licence=f"That of its training images and of whoever trained it; quantized as {device.quantize} by keras_opt "
        "(Apache-2.0).",
    )


def _drawn(recipe: Recipe) -> str:
    if recipe.test:
        return f"the test images are the folder {Path(recipe.test).resolve().name!r}, the others were drawn"
    if recipe.data == SAMPLE:
        return "the test images are from Fashion-MNIST's test set, the others were drawn"
    return "drawn"


def _recall(result: Result, name: str) -> float:
    row = result.confusion[result.class_names.index(name)]
    return row[result.class_names.index(name)] / row.sum()
