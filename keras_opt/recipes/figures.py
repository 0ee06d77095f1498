"""The figures of a run: how fast each side learnt, and what its files do on the test images."""

import importlib.metadata
import platform
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

import keras_opt
from keras_opt.compression.pruning.sparsity import sparsity
from keras_opt.export.interpreter import LiteRTModel
from keras_opt.export.latency import Latency
from keras_opt.export.tflite_export import TFLiteExport
from keras_opt.models.macs import macs
from keras_opt.recipes.images import Images
from keras_opt.recipes.result import Mistaken, SideResult
from keras_opt.recipes.training import accuracy, predict

WORST_MISTAKES = 12
History = dict[str, list[float]]


def cost_to_reach(target: float, history: History) -> tuple[float, float] | tuple[None, None]:
    """Wall and CPU seconds at the end of the first epoch whose validation accuracy is at least `target`."""
    for reached, seconds, cpu in zip(history["val_accuracy"], history["seconds"], history["cpu_seconds"], strict=True):
        if reached >= target:
            return seconds, cpu
    return None, None


def best_within(cpu_seconds: float, history: History) -> float | None:
    """The best validation accuracy of the epochs that ended within `cpu_seconds`; `None` if none did."""
    pairs = zip(history["val_accuracy"], history["cpu_seconds"], strict=True)
    return max((reached for reached, cpu in pairs if cpu <= cpu_seconds), default=None)


@dataclass(frozen=True)
class Side:
    """One side of the comparison before it is measured.

    Attributes:
        trained: The model as its training left it.
        shipped: The model that goes on the device: `trained`, or what pruning made of it.
        facts: Of the training: `history`, `stopped_because`, `session`, `resumed`.
        pruned: Whether `shipped` was pruned.
        export: The device file of `shipped`.
    """

    trained: keras.Model
    shipped: keras.Model
    facts: dict[str, Any]
    pruned: bool
    export: TFLiteExport

    @property
    def history(self) -> History:
        return self.facts["history"]


def side_result(
    side: Side,
    plain: Side | None,
    test: Images,
    device_outputs: np.ndarray,
    latency: Latency,
    equal_cpu_seconds: float | None,
    batch_size: int,
) -> SideResult:
    """Gather one side's figures from its models, its file and its history, beside those of the plain one."""
    history = side.history
    seconds, cpu = cost_to_reach(max(plain.history["val_accuracy"]), history) if plain else (None, None)
    keras_classes = predict(side.shipped, test, batch_size).argmax(axis=1)
    device_classes = device_outputs.argmax(axis=1)
    return SideResult(
        test_accuracy=accuracy(side.trained, test, batch_size),
        pruned_test_accuracy=float(np.mean(keras_classes == test.labels)) if side.pruned else None,
        device_test_accuracy=float(np.mean(device_classes == test.labels)),
        validation_accuracy=max(history["val_accuracy"]),
        validation_accuracy_at_equal_cpu=best_within(equal_cpu_seconds, history) if equal_cpu_seconds else None,
        seconds_to_plain_best=seconds,
        cpu_seconds_to_plain_best=cpu,
        parameters=side.shipped.count_params(),
        sparsity=sparsity(side.shipped)["total"],
        macs=macs(side.shipped),
        quantize=side.export.quantize,
        tflite_bytes=side.export.size_bytes,
        tflite_gzip_bytes=side.export.gzip_bytes,
        latency_ms=latency.median_ms,
        argmax_agreement=float(np.mean(device_classes == keras_classes)),
        epochs=len(history["loss"]),
        batch_size=batch_size,
        stopped_because=side.facts["stopped_because"],
    )


def device_outputs(export: TFLiteExport, test: Images) -> np.ndarray:
    """What the device file answers to every test image: float32 (n, classes)."""
    return LiteRTModel(export.path).predict(test.pixels)


def confusion_matrix(outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Counts by true class (row) and predicted class (column)."""
    classes = outputs.shape[1]
    return np.bincount(labels * classes + outputs.argmax(axis=1), minlength=classes**2).reshape(classes, classes)


def worst_mistakes(outputs: np.ndarray, test: Images, class_names: tuple[str, ...]) -> tuple[Mistaken, ...]:
    """The wrong answers that the device file was surest of."""
    predicted = outputs.argmax(axis=1)
    wrong = np.flatnonzero(predicted != test.labels)
    surest = wrong[np.argsort(-outputs[wrong, predicted[wrong]], kind="stable")][:WORST_MISTAKES]
    return tuple(
        Mistaken(
            pixels=test.pixels[index],
            true_class=class_names[test.labels[index]],
            predicted_class=class_names[predicted[index]],
            probability=float(np.clip(outputs[index, predicted[index]], 0, 1)),
            index=int(index),
        )
        for index in surest
    )


def versions() -> dict[str, str]:
    """What the figures were made with."""
    packages = ("keras", "tensorflow", "ai-edge-litert", "numpy")
    return {
        "python": platform.python_version(),
        "keras_opt": keras_opt.__version__,
        **{package: importlib.metadata.version(package) for package in packages},
        "machine": f"{platform.system()} {platform.machine()}",
    }
