"""A small model that learns from a large one, inside stock `fit`."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import tensorflow as tf
from keras import ops

from keras_opt.compression.feature_hints import hints
from keras_opt.compression.soft_targets import TASKS, SoftTargets, as_logits, output_kinds, task_of
from keras_opt.core.errors import (
    argument_error,
    check_at_least,
    check_choice,
    check_fraction,
    check_positive,
    kind_error,
)
from keras_opt.data.arrays import arrays
from keras_opt.models.graph import functional

_LABELS, _LOGITS = "labels", "teacher_logits"


def distill(
    student: keras.Model,
    teacher: keras.Model,
    temperature: float = 3.0,
    student_loss_weight: float = 0.5,
    features: Mapping[str, str] | None = None,
    feature_loss_weight: float = 1.0,
    task: str | None = None,
) -> "Distillation":
    """Returns a model that trains `student` on the labels and on what `teacher` makes of the same inputs.

    Compile and fit it as you would the student, with the loss, the metrics and the callbacks of the labels:

        loss = w * labels' loss + (1 - w) * (soft targets + v * features) + the student's own regularisation
        soft targets = T^2 * KL(softmax(teacher's logits / T) || softmax(student's logits / T))

    with w = `student_loss_weight`, T = `temperature`, v = `feature_loss_weight`. A wrong answer of the teacher tells
    more than the label: that this coat looks much like a pullover. It pays where the student is too small to reach the
    teacher by itself, or labels are few; between models of one size it gains little.

    The student is trained in place, and is what `save`, `ModelCheckpoint` and `predict` of the returned model save and
    ask. Let it be what `quantize_aware` returns, or put `PruneLowMagnitude` among the callbacks, to do both at once.
    Validation reads the labels' loss alone, so that `val_loss` compares with that of a plain fit.

    The logits are found where a model ends in a softmax or sigmoid. What is cured of `keras.distillation.Distiller`:
    with its default loss it takes the divergence of the logits themselves, not of their softmax; it takes probabilities
    for logits; it drops sample weights, class weights and regularisers; with features it runs the student twice a step
    and so moves its BatchNorm statistics twice.

    Args:
        student: A built functional or Sequential model.
        teacher: One with the same inputs and outputs of the same shapes; it is left as it is and runs as in inference.
            A `PredictionEnsemble` may teach. For images that are not augmented, `cache_teacher` asks it only once.
        temperature: Float above 0; the higher, the more the small probabilities of the teacher count. Default 3.
        student_loss_weight: Fraction in [0, 1] of the labels' loss. Default 0.5.
        features: Student's layer name to teacher's: pairs of layers whose outputs are to agree too. Channels that
            differ in number are matched by a learnt projection, maps that differ in size by resizing the teacher's.
        feature_loss_weight: Float above 0, the weight of each pair. Default 1.
        task: `"classification"`, `"multi_label"` or `"regression"`; `None` reads it from the student's last activation,
            which is possible for a softmax or a sigmoid. A segmentation is a classification of each pixel.

    Raises:
        TypeError: `student` or `teacher` is no Keras model, or `features` no mapping.
        ValueError: Inputs, classes or features do not fit, or an argument is out of its range.

    Cost: one inference of the teacher a step; a projection for each pair of features.

    Source: G. Hinton, O. Vinyals and J. Dean, 2015, "Distilling the Knowledge in a Neural Network"; features:
        A. Romero et al., 2015, "FitNets: Hints for Thin Deep Nets".

    Example:
        >>> import keras_opt, numpy as np
        >>> student, teacher = (keras_opt.models.mlp([units], (4,), 3) for units in (2, 32))
        >>> model = keras_opt.compression.distill(student, teacher)
        >>> model.compile("adam", "sparse_categorical_crossentropy")
        >>> sorted(model.fit(np.ones((8, 4)), np.zeros(8), verbose=0).history)
        ['distillation_loss', 'loss', 'student_loss']
    """
    for name, model in (("student", student), ("teacher", teacher)):
        _check_model("distill", name, model)
    check_positive("distill", "temperature", temperature)
    check_fraction("distill", "student_loss_weight", student_loss_weight, one_allowed=True)
    check_positive("distill", "feature_loss_weight", feature_loss_weight)
    check_choice("distill", "task", task, (None, *TASKS))
    if features is not None and not isinstance(features, Mapping):
        cure = 'Give for example {"block_2": "stage_3"}.'
        raise kind_error("distill", "features", features, "a dict from student's to teacher's layer names", cure)
    kinds = {name: output_kinds("distill", name, model) for name, model in (("student", student), ("teacher", teacher))}
    _check_fit(student, teacher)
    task = task or task_of(kinds["student"])
    if task is None:
        must_be = "given where the student ends in no softmax and no sigmoid"
        raise argument_error("distill", "task", None, must_be, 'Logits: "classification". Values: "regression".')
    return Distillation(student, teacher, kinds, task, temperature, student_loss_weight, features, feature_loss_weight)


def _check_model(owner, name, model):
    if not isinstance(model, keras.Model):
        raise kind_error(owner, name, model, "a Keras model", "Load a file with keras_opt.load_model.")


def _check_fit(student, teacher):
    for what, cure in (("input", "Put a resizing into the teacher."), ("output", "Train a teacher of these classes.")):
        ours, theirs = ([tuple(each.shape[1:]) for each in getattr(model, f"{what}s")] for model in (student, teacher))
        if ours != theirs:
            must_be = f"a model with the student's {what}s of shape {ours}"
            raise argument_error("distill", "teacher", theirs, must_be, cure)


@dataclass(frozen=True)
class _Untracked:
    """A model in a holder, so that Keras counts its weights among those of no other."""

    model: keras.Model


class _Step(NamedTuple):
    """What the student made of a batch in training, until loss and metrics have read it."""

    outputs: Any
    features: list[Any]


class Distillation(keras.Model):
    """What `distill` returns: trains `student`, and is compiled and fitted as that would be.

    Attributes:
        student: The model in training.
    """

    def __init__(self, student, teacher, kinds, task, temperature, student_loss_weight, features, feature_loss_weight):
        super().__init__(name=student.name)
        features = dict(features or {})
        self.student = student
        self.hints = hints("distill", features, student, teacher)
        self._learner = _with_features(student, features)
        self._teacher = _with_features(teacher, features.values())
        self._kinds = kinds
        self._soft_targets = SoftTargets(task, temperature)
        self._squares = keras.losses.MeanSquaredError()
        self._student_loss_weight, self._feature_loss_weight = student_loss_weight, feature_loss_weight
        self._student_loss = keras.metrics.Mean(name="student_loss")
        self._distillation_loss = keras.metrics.Mean(name="distillation_loss")
        self.built = True

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        if training:
            return _Step(*self._learner.model(inputs, training=True))
        return self.student(inputs, training=False)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        labels, logits = _split(y)
        if not isinstance(y_pred, _Step):
            return super().compute_loss(x, labels, y_pred, sample_weight, training)
        penalty = sum(self.losses)  # regularisers, which are no part of what is weighed
        student_loss = super().compute_loss(x, labels, y_pred.outputs, sample_weight, training) - penalty
        distillation_loss = self._distance(x, logits, y_pred, sample_weight)
        self._student_loss.update_state(student_loss)
        self._distillation_loss.update_state(distillation_loss)
        weight = self._student_loss_weight
        return weight * student_loss + (1 - weight) * distillation_loss + penalty

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        labels, _ = _split(y)
        if isinstance(y_pred, _Step):
            return super().compute_metrics(x, labels, y_pred.outputs, sample_weight)
        results = super().compute_metrics(x, labels, y_pred, sample_weight)
        return {name: value for name, value in results.items() if name not in ("student_loss", "distillation_loss")}

    def save(self, filepath: str | os.PathLike, *arguments: Any, **settings: Any) -> None:
        """Save the student, as a plain model."""
        self.student.save(filepath, *arguments, **settings)

    def _distance(self, x, logits, step, sample_weight):
        """How far the student is from the teacher."""
        weights = keras.tree.flatten(sample_weight)
        outputs = keras.tree.flatten(step.outputs)
        theirs, features = keras.tree.flatten(logits), []
        if logits is None or self.hints:
            told, features = self._teacher.model(x, training=False)
            if logits is None:
                theirs = _logits(keras.tree.flatten(told), self._kinds["teacher"])
        ours = _logits(outputs, self._kinds["student"])
        by_output = weights if len(weights) == len(ours) else weights * len(ours)
        soft = sum(
            self._soft_targets(ops.stop_gradient(their), our, weight)
            for their, our, weight in zip(theirs, ours, by_output, strict=True)
        )
        by_row = weights[0] if len(weights) == 1 and weights[0] is not None and len(weights[0].shape) == 1 else None
        hinted = [hint(*pair) for hint, *pair in zip(self.hints, step.features, features, strict=True)]
        return soft + self._feature_loss_weight * sum(self._squares(their, our, by_row) for our, their in hinted)


def cache_teacher(
    teacher: keras.Model, x: Any, y: Any, batch_size: int = 32, seed: int | None = None, verbose: str | int = "auto"
) -> tf.data.Dataset:
    """Asks `teacher` once about every row of `x`, and returns batches with its logits beside the labels.

    For the `fit` of what `distill` returns, which then runs the student alone:

        model.fit(keras_opt.compression.cache_teacher(teacher, x, y, seed=0), ...)

    Not for augmented images: the teacher should see the image that the student sees (L. Beyer et al., 2022,
    "Knowledge distillation: A good teacher is patient and consistent").

    Args:
        teacher: The model that was given to `distill`.
        x: Inputs of shape (n, ...), as `keras_opt.data.arrays` takes them.
        y: Targets of shape (n, ...).
        batch_size: Int of at least 1.
        seed: Of the order of the rows, which is new in each epoch.
        verbose: Of the prediction's progress bar, as in `predict`.

    Returns:
        A dataset of `(x, {"labels": y, "teacher_logits": logits})`.

    Raises:
        ValueError: The teacher's outputs are neither probabilities nor logits, or x and y do not fit.

    Cost: one prediction of the teacher for each row, and its logits in memory as float32.
    """
    _check_model("cache_teacher", "teacher", teacher)
    kinds = output_kinds("cache_teacher", "teacher", teacher)
    check_at_least("cache_teacher", "batch_size", batch_size, 1)
    if len(kinds) != 1:
        cure = "Fit with the teacher in the step, without this."
        raise argument_error("cache_teacher", "teacher", teacher.name, "a model with one output", cure)
    outputs = teacher.predict(x, batch_size=batch_size, verbose=verbose)
    logits = ops.convert_to_numpy(as_logits(outputs, kinds[0]))
    return arrays(x, {_LABELS: y, _LOGITS: logits}, batch_size=batch_size, seed=seed)


def _split(targets):
    """The labels and the teacher's logits of a batch of `cache_teacher`; other targets are all labels."""
    if isinstance(targets, Mapping) and set(targets) == {_LABELS, _LOGITS}:
        return targets[_LABELS], targets[_LOGITS]
    return targets, None


def _logits(outputs, kinds):
    return [as_logits(output, kind) for output, kind in zip(outputs, kinds, strict=True)]


def _with_features(model, names):
    """`model` with the outputs of inner layers beside its own; the layers are the same."""
    model = functional(model)
    features = [model.get_layer(name).output for name in names]
    return _Untracked(keras.Model(model.input, [model.output, features]))
