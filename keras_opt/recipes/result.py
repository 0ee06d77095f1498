"""What a run found out, as plain data."""

import dataclasses
import json
import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_opt.core.files import write_atomic
from keras_opt.data.image_files import SkippedFile
from keras_opt.recipes.recipe import Recipe


@dataclass(frozen=True)
class SideResult:
    """One side of the comparison: the plain run or the optimised one.

    Accuracies are fractions of the test images, except `validation_accuracy` (the best epoch's) and
    `validation_accuracy_at_equal_cpu` (the best that the side had reached when the faster side was done). Times to the
    plain run's best validation accuracy include building and tracing; `None` where it was never reached. `sparsity`,
    `parameters` and `macs` are those of the shipped model, `latency_ms` is the median of one call on this host with one
    thread, and `argmax_agreement` is how often the device file names the class that the Keras model names.
    """

    test_accuracy: float
    pruned_test_accuracy: float | None
    device_test_accuracy: float
    validation_accuracy: float
    validation_accuracy_at_equal_cpu: float | None
    seconds_to_plain_best: float | None
    cpu_seconds_to_plain_best: float | None
    parameters: int
    sparsity: float
    macs: int
    quantize: str
    tflite_bytes: int
    tflite_gzip_bytes: int
    latency_ms: float
    argmax_agreement: float
    epochs: int
    batch_size: int
    stopped_because: str


@dataclass(frozen=True)
class Mistaken:
    """A test image that the device file got wrong."""

    pixels: np.ndarray
    true_class: str
    predicted_class: str
    probability: float
    index: int


@dataclass(frozen=True)
class Result:
    """All that a run found out; the report, the card and the table are drawn from it alone.

    Attributes:
        recipe: The settings.
        folder: Where everything lies.
        plain: The plain run, `None` without a baseline.
        optimised: The optimised run.
        class_names: In the order of the outputs.
        counts: Images of each class by part: `{"training": {...}, "validation": {...}, "test": {...}}`.
        source: Where the images come from.
        histories: By training (`"plain"`, `"optimised"`, `"pruned"`): metric to one value an epoch.
        gradients: `"step"` and `"grad_norm"` of every update of the optimised training.
        pruning: One sentence on what pruning did.
        confusion: Test images by true class (row) and the class that the device file gave (column).
        mistakes: The worst mistakes of the device file, the most confident first.
        skipped: The files of the image folders that were left out, each with the reason.
        replicas: Into how many shares each batch of the trainings was split.
        equal_cpu_seconds: The CPU seconds at which `validation_accuracy_at_equal_cpu` was read.
        one_session: Whether both sides were timed without an interruption, between them or within.
        versions: Package to version, and the machine.
    """

    recipe: Recipe
    folder: Path
    plain: SideResult | None
    optimised: SideResult
    class_names: tuple[str, ...]
    counts: dict[str, dict[str, int]]
    source: str
    histories: dict[str, dict[str, list[float]]]
    gradients: dict[str, list[float]]
    pruning: str
    confusion: np.ndarray
    mistakes: tuple[Mistaken, ...]
    skipped: tuple[SkippedFile, ...]
    replicas: int
    equal_cpu_seconds: float | None
    one_session: bool
    versions: dict[str, str]

    @property
    def command(self) -> str:
        """The command line that makes the same model again."""
        recipe = self.recipe
        if recipe.settings == Recipe.demo(seed=recipe.seed).settings:
            return f"keras-opt demo --seed {recipe.seed}"
        return shlex.join(["keras-opt", "train", "--recipe", str(self.folder / "recipe.yaml")])

    def save(self, path: str | os.PathLike) -> None:
        """Write the figures as JSON: the objects `plain` and `optimised`, and what both share."""
        facts: dict[str, Any] = {
            "plain": dataclasses.asdict(self.plain) if self.plain else None,
            "optimised": dataclasses.asdict(self.optimised),
            "replicas": self.replicas,
            "equal_cpu_seconds": self.equal_cpu_seconds,
            "one_session": self.one_session,
            "pruning": self.pruning,
            "class_names": self.class_names,
            "counts": self.counts,
            "confusion": self.confusion.tolist(),
            "skipped": [{"path": str(file.path), "reason": file.reason} for file in self.skipped],
            "settings": self.recipe.settings,
            "versions": self.versions,
            "command": self.command,
        }
        write_atomic(path, json.dumps(facts, indent=2))
