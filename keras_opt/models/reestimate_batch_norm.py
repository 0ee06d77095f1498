"""BatchNorm statistics taken anew from a dataset, for weights that were not trained together with their statistics."""

import contextlib
import itertools
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_opt.core.errors import NoEffectWarning, argument_error, check_at_least
from keras_opt.models.batch_norms import norms_in
from keras_opt.models.batches import batches_of, check_inputs


def reestimate_batch_norm(model: keras.Model, dataset: Any, steps: int | None = None, batch_size: int = 32) -> None:
    """Sets the moving statistics of each BatchNormalization to those of `dataset`.

    For weights whose statistics do not fit them: an average of several models, weights that were pruned or changed by
    hand, or a trained model on data of another kind (another camera, another microphone), where it is the whole of
    AdaBN and needs no labels. The training set, or some thousand samples of it, will do. With too few samples the
    statistics are worse than those of the training.

    As in training, each norm takes in activations that the norms before it have normalised by their batch. Over all
    samples i of all batches, not over batches (a short last one counts less):

        moving_mean = sum_i x_i / N        moving_variance = sum_i (x_i - moving_mean)^2 / N

    Only these change. Dropout is off, trainable weights, optimizer and metrics are left alone, and an exception leaves
    the old statistics. Norms that training would not update are left out: frozen ones, and ones called with
    `training=False`. A norm that is called several times gets the statistics of all its inputs together.

    Args:
        model: A built Keras model.
        dataset: Batches of x, `(x, y)` or `(x, y, sample_weight)`, as a `tf.data.Dataset`, a `PyDataset` or another
            iterable; or the same as arrays. As in `fit`, the x of a model of several inputs is a list or a dict of
            arrays. The order within a batch does not matter, but shuffle a set that is sorted by class.
        steps: Int of at least 1, the batches to use; needed if `dataset` never ends. Default `None`, all of them.
        batch_size: Int of at least 1, the batch size if arrays were given. Choose that of the training. Default 32.

    Raises:
        ValueError: `dataset` is empty, a data frame, endless without `steps`, or has not the inputs of the model; or an
            argument is out of its range. Of a Python iterable it cannot be told whether it ends.

    Warns:
        NoEffectWarning: The model has no BatchNormalization that training would update.

    Cost: one forward pass. Unlike torch's `update_bn`, which averages the batches' variances, the spread between
        batches counts too, and Dropout is not drawn.

    Source: P. Izmailov et al., 2018, "Averaging Weights Leads to Wider Optima and Better Generalization", section 3.2;
        Y. Li et al., 2016, "Revisiting Batch Normalization For Practical Domain Adaptation".

    Example:
        >>> import keras_opt, numpy as np
        >>> model = keras_opt.models.convnet((4,), (12, 12, 1), 3)
        >>> keras_opt.models.reestimate_batch_norm(model, np.random.default_rng(0).normal(size=(64, 12, 12, 1)))
    """
    check_at_least("reestimate_batch_norm", "batch_size", batch_size, 1)
    if steps is not None:
        check_at_least("reestimate_batch_norm", "steps", steps, 1)
    check_inputs("reestimate_batch_norm", "dataset", dataset, model)
    batches = batches_of(dataset, model, steps, batch_size)
    first = next(batches, None)
    if first is None:
        cure = "Give at least one batch; an iterator that was used up gives none."
        raise argument_error("reestimate_batch_norm", "dataset", dataset, "not empty", cure)
    norms = _trained_norms(model, first)
    if not norms:
        present = ", ".join(norm.name for norm in norms_in(model)) or "none"
        warnings.warn(
            f"reestimate_batch_norm: model {model.name!r} has no BatchNormalization that training would update; those "
            f"that are there, frozen or called with training=False: {present}.",
            NoEffectWarning,
            stacklevel=2,
        )
        return
    totals = {place: Moments() for place in range(len(norms))}
    measure = tf.function(lambda x: _measure(model, norms, x), autograph=False, reduce_retracing=True)
    for x in itertools.chain([first], batches):
        for place, moments in measure(x):
            totals[int(place)].add(*(part.numpy() for part in moments))
    uncalled = [norm.name for norm, total in zip(norms, totals.values(), strict=True) if not total.count]
    if uncalled:
        must_be = f"a model that calls its norms at inference too; these it does not: {', '.join(uncalled)}"
        cure = "Re-estimate before quantize_aware, which folds norms into kernels."
        raise argument_error("reestimate_batch_norm", "model", model.name, must_be, cure)
    for norm, total in zip(norms, totals.values(), strict=True):
        norm.moving_mean.assign(total.mean)
        norm.moving_variance.assign(total.variance)


@dataclass
class Moments:
    """Count, mean and sum of squared deviations of samples that come in parts (Chan et al., 1979)."""

    count: Any = 0.0
    mean: Any = 0.0
    squares: Any = 0.0

    def add(self, count: Any, mean: Any, squares: Any) -> None:
        """Take in a part of the samples."""
        total = self.count + count
        if total == 0:
            return
        offset = np.float64(mean) - self.mean
        self.mean = self.mean + offset * (count / total)
        self.squares = self.squares + squares + offset**2 * (self.count * count / total)
        self.count = total

    @property
    def variance(self) -> Any:
        """The mean of the squared deviations."""
        return self.squares / self.count


def _trained_norms(model: keras.Model, x: Any) -> list[keras.layers.BatchNormalization]:
    """The norms that a training step updates: it is traced, and not run."""
    trained = []

    def note(norm, inputs, training, mask):
        if training and norm.trainable and norm not in trained:
            trained.append(norm)
        return training

    def step(x):
        with _intercepted(norms_in(model), note), keras.StatelessScope():
            model(x, training=True)

    tf.function(step, autograph=False).get_concrete_function(x)
    return trained


def _measure(model: keras.Model, norms: list[keras.layers.BatchNormalization], x: Any) -> list[tuple[int, Any]]:
    """Run the model, these norms as in training; for each of their calls the norm's place and its inputs' moments."""
    found = []

    def note(norm, inputs, training, mask):
        found.append((norms.index(norm), _moments(inputs, norm.axis, mask)))
        return True

    # What the norms write to their moving statistics ends with the scope.
    with _intercepted(norms, note), keras.StatelessScope():
        model(x, training=False)
    return found


def _moments(inputs: Any, axis: int, mask: Any) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """How many there are, their mean and the sum of squared deviations, for each channel; masked steps are left out."""
    inputs = tf.convert_to_tensor(inputs)
    inputs = inputs if inputs.dtype == tf.float64 else tf.cast(inputs, tf.float32)
    others = [each for each in range(inputs.shape.rank) if each != axis % inputs.shape.rank]
    used = tf.ones_like(inputs)
    if mask is not None:
        used *= tf.cast(tf.convert_to_tensor(mask)[..., tf.newaxis], inputs.dtype)
        inputs = tf.where(used > 0, inputs, 0)
    counts = tf.reduce_sum(used, others, keepdims=True)
    mean = tf.math.divide_no_nan(tf.reduce_sum(inputs * used, others, keepdims=True), counts)
    squares = tf.reduce_sum(tf.square(inputs - mean) * used, others)
    return tf.cast(tf.reshape(counts, [-1])[0], tf.float64), tf.reshape(mean, [-1]), squares


@contextlib.contextmanager
def _intercepted(norms: list[keras.layers.BatchNormalization], note: Callable[..., bool]) -> Iterator[None]:
    """While it lasts, each call of a norm asks `note(norm, inputs, training, mask)` in which mode to run."""

    def intercept(norm):
        call = norm.call

        def intercepted(inputs, training=None, mask=None):
            masked = {} if mask is None else {"mask": mask}  # the `call` of a subclass may not take one
            return call(inputs, training=note(norm, inputs, training, mask), **masked)

        # Past `__setattr__`: it is no state of the layer.
        vars(norm)["call"] = intercepted

    try:
        for norm in norms:
            intercept(norm)
        yield
    finally:
        for norm in norms:
            vars(norm).pop("call", None)
