"""Every setting of the main job in one dataclass, and its YAML file."""

import dataclasses
import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from keras_opt.core.errors import (
    InputError,
    argument_error,
    check_at_least,
    check_choice,
    check_fraction,
    check_positive,
    did_you_mean,
)
from keras_opt.core.files import write_atomic
from keras_opt.models.finetune import check_backbone

SAMPLE = "fashion-mnist-sample"
STRATEGIES = ("auto", "one", "mirrored")
QUANTIZE_KINDS = ("int8", "dynamic", "float16", "float32")
AUGMENTATIONS = ("none", "affine", "cut_mix", "affine+cut_mix")

# What may be left open, to be chosen by the number of training images.
CHOSEN_FIELDS = ("augment", "dropout", "label_smoothing")
# Where and how a run is written; everything else says what comes out of it.
_RUN_FIELDS = ("out", "overwrite", "resume")


@dataclass(frozen=True)
class Recipe:
    """What to train on, how, and what to make of it; `run` carries it out.

    The same recipe on the same machine, versions and threads gives bit-equal weights.

    Args:
        data: A folder with one sub-folder of images a class, or `"fashion-mnist-sample"`, the embedded one.
        image_size: Int of at least 4, the height and width in pixels that images are resized to.
        color_mode: `"rgb"` or `"grayscale"`.
        validation_split: Fraction in (0, 1) of the training images that every decision reads.
        test: A folder of test images with the same classes; `None` takes `test_split` from `data`.
        test_split: Fraction in (0, 1) of `data`, set aside first and read once, at the end.
        backbone: A network of keras.applications to start from, such as `"MobileNetV2"`: its head is trained first,
            then the rest from the top down. `None` trains a convolutional network from scratch.
        weights: Those of the backbone: `"imagenet"`, a file, or `None` for random ones, with which all of it trains
            from the begin.
        epochs: Int of at least 1, the length of the one-cycle; the plain baseline may take three times as many.
        batch_size: Int of at least 1.
        max_learning_rate: Float above 0, the peak of `OneCycle`.
        dropout: Fraction in [0, 1) before the classifier. `None`, as for the next two, is chosen by the number of
            training images and their size (`keras_opt.recipes.regularization` says how and why); the recipe of the
            result has what was chosen.
        weight_decay: Float of at least 0: AdamW shrinks the kernels, not norms and biases, by it times the rate. Of the
            optimised run; 0 is Adam.
        width: Float above 0 by which the filters of the network are multiplied; of no effect with a backbone.
        depth: Int of at least 1, the stages of the network, each half as high and wide as the one before; `None` takes
            as many as leave some 7 pixels. Of no effect with a backbone.
        label_smoothing: Fraction in [0, 1), of the optimised run.
        augment: What the optimised run does to its training images: `"affine"` turns and shifts them a little and flips
            half of them left to right, `"cut_mix"` pastes parts of others into them, `"affine+cut_mix"` does both,
            `"none"` neither.
        augment_strength: Float of at least 0 by which turns and shifts are multiplied; CutMix takes it, up to 1, as its
            `factor`. 0 augments nothing.
        class_weight: `"balanced"` weighs every class alike; `None` every image.
        patience: Int of at least 1, epochs without a better validation accuracy after which the optimised run stops.
            `None` takes three fifths of `epochs`: in a one-cycle most of the accuracy comes at the end.
        target_accuracy: Fraction in [0, 1] of validation accuracy at which the optimised run stops.
        sparsity: Fraction in [0, 1) of the weights of each kernel to prune, but not of depthwise ones, which are few
            and matter much; 0 skips pruning.
        pruning_epochs: Int of at least 1, the epochs of pruning and fine-tuning.
        max_accuracy_drop: Fraction in [0, 1] of validation accuracy that pruning may cost, else it is taken back.
        quantize: `"int8"`, `"dynamic"`, `"float16"` or `"float32"`: the kind of the device file.
        baseline: Whether to train the plain network beside the optimised one, to know what was gained.
        mixed_precision: Whether the optimised run computes in float16 (it helps on GPUs only).
        device: A device such as `"cpu"` or `"gpu:0"`; `None` lets TensorFlow choose.
        strategy: `"mirrored"` trains on all GPUs at once. Each takes its share of every batch, of `batch_size` images
            as ever, and the model is that of one GPU up to rounding; but dropout draws for each share by itself, so
            with it the model is as of another seed. `"one"` is the first GPU, else the CPU; `"auto"` is `"mirrored"`
            where there are several GPUs, else `"one"`. `None` takes no strategy: TensorFlow chooses one device. Never
            beside `device`; `keras_opt.distribute.strategy` says more.
        seed: Int of at least 0.
        out: The output folder; `None` takes the first free of `runs/NAME`, `runs/NAME-2`, ...
        overwrite: Whether a run that is in `out` is replaced, once the new one is whole.
        resume: Whether an interrupted or killed run of `out` goes on from its last backup.

    Raises:
        ValueError: A setting is out of its range.
    """

    data: str = SAMPLE
    image_size: int = 224
    color_mode: str = "rgb"
    validation_split: float = 0.2
    test: str | None = None
    test_split: float = 0.1
    backbone: str | None = None
    weights: str | None = "imagenet"
    epochs: int = 30
    batch_size: int = 32
    max_learning_rate: float = 0.004
    dropout: float | None = None
    weight_decay: float = 0.0
    width: float = 1.0
    depth: int | None = None
    label_smoothing: float | None = None
    augment: str | None = None
    augment_strength: float = 1.0
    class_weight: str | None = None
    patience: int | None = None
    target_accuracy: float = 0.995
    sparsity: float = 0.5
    pruning_epochs: int = 6
    max_accuracy_drop: float = 0.01
    quantize: str = "int8"
    baseline: bool = True
    mixed_precision: bool = False
    device: str | None = None
    strategy: str | None = None
    seed: int = 0
    out: str | None = None
    overwrite: bool = False
    resume: bool = False

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.generic):  # a YAML file holds Python's own numbers only
                object.__setattr__(self, field.name, value.item())
        for name in ("data", "test", "weights", "device", "out"):
            self._check_text(name, none_allowed=name != "data")
        check_at_least("Recipe", "image_size", self.image_size, 4)
        for name in ("epochs", "batch_size", "pruning_epochs"):
            check_at_least("Recipe", name, getattr(self, name), 1)
        if self.patience is None:
            object.__setattr__(self, "patience", -(-3 * self.epochs // 5))
        check_at_least("Recipe", "patience", self.patience, 1)
        check_at_least("Recipe", "seed", self.seed, 0)
        for name in ("max_learning_rate", "width"):
            check_positive("Recipe", name, getattr(self, name))
        for name in ("weight_decay", "augment_strength"):
            check_at_least("Recipe", name, getattr(self, name), 0, whole=False)
        if self.depth is not None:
            check_at_least("Recipe", "depth", self.depth, 1)
            if self.backbone is None and self.depth > most_stages(self.image_size):
                cure = "Take fewer, or larger images."
                must_be = f"at most {most_stages(self.image_size)} for images of {self.image_size} pixels"
                raise argument_error("Recipe", "depth", self.depth, must_be, cure)
        for name in ("dropout", "label_smoothing", "sparsity"):
            if getattr(self, name) is not None or name == "sparsity":
                check_fraction("Recipe", name, getattr(self, name))
        for name in ("target_accuracy", "max_accuracy_drop"):
            check_fraction("Recipe", name, getattr(self, name), one_allowed=True)
        for name in ("validation_split", "test_split"):
            check_fraction("Recipe", name, getattr(self, name))
            if getattr(self, name) == 0:
                raise argument_error("Recipe", name, 0, "above 0", "Decisions and figures need images of their own.")
        if self.backbone is not None:
            check_backbone("Recipe", "backbone", self.backbone)
        check_choice("Recipe", "color_mode", self.color_mode, ("rgb", "grayscale"))
        check_choice("Recipe", "class_weight", self.class_weight, (None, "balanced"))
        check_choice("Recipe", "quantize", self.quantize, QUANTIZE_KINDS)
        check_choice("Recipe", "augment", self.augment, (None, *AUGMENTATIONS))
        self._check_strategy()
        for name in ("baseline", "mixed_precision", "overwrite", "resume"):
            check_choice("Recipe", name, getattr(self, name), (True, False))
        if self.overwrite and self.resume:
            cure = "Resume goes on with the old run, overwrite starts a new one: choose one."
            raise argument_error("Recipe", "overwrite", True, "False beside resume=True", cure)

    def _check_strategy(self) -> None:
        if self.strategy == "multiworker":
            raise argument_error(
                "Recipe", "strategy", self.strategy, "None, 'auto', 'one' or 'mirrored'",
                "A run is of one process; for several, give `keras-opt launch` a script that makes its model in the "
                "scope of keras_opt.distribute.strategy().",
            )  # fmt: skip
        check_choice("Recipe", "strategy", self.strategy, (None, *STRATEGIES))
        if self.strategy is not None and self.device is not None:
            cure = "The strategy chooses the devices: leave one of the two out."
            raise argument_error("Recipe", "device", self.device, f"None beside strategy={self.strategy!r}", cure)

    def _check_text(self, name: str, *, none_allowed: bool) -> None:
        """Keep a path as text, which a YAML file can hold."""
        value = getattr(self, name)
        if isinstance(value, os.PathLike):
            object.__setattr__(self, name, os.fspath(value))
        elif not isinstance(value, str) and not (none_allowed and value is None):
            raise argument_error("Recipe", name, value, "a text", "Put it in quotes.")

    @classmethod
    def demo(cls, **changes: Any) -> "Recipe":
        """The recipe of `keras-opt demo`: the embedded slice of Fashion-MNIST on two cores in minutes."""
        settings = {
            "data": SAMPLE,
            "image_size": 28,
            "color_mode": "grayscale",
            "validation_split": 0.1,
            "epochs": 20,
            "batch_size": 128,
            "max_learning_rate": 0.01,
            "dropout": 0.5,
            "label_smoothing": 0.1,
            "augment": "none",
        }
        return cls(**{**settings, **changes})

    @property
    def is_pretrained(self) -> bool:
        """Whether the network has weights to be kept."""
        return self.backbone is not None and self.weights is not None

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the result: every field but where and how the run is written."""
        return {name: value for name, value in dataclasses.asdict(self).items() if name not in _RUN_FIELDS}

    def save(self, path: str | os.PathLike) -> None:
        """Write the settings to a YAML file."""
        write_atomic(path, yaml.safe_dump(self.settings, sort_keys=False))

    @classmethod
    def load(cls, path: str | os.PathLike, **changes: Any) -> "Recipe":
        """Read a YAML file of settings; `changes` go before what stands there.

        Raises:
            ValueError: The file is missing or no YAML mapping, or a key is unknown; the message names the nearest one.
        """
        return cls(**{**read_settings(path), **changes})


def most_stages(pixels: int) -> int:
    """How many times a 3x3 convolution and a 2x2 pooling fit into so many pixels."""
    stages = 0
    while (pixels := (pixels - 2) // 2) >= 1:
        stages += 1
    return stages


def read_settings(path: str | os.PathLike) -> dict[str, Any]:
    """The settings in a recipe file, keys checked."""
    try:
        settings = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(
            f"Recipe file {str(path)!r} cannot be read ({str(error).splitlines()[0]}). "
            "Give a YAML file such as the recipe.yaml of a finished run."
        ) from error
    if not isinstance(settings, dict):
        raise InputError(f"Recipe file {str(path)!r} holds no settings. Write one `name: value` a line.")
    known = [field.name for field in fields(Recipe)]
    for name in settings:
        if name not in known:
            raise InputError(f"Recipe file {str(path)!r} has an unknown key {name!r}. {did_you_mean(name, known)}")
    return settings
