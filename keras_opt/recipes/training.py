"""The three trainings of a run: plain Keras, the optimised one, and pruning with fine-tuning."""

import contextlib
import functools
import warnings
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_opt.callbacks.backup_and_restore import BackupAndRestore
from keras_opt.callbacks.criteria import Plateau, Target
from keras_opt.callbacks.early_stopping import EarlyStopping
from keras_opt.callbacks.find_learning_rate import find_learning_rate
from keras_opt.callbacks.gradient_monitor import GradientMonitor
from keras_opt.callbacks.gradual_unfreezing import GradualUnfreezing
from keras_opt.callbacks.learning_rate_monitor import LearningRateMonitor
from keras_opt.callbacks.progress_bar import ProgressBar
from keras_opt.callbacks.range_test_result import RangeTestResult
from keras_opt.compression.pruning.prune_low_magnitude import PruneLowMagnitude
from keras_opt.compression.pruning.selection import depthwise_layers
from keras_opt.compression.pruning.sparsity import sparsity
from keras_opt.compression.pruning.sparsity_schedules import PolynomialSparsity
from keras_opt.core.all_layers import all_layers
from keras_opt.core.clocks import Stopwatch
from keras_opt.core.errors import InputError
from keras_opt.core.progress import Progress
from keras_opt.core.set_weights import set_weights
from keras_opt.core.trainable_flags import let_train, without_batch_norm
from keras_opt.data.arrays import arrays
from keras_opt.data.augment import augment
from keras_opt.models.batch_norms import norms_in
from keras_opt.models.exclude_norm_and_bias_from_decay import exclude_norm_and_bias_from_decay
from keras_opt.models.labelled_file import save_labelled
from keras_opt.models.synchronize_batch_norm import synchronize_batch_norm
from keras_opt.recipes.devices import on_devices, replicas_of
from keras_opt.recipes.images import Images, Prepared
from keras_opt.recipes.interrupts import interrupt_at_batch_end
from keras_opt.recipes.networks import build, shipped, unfreezing
from keras_opt.recipes.recipe import Recipe
from keras_opt.recipes.regularization import augmentation
from keras_opt.recipes.run_folder import RunFolder
from keras_opt.recipes.sessions import EpochClock, ResumeNote
from keras_opt.schedules.one_cycle import OneCycle

# The plain run may take this many times the epochs of the optimised one, as long as its validation accuracy rises.
PLAIN_EPOCHS_FACTOR = 3
PLAIN_PATIENCE = 10
PLAIN_LEARNING_RATE = 1e-3
FINE_TUNING_RATE_DIVISOR = 10
# By how much the upper part of a pretrained backbone learns more slowly than its head, and the lower than the upper.
BACKBONE_RATE_DIVISOR = 10

_TITLES = {"plain": "plain Keras", "optimised": "with keras_opt", "pruned": "pruning"}


class Trainer:
    """Trains the models of one run on the same batches, each from the recipe's seed.

    A training that was broken off goes on from its backup in the run's folder, and ends with the same bits.

    Args:
        recipe: The settings.
        prepared: The images; the test images are not touched here.
        progress: Shows one bar a training.
        folder: Where trainings are backed up, and the best epoch's model is saved when one is interrupted; a range test
            needs none.
    """

    def __init__(self, recipe: Recipe, prepared: Prepared, progress: Progress, folder: RunFolder | None = None):
        self.recipe = recipe
        self.prepared = prepared
        self.progress = progress
        self.folder = folder
        self.classes = len(prepared.class_names)

    def plain(self) -> tuple[keras.Model, dict[str, Any]]:
        """The network of Keras's MNIST example with Adam at its default rate, for as long as it gets better.

        Of a pretrained backbone only the head trains, as in Keras's guide to transfer learning.
        """
        stop = keras.callbacks.EarlyStopping(
            "val_accuracy", patience=PLAIN_PATIENCE, restore_best_weights=True, verbose=0
        )
        with self._session("float32"):
            watch = Stopwatch()
            model = self._build(norm="none")
            model.compile(keras.optimizers.Adam(PLAIN_LEARNING_RATE), "categorical_crossentropy", metrics=["accuracy"])
            epochs = self.recipe.epochs * PLAIN_EPOCHS_FACTOR
            facts = self._fit(model, "plain", "none", epochs, watch, [stop])
        ended_early = len(facts["history"]["loss"]) < epochs
        reason = f"val_accuracy did not rise for {PLAIN_PATIENCE} epochs" if ended_early else "all epochs done"
        return shipped(model, self.recipe, "none"), {**facts, "stopped_because": reason}

    def optimised(self) -> tuple[keras.Model, dict[str, Any]]:
        """The same stack with BatchNorm, one-cycle rate and a stopping rule, watched by the gradient monitor."""
        recipe = self.recipe
        monitor, stop = GradientMonitor(), self._stopping()
        with self._session("mixed_float16" if recipe.mixed_precision else "float32"):
            watch = Stopwatch()
            model = self._optimised_model()
            callbacks = [monitor, stop, *self._unfreezing(model)]
            facts = self._fit(model, "optimised", "batch", recipe.epochs, watch, callbacks)
        diverged = not np.isfinite(facts["history"]["loss"][-1])
        reason = stop.stopped_because or ("the loss is not finite" if diverged else "the cycle is complete")
        series = monitor.series()
        gradients = {"step": series["step"].tolist(), "grad_norm": series["grad_norm"].tolist()}
        return shipped(model, recipe, "batch"), {**facts, "stopped_because": reason, "gradients": gradients}

    def trial(self, callbacks: list[keras.callbacks.Callback]) -> dict[str, list[float]]:
        """The training of `optimised` for a search, and its history: nothing is shown or backed up."""
        with self._session("mixed_float16" if self.recipe.mixed_precision else "float32"):
            model = self._optimised_model()
            with interrupt_at_batch_end() as interrupt:
                history = model.fit(
                    self._batches(augmented=True),
                    validation_data=self._dataset(self.prepared.validation, shuffle=False),
                    epochs=self.recipe.epochs,
                    callbacks=[self._stopping(), *self._unfreezing(model), *callbacks, interrupt],
                    shuffle=False,  # the dataset shuffles by itself
                    verbose=0,
                )
        return {name: [float(value) for value in values] for name, values in history.history.items()}

    def range_test(self) -> RangeTestResult:
        """The range test of the network, optimizer and batches of `optimised`."""
        with self._session("mixed_float16" if self.recipe.mixed_precision else "float32"):
            batches = self._batches(augmented=True)
            return find_learning_rate(self._optimised_model(), batches, verbose=self.progress.verbose)

    def pruned(self, dense: keras.Model) -> tuple[keras.Model, dict[str, Any]]:
        """`dense`, pruned and fine-tuned; or `dense` itself where that costs too much validation accuracy."""
        recipe = self.recipe
        before = self._validation_accuracy(dense)
        if recipe.sparsity == 0:
            return dense, {"history": {}, "pruned": False, "decision": "pruning was not asked for (sparsity 0)"}
        steps = self._steps(recipe.pruning_epochs)
        end = max(1, steps // 3)
        every = max(1, end // 10)
        # Only epochs that began with the final sparsity stand for what will be shipped.
        first = min(-(-(end + every) // self._steps_in_epoch), recipe.pruning_epochs - 1)
        best = EarlyStopping(
            Plateau("val_accuracy", patience=recipe.pruning_epochs, start_from_epoch=first), restore_best_weights=True
        )
        with self._session("mixed_float16" if recipe.mixed_precision else "float32"):
            watch = Stopwatch()
            model = self._build(norm="batch")
            set_weights(model, dense.get_weights())
            if recipe.is_pretrained:  # it is built frozen
                let_train(model, without_batch_norm(all_layers(model)))
            rate = recipe.max_learning_rate / FINE_TUNING_RATE_DIVISOR
            rate /= BACKBONE_RATE_DIVISOR if recipe.is_pretrained else 1
            self._compile(model, keras.optimizers.schedules.CosineDecay(rate, steps))
            schedule = PolynomialSparsity(0.0, recipe.sparsity, 0, end)
            prune = PruneLowMagnitude(schedule, exclude=depthwise_layers(model), every=every)
            facts = self._fit(model, "pruned", "batch", recipe.pruning_epochs, watch, [prune, best])
        model = shipped(model, recipe, "batch")
        after, zeros = self._validation_accuracy(model), sparsity(model)["total"]
        change = f"validation accuracy {before:.4f} before, {after:.4f} after pruning to {zeros:.0%}"
        if before - after > recipe.max_accuracy_drop:
            return dense, {**facts, "pruned": False, "decision": f"pruning was taken back: {change}"}
        return model, {**facts, "pruned": True, "decision": change}

    def _stopping(self) -> EarlyStopping:
        plateau = Plateau("val_accuracy", patience=self.recipe.patience)
        return EarlyStopping(plateau | Target("val_accuracy", self.recipe.target_accuracy), restore_best_weights=True)

    def _unfreezing(self, model: keras.Model) -> list[keras.callbacks.Callback]:
        if not self.recipe.is_pretrained:
            return []
        schedule = unfreezing(model, self.recipe.epochs)
        return [GradualUnfreezing(schedule, BACKBONE_RATE_DIVISOR, freeze_batch_norm=True)]

    def _optimised_model(self) -> keras.Model:
        model = self._build(norm="batch")
        self._compile(model, OneCycle(self.recipe.max_learning_rate, self._steps(self.recipe.epochs)))
        return model

    def _build(self, *, norm: str) -> keras.Model:
        model = build(self.recipe, self.prepared.image_shape, self.classes, norm=norm)
        if replicas_of(self.recipe) > 1 and norms_in(model):
            synchronize_batch_norm(model)
        return model

    def _compile(self, model: keras.Model, learning_rate: Any) -> None:
        loss = keras.losses.CategoricalCrossentropy(label_smoothing=self.recipe.label_smoothing)
        optimizer = keras.optimizers.Adam(learning_rate)
        if self.recipe.weight_decay:
            optimizer = keras.optimizers.AdamW(learning_rate, weight_decay=self.recipe.weight_decay)
            exclude_norm_and_bias_from_decay(optimizer, model)
        model.compile(optimizer, loss, metrics=["accuracy"])

    def _fit(
        self, model: keras.Model, stage: str, norm: str, epochs: int, watch: Stopwatch, callbacks: list
    ) -> dict[str, Any]:
        # RunFolder takes the backups away, once what comes after `fit` is saved too.
        backup = BackupAndRestore(self.folder.backups(stage), delete_checkpoint=False, verbose=0)
        watching = [backup, EpochClock(watch), LearningRateMonitor(), keras.callbacks.TerminateOnNaN()]
        note, bar = ResumeNote(_TITLES[stage], self.progress), ProgressBar(_TITLES[stage], self.progress)
        try:
            with interrupt_at_batch_end() as interrupt, warnings.catch_warnings():
                if replicas_of(self.recipe) > 1:  # an epoch that was broken off begins again, in the same order
                    warnings.filterwarnings("ignore", message="BackupAndRestore: these data have no place")
                history = model.fit(
                    self._batches(augmented=stage != "plain"),
                    validation_data=self._dataset(self.prepared.validation, shuffle=False),
                    epochs=epochs,
                    callbacks=[*watching, *callbacks, note, bar, interrupt],
                    shuffle=False,  # the dataset shuffles by itself
                    verbose=0,
                )
        except KeyboardInterrupt:
            bar.on_train_end()
            best = next((stop.best_weights for stop in callbacks if getattr(stop, "best_weights", None)), None)
            if best or not self.folder.model.exists():  # else that of the training before is better
                model.set_weights(best or model.get_weights())
                save_labelled(shipped(model, self.recipe, norm), self.folder.model, self.prepared.class_names)
            raise
        if not all(np.isfinite(array).all() for array in model.get_weights()):
            raise InputError(
                f"The training {_TITLES[stage]!r} diverged: its weights are NaN or infinite. Start anew, with "
                f"--overwrite, and a --max-learning-rate below {self.recipe.max_learning_rate:g}."
            )
        values = {name: [float(value) for value in values] for name, values in history.history.items()}
        return {"history": values, "resumed": note.is_resumed}

    def _batches(self, *, augmented: bool) -> tf.data.Dataset:
        batches = self._dataset(self.prepared.train, shuffle=True)
        layers = augmentation(self.recipe) if augmented else []
        return augment(batches, layers, self.recipe.seed) if layers else batches

    def _dataset(self, images: Images, *, shuffle: bool) -> tf.data.Dataset:
        targets = np.eye(self.classes, dtype=np.float32)[images.labels]
        weights = self.recipe.class_weight if shuffle else None
        return arrays(images.pixels, targets, self.recipe.batch_size, shuffle, weights, seed=self.recipe.seed)

    @property
    def _steps_in_epoch(self) -> int:
        return -(-len(self.prepared.train) // self.recipe.batch_size)

    def _steps(self, epochs: int) -> int:
        """The length of a schedule, which needs two steps."""
        return max(2, epochs * self._steps_in_epoch)

    def _validation_accuracy(self, model: keras.Model) -> float:
        return accuracy(model, self.prepared.validation, self.recipe.batch_size)

    @contextlib.contextmanager
    def _session(self, policy: str) -> Iterator[None]:
        """The recipe's devices, precision and seed, after a warm-up; TensorFlow's notes on tracing are held back.

        Precision and logging are put back afterwards; the random state is not.
        """
        before = keras.config.dtype_policy()
        logger, level = tf.get_logger(), tf.get_logger().level
        logger.setLevel("ERROR")
        keras.config.set_dtype_policy(policy)
        try:
            with on_devices(self.recipe):
                _warm_up(policy, self.recipe.device, self.recipe.strategy)
                keras.utils.set_random_seed(self.recipe.seed)
                yield
        finally:
            keras.config.set_dtype_policy(before)
            logger.setLevel(level)


def accuracy(model: keras.Model, images: Images, batch_size: int) -> float:
    """The share of images whose most probable class is the right one."""
    return float(np.mean(predict(model, images, batch_size).argmax(axis=1) == images.labels))


def predict(model: keras.Model, images: Images, batch_size: int) -> np.ndarray:
    """The outputs for every image, (n, classes), by direct calls: a few batches are not worth a traced function."""
    starts = range(0, len(images), batch_size)
    batches = (images.pixels[start : start + batch_size] for start in starts)
    return np.concatenate([keras.ops.convert_to_numpy(model(batch, training=False)) for batch in batches])


@functools.cache  # they are due once a process, for each precision and choice of devices
def _warm_up(policy: str, device: str | None, strategy: str | None) -> None:
    """Pay TensorFlow's first-use costs, so that they are charged to neither side of the comparison."""
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(2, 3), keras.layers.Flatten()])
    model.compile("adam", "mse", metrics=["mae"])
    inputs, targets = np.zeros((4, 8, 8, 1), np.float32), np.zeros((4, 72), np.float32)
    model.fit(inputs, targets, validation_data=(inputs, targets), verbose=0)
