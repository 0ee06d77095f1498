"""One row for every public name of keras_opt: how to use it, and what must then have happened.

`InFit` rows are swept through every mode of `fit`; `Call` rows are called once. A public name without a row fails
`test_public_names.py`.
"""

import contextlib
import copy
import functools
import io
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
from image_folders import write_images

import keras_opt
from keras_opt import (
    callbacks,
    compression,
    data,
    distribute,
    ensemble,
    export,
    layers,
    models,
    recipes,
    report,
    schedules,
    training,
    tuning,
)
from keras_opt.core.optional import require
from keras_opt.core.process_strategy import is_ours
from keras_opt.core.progress import Progress
from keras_opt.distribute import keras_repairs

RNG = np.random.default_rng(0)
X = RNG.normal(size=(44, 5)).astype("float32")
Y = RNG.normal(size=(44, 2)).astype("float32")
BATCH_SIZE = 4  # eleven updates an epoch: the last execution of eight steps is a ragged one
EPOCHS = 3


@dataclass
class Fitted:
    """A finished fit and what was used in it."""

    used: Any
    model: keras.Model
    history: keras.callbacks.History


@dataclass(frozen=True)
class InFit:
    """A callback, a criterion or a schedule.

    Args:
        make: The public class.
        arguments: What it is made with.
        effect: Whether a fit shows that it was there.
        use: Where it goes: the callbacks of the fit; a schedule goes to `learning_rate`.
    """

    make: Callable[..., Any]
    arguments: dict[str, Any]
    effect: Callable[[Fitted], bool]
    use: Callable[[Any], list[keras.callbacks.Callback]] = field(default=lambda made: [made])
    learning_rate: bool = False


@dataclass(frozen=True)
class Call:
    """Anything else: a tiny call in a folder of its own; says whether it had its effect."""

    effect: Callable[[Path], bool]


def fit(row: InFit, made: Any, model: keras.Model | None = None, **settings: Any) -> Fitted:
    """A fit with what a row describes, on a fresh model unless one is given."""
    if model is None:
        model = keras.Sequential(
            [keras.Input((5,)), keras.layers.Dense(8, activation="tanh", name="body"), keras.layers.Dense(2)]
        )
    rate = made if row.learning_rate else 0.01
    model.compile(keras.optimizers.SGD(rate, momentum=0.9), "mse", **settings)
    used = [] if row.learning_rate else row.use(made)
    history = model.fit(X, Y, batch_size=BATCH_SIZE, epochs=EPOCHS, shuffle=False, verbose=0, callbacks=used)
    return Fitted(made, model, history)


def stopped_early(fitted: Fitted) -> bool:
    return len(fitted.history.epoch) < EPOCHS


def half_is_pruned(fitted: Fitted) -> bool:
    return compression.sparsity(fitted.model)["total"] == 0.5


def teacher_and_student() -> tuple[keras.Model, keras.Model]:
    return tuple(models.mlp([units], (5,), 3) for units in (16, 4))


def distillation_moves_the_student() -> bool:
    teacher, student = teacher_and_student()
    before = student.predict(X, verbose=0)
    model = compression.distill(student, teacher, student_loss_weight=0.0)
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(X, np.zeros(len(X)), verbose=0)
    return bool(np.any(student.predict(X, verbose=0) != before))


def within_a_limit(folder: Path, max_flash_bytes: int | None = None) -> compression.CompressionResult:
    """A search of two files without a training."""
    _, model = teacher_and_student()
    keras.utils.set_random_seed(0)
    recipes = [compression.CompressionRecipe(kind) for kind in ("float32", "int8")]
    settings = {"folder": folder / "search", "recipes": recipes, "max_drop": 1.0, "verbose": 0}
    model.set_weights([np.ones_like(weight) for weight in model.get_weights()])
    data = (X, np.arange(len(X)) % 3)
    return compression.compress(model, data, data, max_flash_bytes=max_flash_bytes, **settings)


def a_limit_excludes_the_larger_file(folder: Path) -> bool:
    small, large = sorted(within_a_limit(folder).candidates, key=lambda each: each.size_bytes)
    return within_a_limit(folder, large.size_bytes - 1).best.name == small.name


def answers_stand_beside_the_labels() -> bool:
    teacher, _ = teacher_and_student()
    x, targets = next(iter(compression.cache_teacher(teacher, X, np.arange(len(X)), verbose=0)))
    return bool(np.allclose(targets["teacher"], teacher(x), atol=1e-5))


def cycle_has_ended(fitted: Fitted) -> bool:
    return float(fitted.model.optimizer.learning_rate) < 1e-3 * fitted.used.max_learning_rate


def rate_is(formula: Callable[[int], float]) -> Callable[[Fitted], bool]:
    """Whether the rate after the fit is that of a closed form at the optimizer's step."""

    def effect(fitted: Fitted) -> bool:
        optimizer = getattr(fitted.model.optimizer, "inner_optimizer", fitted.model.optimizer)
        step = int(optimizer.iterations)
        return 20 < step < 40 and np.isclose(float(optimizer.learning_rate), formula(step), rtol=1e-5)

    return effect


def norms_are_logged(fitted: Fitted) -> bool:
    norms = fitted.history.history["grad_norm"]
    return len(norms) == EPOCHS and 0 < min(norms) < 1e3 and len(fitted.used.series()["step"]) == EPOCHS * 11


def three_updates_an_epoch(fitted: Fitted) -> bool:
    return int(fitted.model.optimizer.iterations) == 3 * EPOCHS


def ends_where_it_started(fitted: Fitted) -> bool:
    """The averages hardly moved from the first weights, so they are worse than those of the first epoch."""
    return fitted.model.evaluate(X, Y, verbose=0) > fitted.history.history["loss"][0]


def thrown_far_off(fitted: Fitted) -> bool:
    return fitted.history.history["loss"][-1] > 3  # 1.1 without it


def hardly_moved(fitted: Fitted) -> bool:
    logs = fitted.history.history
    return logs["clipped_fraction"] == [1.0] * EPOCHS and np.ptp(logs["loss"]) < 1e-3


def sums_repeated_ids(folder: Path) -> bool:
    """Adam on an embedding ends elsewhere than without it."""
    ends = []
    for used in ([], [callbacks.SparseGradientFix()]):
        keras.utils.set_random_seed(0)
        layers = [keras.Input((5,), dtype="int32"), keras.layers.Embedding(3, 2), keras.layers.Flatten()]
        model = keras.Sequential([*layers, keras.layers.Dense(2)])
        model.compile(keras.optimizers.Adam(0.01), "mse")
        model.fit(np.arange(220).reshape(44, 5) % 3, Y, shuffle=False, verbose=0, callbacks=used)
        ends.append(model.get_weights()[0])
    return np.abs(ends[0] - ends[1]).max() > 1e-4


def finds_a_rate(folder: Path) -> bool:
    """A rate at which SGD solves a linear model of five inputs, whose curvature is about 1; the weights stay."""
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(2)])
    model.compile("sgd", "mse")
    before = model.get_weights()[0]
    found = callbacks.find_learning_rate(model, X, X[:, :2], batch_size=22, verbose=0)
    return 1e-2 < found.suggestion < 1 and np.array_equal(model.get_weights()[0], before)


def goes_on_after_a_crash(folder: Path) -> bool:
    """A training that an exception ends in its third epoch is resumed there."""

    def crash(epoch, logs):
        if epoch == 2:
            raise RuntimeError

    epochs = []
    for use in (crash, lambda epoch, logs: epochs.append(epoch)):
        model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(2)])
        model.compile("sgd", "mse")
        used = [callbacks.BackupAndRestore(folder, verbose=0), keras.callbacks.LambdaCallback(on_epoch_end=use)]
        with contextlib.suppress(RuntimeError):
            model.fit(X, Y, epochs=4, verbose=0, callbacks=used)
    return epochs == [2, 3]


class RisingValidation(keras.callbacks.Callback):
    """Logs a validation loss that rises from epoch to epoch."""

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        logs["val_loss"] = 1e3 * (1 + epoch)


def criterion(make: Callable[..., Any], **arguments: Any) -> InFit:
    """A row for a criterion of early stopping, which stops the fit."""
    use = lambda made: [RisingValidation(), callbacks.EarlyStopping(made)]  # noqa: E731
    return InFit(make, arguments, stopped_early, use)


CALLBACKS = {
    "BackupAndRestore": Call(goes_on_after_a_crash),
    "EarlyStopping": InFit(callbacks.EarlyStopping, {"monitor": "loss", "min_delta": 1e9}, stopped_early),
    "Plateau": criterion(callbacks.Plateau, monitor="loss", patience=0, min_delta=1e9),
    "Target": criterion(callbacks.Target, monitor="loss", value=1e9),
    "Divergence": criterion(callbacks.Divergence, monitor="loss", above=1e-9),
    "OverfitGap": criterion(callbacks.OverfitGap, train="loss", validation="val_loss", above=1.0),
    "TimeBudget": criterion(callbacks.TimeBudget, max_seconds=1e-3),
    "GeneralizationLoss": criterion(callbacks.GeneralizationLoss, alpha=5),
    "ProgressQuotient": criterion(callbacks.ProgressQuotient, alpha=0.5, strip=1),
    "SuccessiveIncreases": criterion(callbacks.SuccessiveIncreases, count=1, strip=1),
    "suggest_patience": Call(
        lambda folder: callbacks.suggest_patience({"val_loss": [3.0, 2.0, 2.5, 1.0, 1.0]}).suggestion == 2
    ),
    "find_learning_rate": Call(finds_a_rate),
    "GradientAccumulation": InFit(
        callbacks.GradientAccumulation, {"gradient_accumulation_steps": 4}, three_updates_an_epoch
    ),
    "GradientClipping": InFit(callbacks.GradientClipping, {"clipvalue": 1e-6}, hardly_moved),
    "GradientMonitor": InFit(callbacks.GradientMonitor, {}, norms_are_logged),
    "LearningRateMonitor": InFit(
        callbacks.LearningRateMonitor,
        {},
        lambda fitted: np.allclose(fitted.history.history["learning_rate"], [0.01] * EPOCHS),
    ),
    "ReduceLROnPlateau": InFit(
        callbacks.ReduceLROnPlateau,
        {"monitor": "loss", "factor": 0.5, "patience": 1, "min_delta": 1e9},
        lambda fitted: np.allclose(fitted.history.history["learning_rate"], [0.01, 0.01, 0.005]),
    ),
    "ScheduleLearningRate": InFit(
        callbacks.ScheduleLearningRate,
        {"schedule": schedules.StepDecay(0.02, 10, 0.5), "unit": "update"},
        lambda fitted: np.isclose(float(fitted.model.optimizer.learning_rate), 0.02 * 0.5**3),  # of 33 updates
    ),
    "ModelCheckpoint": InFit(
        callbacks.ModelCheckpoint,
        {"filepath": Path(tempfile.mkdtemp()) / "{epoch}.keras", "monitor": "loss", "keep": 1},
        lambda fitted: fitted.used.best_path.is_file() and fitted.used.last_path.name == f"{EPOCHS}.keras",
    ),
    "GradualUnfreezing": InFit(
        callbacks.GradualUnfreezing,
        {"schedule": {0: "head"}},
        lambda fitted: not fitted.model.get_layer("body").trainable and fitted.model.layers[-1].trainable,
    ),
    "ProgressBar": InFit(
        callbacks.ProgressBar,
        {"title": "work", "progress": Progress(io.StringIO())},
        lambda fitted: f"work: {EPOCHS}/{EPOCHS} in" in fitted.used.progress.file.getvalue().splitlines()[-1],
    ),
    "SparseGradientFix": Call(sums_repeated_ids),
    "WeightAveraging": InFit(callbacks.WeightAveraging, {"ema_momentum": 0.999999}, ends_where_it_started),
    "SharpnessAwareMinimization": InFit(callbacks.SharpnessAwareMinimization, {"rho": 30.0}, thrown_far_off),
}

SCHEDULES = {
    "CosineDecay": InFit(
        schedules.CosineDecay,
        {"initial_learning_rate": 0.02, "decay_steps": 50},
        rate_is(lambda t: 0.01 * (1 + np.cos(np.pi * t / 50))),
        learning_rate=True,
    ),
    "CosineDecayRestarts": InFit(
        schedules.CosineDecayRestarts,
        {"initial_learning_rate": 0.02, "first_decay_steps": 20},
        rate_is(lambda t: 0.01 * (1 + np.cos(np.pi * (t - 20) / 40))),
        learning_rate=True,
    ),
    "CyclicalLearningRate": InFit(
        schedules.CyclicalLearningRate,
        {"initial_learning_rate": 0.001, "maximal_learning_rate": 0.02, "step_size": 5, "scale_fn": "triangular2"},
        rate_is(lambda t: 0.001 + 0.019 * (1 - abs(t % 10 / 5 - 1)) * 0.5 ** (t // 10)),
        learning_rate=True,
    ),
    "ExponentialDecay": InFit(
        schedules.ExponentialDecay,
        {"initial_learning_rate": 0.02, "decay_steps": 10, "decay_rate": 0.5},
        rate_is(lambda t: 0.02 * 0.5 ** (t / 10)),
        learning_rate=True,
    ),
    "InverseSqrtDecay": InFit(
        schedules.InverseSqrtDecay,
        {"initial_learning_rate": 0.02, "decay_steps": 11},
        rate_is(lambda t: 0.02 / np.sqrt(1 + t / 11)),
        learning_rate=True,
    ),
    "InverseTimeDecay": InFit(
        schedules.InverseTimeDecay,
        {"initial_learning_rate": 0.02, "decay_steps": 10, "decay_rate": 0.5},
        rate_is(lambda t: 0.02 / (1 + 0.5 * t / 10)),
        learning_rate=True,
    ),
    "JoinedSchedule": InFit(
        schedules.JoinedSchedule,
        {"schedules": [0.02, 0.01, 0.005], "boundaries": [9, 20]},
        rate_is(lambda t: 0.005),
        learning_rate=True,
    ),
    "OneCycle": InFit(
        schedules.OneCycle, {"max_learning_rate": 0.02, "total_steps": 33}, cycle_has_ended, learning_rate=True
    ),
    "PiecewiseConstantDecay": InFit(
        schedules.PiecewiseConstantDecay,
        {"boundaries": [9, 20], "values": [0.02, 0.01, 0.005]},
        rate_is(lambda t: 0.005),
        learning_rate=True,
    ),
    "PolynomialDecay": InFit(
        schedules.PolynomialDecay,
        {"initial_learning_rate": 0.02, "decay_steps": 50, "end_learning_rate": 0.0},
        rate_is(lambda t: 0.02 * (1 - t / 50)),
        learning_rate=True,
    ),
    "ScaledSchedule": InFit(
        schedules.ScaledSchedule,
        {"schedule": schedules.StepDecay(0.02, 10, 0.5), "multiplier": 0.5},
        rate_is(lambda t: 0.01 * 0.5 ** (t // 10)),
        learning_rate=True,
    ),
    "StepDecay": InFit(
        schedules.StepDecay,
        {"initial_learning_rate": 0.02, "decay_steps": 10, "decay_rate": 0.5},
        rate_is(lambda t: 0.02 * 0.5 ** (t // 10)),
        learning_rate=True,
    ),
    "WarmUp": InFit(
        schedules.WarmUp,
        {"schedule": schedules.CosineDecay(0.02, 50), "warmup_steps": 10},
        rate_is(lambda t: 0.01 * (1 + np.cos(np.pi * (t - 10) / 50))),
        learning_rate=True,
    ),
    "plot": Call(lambda folder: len(schedules.plot(schedules.CosineDecay(0.1, 40)).lines[0].get_xdata()) == 40),
}

COMPRESSION = {
    "PruneLowMagnitude": InFit(
        compression.PruneLowMagnitude,
        {
            "schedule": lambda step: 0.5,
            "include": ["*"],
            "exclude": [],
            "structure": (1, 2),
            "scope": "global",
            "every": 5,
            "regrow": True,
        },
        half_is_pruned,
    ),
    "ConstantSparsity": InFit(
        compression.ConstantSparsity,
        {"target_sparsity": 0.5, "begin_step": 3},
        half_is_pruned,
        use=lambda made: [compression.PruneLowMagnitude(made)],
    ),
    "PolynomialSparsity": InFit(
        compression.PolynomialSparsity,
        {"initial_sparsity": 0.1, "final_sparsity": 0.5, "begin_step": 0, "end_step": 17},
        half_is_pruned,
        use=lambda made: [compression.PruneLowMagnitude(made, every=3)],
    ),
    "compress": Call(lambda folder: a_limit_excludes_the_larger_file(folder)),
    "CompressionRecipe": Call(lambda folder: compression.CompressionRecipe("int8", keep=0.5).epochs(2) == 4),
    "CompressionResult": Call(lambda folder: isinstance(within_a_limit(folder), compression.CompressionResult)),
    "Candidate": Call(lambda folder: compression.Candidate("none", note="why").path is None),
    "distill": Call(lambda folder: distillation_moves_the_student()),
    "cache_teacher": Call(lambda folder: answers_stand_beside_the_labels()),
    "prune_channels": Call(
        lambda folder: compression.prune_channels(small_convnet(), 0.5).count_params() < small_convnet().count_params()
    ),
    "quantize_aware": Call(
        lambda folder: compression.quantize_aware(small_convnet()).output_shape == small_convnet().output_shape
    ),
    "sparsity": Call(lambda folder: 0 <= compression.sparsity(small_convnet())["total"] < 1),
    "to_tf_keras": Call(lambda folder: compression.to_tf_keras(dense_model()).get_layer("head").units == 2),
    "copy_weights_back": Call(lambda folder: tf_keras_weights_come_back()),
    "for_tf_keras": Call(lambda folder: a_schedule_goes_over_to_tf_keras()),
    "tfmot_prune": Call(
        lambda folder: wraps_head(compression.tfmot_prune(dense_model(), compression.ConstantSparsity(0.5)))
    ),
    "tfmot_cluster": Call(lambda folder: wraps_head(compression.tfmot_cluster(dense_model(), 4))),
    "tfmot_quantize": Call(lambda folder: wraps_head(compression.tfmot_quantize(dense_model(), "PQAT"))),
}


# --- calls ---------------------------------------------------------------------------------------------------------


@functools.cache
def small_convnet() -> keras.Model:
    return models.convnet((4,), (12, 12, 1), 3, preprocessing=keras.layers.Rescaling(1 / 255))


def dense_model() -> keras.Model:
    return keras.Sequential([keras.Input((5,)), keras.layers.Dense(2, name="head")])


def wraps_head(model: Any) -> bool:
    return any(getattr(getattr(layer, "layer", None), "name", None) == "head" for layer in model.layers)


def tf_keras_weights_come_back() -> bool:
    model = dense_model()
    twin = compression.to_tf_keras(model)
    twin.set_weights([np.ones((5, 2)), np.ones(2)])
    return compression.copy_weights_back(twin) is model and float(model.get_weights()[0].min()) == 1.0


def a_schedule_goes_over_to_tf_keras() -> bool:
    schedule = schedules.OneCycle(0.1, 20)
    return np.isclose(float(compression.for_tf_keras(schedule)(7)), float(schedule(7)))


def pixels(rows: int = 120) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (rows, 12, 12, 1)).astype("float32")


@functools.cache
def device_file() -> export.TFLiteExport:
    path = Path(tempfile.mkdtemp()) / "model.tflite"
    return export.to_tflite(small_convnet(), path, "int8", pixels(), class_names=("a", "b", "c"))


@functools.cache
def finished_run() -> recipes.Result:
    """The main job on sixty small images, without the plain run."""
    folder = Path(tempfile.mkdtemp())
    recipe = recipes.Recipe(
        data=str(write_images(folder / "images", size=16)),
        image_size=16,
        epochs=2,
        pruning_epochs=1,
        augment="none",
        baseline=False,
        out=str(folder / "run"),
    )
    return recipes.run(recipe, verbose=0)


@functools.cache
def finds_a_recipe() -> recipes.SearchResult:
    """A search of one trial."""
    folder = Path(tempfile.mkdtemp())
    recipe = recipes.Recipe(
        data=str(write_images(folder / "images", size=8)), image_size=8, epochs=1, out=str(folder / "search")
    )
    return recipes.tune(recipe, 1, search=["dropout"], verbose=0)


def reads_an_image_folder(folder: Path) -> bool:
    train, validation = data.image_folder(write_images(folder / "images", count=4), image_size=8, validation_split=0.25)
    images, labels = next(iter(train))
    return tuple(images.shape) == (9, 8, 8, 3) and labels.shape[1] == 3 and len(list(validation)) == 1


def arrays_shuffle_and_keep_pairs(folder: Path) -> bool:
    x, y = next(iter(data.arrays(np.arange(50), np.arange(50), batch_size=50, seed=1)))
    return np.array_equal(x, y) and not np.array_equal(x, np.arange(50)) and sorted(x.numpy()) == list(range(50))


def draws_by_the_seed(folder: Path) -> bool:
    layer = keras.layers.RandomBrightness(0.5, value_range=(-9, 9))
    datasets = [
        data.augment(data.arrays(np.zeros((4, 2, 2, 3)), np.zeros(4), shuffle=False), layer, seed=3) for _ in range(2)
    ]
    first, same, later = (next(iter(dataset))[0].numpy() for dataset in (*datasets, datasets[0]))
    return np.array_equal(first, same) and not np.isclose(first, later).any()


def names_the_slow_stage(folder: Path) -> bool:
    squares = data.arrays(np.zeros((8, 80, 80), np.float32), np.zeros(8), 4, seed=0)
    profile = data.profile_dataset(squares.map(lambda x, y: x @ x @ x @ x @ x @ x), max_seconds=0.3)
    return profile.slowest.name.endswith("map (lambda)") and profile.images_per_second > 0


def folds_a_norm(folder: Path) -> bool:
    model = small_convnet()
    folded = models.fold_batch_norm(model)
    same = np.allclose(folded.predict(pixels(4), verbose=0), model.predict(pixels(4), verbose=0), atol=1e-5)
    return same and not any(isinstance(layer, keras.layers.BatchNormalization) for layer in folded.layers)


def excludes_what_is_no_kernel(folder: Path) -> bool:
    model = models.mlp([4], (5,), 2)
    excluded = models.exclude_norm_and_bias_from_decay(keras.optimizers.AdamW(weight_decay=0.1), model)
    return excluded == ["norm1/gamma", "norm1/beta", "classifier/bias"]


def freezes_its_norms(folder: Path) -> bool:
    model = models.convnet((4,), (12, 12, 1), 3)
    models.freeze_batch_norm(model)
    return [weight.name for weight in model.trainable_weights] == ["kernel", "kernel", "bias"]


def synchronizes_its_norms(folder: Path) -> bool:
    model = models.convnet((4,), (12, 12, 1), 3)
    models.synchronize_batch_norm(model)
    return model.get_layer("norm1").synchronized


def sets_a_rate(folder: Path) -> bool:
    model = models.mlp([4], (5,), 2, dropout=0.5)
    models.set_dropout(model, {"dropout1": 0.2})
    return model.get_layer("dropout1").rate == 0.2


def lies_where_it_was_put(folder: Path) -> bool:
    model = models.mlp([4], (5,), 2)
    placement = distribute.place({"dense1": "CPU:1"})
    return (
        placement.memory(placement(model)).weights["CPU:1"] == 4 * 5 * 4
        and "CPU:1" in model.get_layer("dense1").kernel.value.device
    )


def takes_the_statistics_of_its_data(folder: Path) -> bool:
    model = keras.Sequential([keras.Input((5,)), keras.layers.BatchNormalization()])
    models.reestimate_batch_norm(model, X)
    return np.allclose(model.layers[0].moving_mean, X.mean(0), atol=1e-6)


def report_holds(words: str, **content: Any) -> Callable[[Path], bool]:
    """A row that writes a page with the given content and finds the words on it."""

    def effect(folder: Path) -> bool:
        report.write_report(folder / "report.html", report.Report("Page", **content))
        return words in (folder / "report.html").read_text("utf-8")

    return Call(effect)


TABLE = report.Table("Sizes", ("", "bytes"), [("int8", "12345")])
LINE = report.Line("training loss", [1, 2], [0.5, 0.4])
MATRIX = report.ConfusionMatrix(("cat", "dog"), np.array([[3, 1], [0, 4]]))
MISTAKE = report.Mistake(np.zeros((8, 8, 1), np.uint8), "cat", "dog", 0.9, "image-17.png")


def writes_a_model_card(folder: Path) -> bool:
    texts = ("name", "purpose", "intended_use", "data_source", "data_licence", "split", "command", "licence")
    tables = ("class_counts", "metrics", "settings", "versions", "files")
    facts = {name: f"The {name}" for name in texts} | dict.fromkeys(tables, TABLE)
    report.write_model_card(folder / "card.md", report.ModelCard(**facts, limits=["No limit known."], seed=7))
    return "12345" in (folder / "card.md").read_text("utf-8")


def loads_a_labelled_model(folder: Path) -> bool:
    models.labelled_file.save_labelled(small_convnet(), folder / "model.keras", ("a", "b", "c"))
    loaded = keras_opt.load_model(folder / "model.keras")
    return loaded.class_names == ("a", "b", "c") and loaded.count_params() == small_convnet().count_params()


class Halving(training.StepPlugin):
    """Changes the gradients."""

    def clip_gradients(self, gradients, variables):
        return [gradient / 2 for gradient in gradients]


def step_hooks_change_the_gradients(folder: Path) -> bool:
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, kernel_initializer="zeros", use_bias=False)])
    model.compile(keras.optimizers.SGD(1.0), "mse")
    training.StepHooks.of(model).add(Halving())
    model.train_on_batch(np.ones((4, 1)), np.ones((4, 1)))
    training.StepHooks.of(model).detach()
    return model.get_weights()[0].item() == 1.0 and "train_step" not in vars(model)


def step_plugin_changes_nothing_by_itself(folder: Path) -> bool:
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(2)])
    model.compile("sgd", "mse")
    plugin, hooks = training.StepPlugin(), training.StepHooks.of(model)
    hooks.add(plugin)
    before = model.train_on_batch(X, Y)
    hooks.remove(plugin)
    return hooks.plugins == () and model.train_on_batch(X, Y) < before


def attach_hooks_a_loop_of_ones_own(folder: Path) -> bool:
    model, monitor = keras.Sequential([keras.Input((5,)), keras.layers.Dense(2)]), callbacks.GradientMonitor()
    model.compile("sgd", "mse")
    with training.attach(model, monitor):
        model.train_on_batch(X[:4], Y[:4])
    return len(monitor.series()["step"]) == 1 and "apply" not in vars(model.optimizer)


@functools.cache
def device_report() -> export.QuantizationReport:
    return export.quantization_report(small_convnet(), device_file().path, pixels(20))


def predict_script_is_python(folder: Path) -> bool:
    export.write_predict_script(folder / "predict.py")
    source = (folder / "predict.py").read_text("utf-8")
    return "ai_edge_litert" in source and bool(compile(source, "predict.py", "exec"))


def sidecars_stand_beside_the_file(folder: Path) -> bool:
    return {path.name for path in export.write_sidecars(device_file().path)} >= {"labels.txt", "preprocess.json"}


def metadata_is_in_the_file(folder: Path) -> bool:
    photo = export.ImageInput("photo", "A photo.", color_space=2)
    given = export.ModelMetadata("mine", "What it does.", "2.0", "me", photo, ("a", "b", "c"))
    file = export.to_tflite(small_convnet(), folder / "m.tflite", metadata=given)
    return export.read_metadata(file.path) == given


def device_file_agrees(folder: Path) -> bool:
    return export.verify(small_convnet(), device_file().path, pixels(40)).argmax_agreement > 0.9


DATA = {
    "arrays": Call(arrays_shuffle_and_keep_pairs),
    "augment": Call(draws_by_the_seed),
    "profile_dataset": Call(names_the_slow_stage),
    "image_folder": Call(reads_an_image_folder),
    "load_fashion_mnist_sample": Call(lambda folder: data.load_fashion_mnist_sample("test")[0].shape == (2000, 28, 28)),
    "FASHION_MNIST_CLASSES": Call(lambda folder: len(set(data.FASHION_MNIST_CLASSES)) == 10),
}

MODELS = {
    "convnet": Call(lambda folder: small_convnet().output_shape == (None, 3)),
    "reestimate_batch_norm": Call(takes_the_statistics_of_its_data),
    "macs": Call(lambda folder: models.macs(small_convnet()) == 10 * 10 * 9 * 4 + 5 * 5 * 4 * 3),
    "fold_batch_norm": Call(folds_a_norm),
    "mlp": Call(lambda folder: models.mlp([4], (5,), 2).count_params() == 20 + 16 + 10),
    "resnet": Call(lambda folder: models.resnet(20, (8, 8, 1), 3, width=4).output_shape == (None, 3)),
    "mobilenet": Call(lambda folder: models.mobilenet((32, 32, 3), 3, alpha=0.35).output_shape == (None, 3)),
    "freeze_batch_norm": Call(freezes_its_norms),
    "synchronize_batch_norm": Call(synchronizes_its_norms),
    "exclude_norm_and_bias_from_decay": Call(excludes_what_is_no_kernel),
    "finetune": Call(
        lambda folder: models.finetune("MobileNetV2", (32, 32, 3), 3, None, alpha=0.35).get_layer("head").units == 3
    ),
    "add_regularization": Call(
        lambda folder: models.add_regularization(models.mlp([4], (5,), 2), l2=0.1).weights[0] == "dense1/kernel"
    ),
    "set_dropout": Call(sets_a_rate),
}


def finds_what_does_nothing(folder: Path) -> bool:
    model = models.mlp([4], (5,), 2)
    model.compile("sgd", "mse")
    keras.distribution.set_distribution(keras.distribution.DataParallel(devices=["cpu:0"]))
    try:
        (finding,) = distribute.preflight(model, X)
    finally:
        keras.distribution.set_distribution(None)
    return finding.severity == "refusal" and "DataParallel" in finding.text


def gives_the_one_strategy(folder: Path) -> bool:
    state = sys.modules[distribute.strategy.__module__]
    before, state._made = state._made, None
    try:
        made = distribute.strategy("one")
        return made is distribute.strategy("one") and made.num_replicas_in_sync == 1 and is_ours(made)
    finally:
        keras_repairs.undo()
        state._made = before


def workers_that_end_with(status: int, folder: Path) -> list | distribute.WorkersFailed:
    """What comes of two workers that train nothing."""
    script = folder / "train.py"
    script.write_text(f"raise SystemExit({status})")
    try:
        return distribute.launch(script, max_restarts=0)
    except distribute.WorkersFailed as failed:
        return failed


DISTRIBUTE = {
    "strategy": Call(gives_the_one_strategy),
    "launch": Call(lambda folder: workers_that_end_with(0, folder) == []),
    "WorkersFailed": Call(lambda folder: workers_that_end_with(3, folder).status == 3),
    "WorkerFailure": Call(
        lambda folder: str(distribute.WorkerFailure(1, 137, 2.0)).startswith("worker 1 was ended by")
    ),
    "place": Call(lies_where_it_was_put),
    "Placement": Call(lambda folder: distribute.Placement({"*": "CPU:0"}).layers(dense_model())["head"] == "CPU:0"),
    "preflight": Call(finds_what_does_nothing),
    "Finding": Call(
        lambda folder: str(distribute.Finding("mask", "warning", "It is.", "")) == "warning (mask): It is."
    ),
}


def drops(share: float, make: Callable[..., keras.Layer], **arguments: Any) -> Call:
    """A row for a layer that drops values in training: the share of them, the mean kept, and nothing at inference."""

    def effect(folder: Path) -> bool:
        ones = np.ones((400, 6, 6, 2), "float32")
        model = keras.Sequential([keras.Input(ones.shape[1:]), make(**arguments)])
        dropped = np.asarray(model(ones, training=True))
        right = np.isclose((dropped == 0).mean(), share, atol=0.1) and np.isclose(dropped.mean(), 1, atol=0.15)
        return right and np.array_equal(model(ones), ones)

    return Call(effect)


def mixes(make: Callable[..., keras.Layer]) -> Call:
    """A row for a layer that mixes images, each full of its number, and their labels in the same shares."""

    def effect(folder: Path) -> bool:
        images = np.tile(np.eye(12)[:, np.newaxis, np.newaxis], (1, 6, 6, 1))
        layer = make(1.0, num_classes=12)
        mixed, labels = layer((images, np.arange(12)))
        plain, rows = layer((images, np.arange(12)), training=False)
        told = np.allclose(np.mean(mixed, axis=(1, 2)), labels, atol=1e-5) and np.max(labels, axis=1).min() < 0.9
        return told and np.array_equal(plain, images) and np.array_equal(rows, np.eye(12))

    return Call(effect)


def crops_each_image_elsewhere(folder: Path) -> bool:
    columns = np.tile(np.arange(8.0)[:, np.newaxis], (20, 6, 1, 1))
    layer = layers.RandomCrop(6, 4)
    lefts = layer(columns, training=True)[:, 0, 0, 0].numpy()
    return set(lefts) == {0, 1, 2, 3, 4} and np.array_equal(layer(columns, training=False), columns[:, :, 2:6])


def augments_each_image_by_itself(folder: Path) -> bool:
    images = np.tile(np.arange(0, 256, 4, dtype="uint8").reshape(8, 8, 1), (40, 1, 1, 1))
    layer = layers.RandAugment(num_ops=1, factor=(0.5, 0.5))
    outcomes = {image.tobytes() for image in np.asarray(layer(images, training=True))}
    return len(outcomes) > 8 and np.array_equal(layer(images, training=False), images)


def moves_each_image_by_itself(folder: Path) -> bool:
    """As Keras 2's generator would; in inference only the values are rescaled."""
    images = np.tile(np.arange(0, 256, 4, dtype="uint8").reshape(8, 8, 1), (40, 1, 1, 1))
    layer = layers.RandomAffine.from_image_data_generator(rotation_range=30, width_shift_range=0.2, rescale=1 / 255)
    outcomes = {image.tobytes() for image in np.asarray(layer(images, training=True))}
    return len(outcomes) > 35 and np.allclose(layer(images, training=False), images / 255)


@functools.cache
def two_members() -> tuple[keras.Model, keras.Model]:
    """Two classifiers of five inputs, compiled, of the same layers and names."""
    members = models.mlp([4], (5,), 2), models.mlp([4], (5,), 2)
    for member in members:
        member.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return members


def predicts_the_mean(folder: Path) -> bool:
    made = ensemble.PredictionEnsemble(two_members())
    first, second = (np.asarray(member(X)) for member in two_members())
    made.save(folder / "ensemble.keras")
    loaded = keras_opt.load_model(folder / "ensemble.keras")
    return np.allclose(made(X), (first + second) / 2, atol=1e-6) and np.array_equal(loaded(X), made(X))


def averages_weights(folder: Path) -> bool:
    weights = [member.get_weights() for member in two_members()]
    average = ensemble.average_weights(two_members(), weights=[3, 1]).get_weights()
    return all(np.allclose(a, 0.75 * b + 0.25 * c, atol=1e-6) for a, b, c in zip(average, *weights, strict=True))


def soup_is_no_worse(folder: Path) -> bool:
    soup = ensemble.greedy_soup(two_members(), (X, np.argmax(Y, 1)))
    return soup.soup.value >= max(soup.soup.values) and isinstance(soup.soup, ensemble.Soup)


def members_disagree(folder: Path) -> bool:
    found = ensemble.diversity(two_members(), X, np.argmax(Y, 1))
    return isinstance(found, ensemble.Diversity) and "all together" in str(found) and found.disagreement[0, 1] > 0


def trains_members(folder: Path) -> bool:
    members = ensemble.train_ensemble(lambda: two_members.__wrapped__()[0], 2, (X, np.argmax(Y, 1)), verbose=0)
    return len(members) == 2


ENSEMBLE = {
    "PredictionEnsemble": Call(predicts_the_mean),
    "average_weights": Call(averages_weights),
    "greedy_soup": Call(soup_is_no_worse),
    "Soup": Call(soup_is_no_worse),
    "diversity": Call(members_disagree),
    "Diversity": Call(members_disagree),
    "train_ensemble": Call(trains_members),
    "SnapshotEnsemble": InFit(
        ensemble.SnapshotEnsemble,
        {"cycles": 3},
        lambda fitted: len(fitted.used.models) == 3 and np.isclose(float(fitted.model.optimizer.learning_rate), 0.01),
    ),
}

LAYERS = {
    "CutMix": mixes(layers.CutMix),
    "MixUp": mixes(layers.MixUp),
    "RandAugment": Call(augments_each_image_by_itself),
    "RandomAffine": Call(moves_each_image_by_itself),
    "RandomCrop": Call(crops_each_image_elsewhere),
    "DropBlock": drops(0.3, layers.DropBlock, rate=0.3, block_size=2),
    "StochasticDepth": drops(0.3, layers.StochasticDepth, rate=0.3),
    "ScheduledDropout": drops(
        0.3, layers.ScheduledDropout, rate_schedule=schedules.PolynomialDecay(0.3, 10, end_learning_rate=0.0)
    ),
}

EXPORT = {
    "to_tflite": Call(lambda folder: device_file().path.stat().st_size == device_file().size_bytes),
    "TFLiteExport": Call(lambda folder: device_file().input.dtype == device_file().output.dtype == "int8"),
    "LiteRTModel": Call(lambda folder: export.LiteRTModel(device_file().path).predict(pixels(2)).shape == (2, 3)),
    "verify": Call(
        lambda folder: export.verify(small_convnet(), device_file().path, pixels(40)).argmax_agreement > 0.9
    ),
    "Verification": Call(lambda folder: export.verify(small_convnet(), device_file().path, pixels(4)).rows == 4),
    "benchmark": Call(lambda folder: export.benchmark([device_file().path], runs=5)[0].median_ms > 0),
    "Latency": Call(lambda folder: export.benchmark([device_file().path], runs=5)[0].runs == 5),
    "quantization_report": Call(lambda folder: device_report().rows[0].own_sqnr_db > 20),
    "QuantizationReport": Call(lambda folder: "worst layer first" in str(device_report())),
    "LayerError": Call(
        lambda folder: device_report().rows[0].layer in [layer.name for layer in small_convnet().layers]
    ),
    "run_tflm": Call(lambda folder: export.run_tflm(device_file().path, pixels(2)).outputs.shape == (2, 3)),
    "TFLMRun": Call(lambda folder: export.run_tflm(device_file().path, pixels(1)).arena_bytes % 16 == 0),
    "to_c_array": Call(
        lambda folder: "alignas(16)" in export.to_c_array(device_file().path, folder, "net", 4096).source.read_text()
    ),
    "CArray": Call(
        lambda folder: export.to_c_array(device_file().path, folder, "net", 4096).size_bytes == device_file().size_bytes
    ),
    "read_labels": Call(lambda folder: export.read_labels(device_file().path) == ("a", "b", "c")),
    "read_metadata": Call(lambda folder: export.read_metadata(device_file().path).name == "convnet"),
    "gzip_size": Call(lambda folder: export.gzip_size(device_file().path) == device_file().gzip_bytes),
    "write_predict_script": Call(predict_script_is_python),
    "write_sidecars": Call(sidecars_stand_beside_the_file),
    "ModelMetadata": Call(metadata_is_in_the_file),
    "ImageInput": Call(metadata_is_in_the_file),
}

RECIPES = {
    "Recipe": Call(lambda folder: recipes.Recipe.demo(epochs=3).settings["epochs"] == 3),
    "run": Call(lambda folder: (finished_run().folder / "model.tflite").is_file()),
    "Result": Call(lambda folder: finished_run().confusion.sum() == 6),
    "SearchResult": Call(lambda folder: finds_a_recipe().value == max(each.value for each in finds_a_recipe().trials)),
    "TrialRecord": Call(lambda folder: finds_a_recipe().trials[0].state == "completed"),
    "tune": Call(lambda folder: finds_a_recipe().recipe.dropout == finds_a_recipe().trials[0].settings["dropout"] > 0),
    "SideResult": Call(lambda folder: 0 <= finished_run().optimised.device_test_accuracy <= 1),
}

REPORT = {
    "Report": report_holds("A summary.", summary="A summary."),
    "write_report": report_holds("2.5 times", footer="2.5 times"),
    "KeyNumber": report_holds("29 kB", headline=[report.KeyNumber("29 kB", "int8 file")]),
    "Table": report_holds("12345", comparison=TABLE),
    "Line": report_holds("training loss", curves=[report.Curve("Loss", "epoch", "loss", [LINE])]),
    "Curve": report_holds("Loss by epoch", curves=[report.Curve("Loss by epoch", "epoch", "loss", [LINE])]),
    "Bar": report_holds("3 kB", charts=[report.Chart("Size", [report.Bar("int8", 3.0, "3 kB")])]),
    "Chart": report_holds("Bytes to flash", charts=[report.Chart("Bytes to flash", [report.Bar("int8", 3.0, "3 kB")])]),
    "ConfusionMatrix": report_holds("dog", confusion=MATRIX),
    "Mistake": report_holds("image-17.png", mistakes=[MISTAKE]),
    "ModelCard": Call(writes_a_model_card),
    "write_model_card": Call(writes_a_model_card),
    "ClassScores": Call(lambda folder: report.class_scores(MATRIX.counts).support.tolist() == [4, 4]),
    "class_scores": Call(lambda folder: report.class_scores(MATRIX.counts).recall.tolist() == [0.75, 1.0]),
}

TRAINING = {
    "StepHooks": Call(step_hooks_change_the_gradients),
    "StepPlugin": Call(step_plugin_changes_nothing_by_itself),
    "attach": Call(attach_hooks_a_loop_of_ones_own),
}


def searched(kind: str, folder: Path, **settings: Any) -> list[dict[str, Any]]:
    """The points of a finished search for a low number, without a model."""

    class Search(getattr(tuning, kind)):
        def run_trial(self, trial: Any, *args: Any, **kwargs: Any) -> float:
            return trial.hyperparameters.Int("x", 1, 4) + float(trial.hyperparameters.Boolean("y"))

    search = Search(directory=folder, seed=1, **settings)
    search.search(verbose=0)
    assert search.oracle.get_best_trials(1)[0].score == min(each.score for each in search.oracle.trials.values())
    return [each.hyperparameters.values for each in search.oracle.trials.values()]


def all_eight_points(kind: str) -> Callable[[Path], bool]:
    """Whether a search through a space of eight points ends with each tried once."""
    return lambda folder: len({str(point) for point in searched(kind, folder, max_trials=20)}) == 8


def hyperband_promotes(folder: Path) -> bool:
    points = searched("Hyperband", folder, max_epochs=4, factor=2)
    return [point["tuner/epochs"] for point in points[:7]] == [1, 1, 1, 1, 2, 2, 4]


def optuna_finds_all_eight_points(folder: Path) -> bool:
    hp = require("keras_tuner").HyperParameters()
    hp.Int("x", 1, 4)
    hp.Boolean("y")
    oracle = tuning.OptunaOracle(max_trials=20, seed=1, pruner=None, hyperparameters=hp, storage=folder / "study.db")
    oracle._set_project_dir(folder, "search")  # as a tuner does
    points = []
    while (trial := oracle.create_trial("tuner")).status == "RUNNING":
        points.append(str(trial.hyperparameters.values))
        oracle.update_trial(trial.trial_id, {oracle.objective.name: 1.0})
        trial.status = "COMPLETED"
        oracle.end_trial(trial)
    return len(set(points)) == len(points) == 8 == len([each for each in oracle.study.trials if each.value == 1.0])


TUNING = {
    "BayesianOptimization": Call(all_eight_points("BayesianOptimization")),
    "GridSearch": Call(all_eight_points("GridSearch")),
    "Hyperband": Call(hyperband_promotes),
    "OptunaOracle": Call(optuna_finds_all_eight_points),
    "RandomSearch": Call(all_eight_points("RandomSearch")),
}

PUBLIC_NAMES: dict[str, dict[str, InFit | Call]] = {
    "": {"load_model": Call(loads_a_labelled_model)},
    "callbacks": CALLBACKS,
    "compression": COMPRESSION,
    "data": DATA,
    "distribute": DISTRIBUTE,
    "ensemble": ENSEMBLE,
    "export": EXPORT,
    "layers": LAYERS,
    "models": MODELS,
    "recipes": RECIPES,
    "report": REPORT,
    "schedules": SCHEDULES,
    "training": TRAINING,
    "tuning": TUNING,
}


def rows(kind: type) -> dict[str, Any]:
    """The rows of one kind by dotted name."""
    return {
        f"{room}.{name}".lstrip("."): row
        for room, names in PUBLIC_NAMES.items()
        for name, row in names.items()
        if isinstance(row, kind)
    }


def made(row: InFit) -> Any:
    """What a row describes, made anew from arguments of its own."""
    return row.make(**copy.deepcopy(row.arguments))
