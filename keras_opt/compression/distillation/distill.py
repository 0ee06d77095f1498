"""A small model that learns from a large one, inside stock `fit`."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_opt.compression.distillation.feature_hints import hints
from keras_opt.compression.distillation.soft_targets import SoftTargets, output_kinds, tasks_of
from keras_opt.core.errors import argument_error, check_at_least, check_fraction, check_positive, kind_error
from keras_opt.core.replicas import replica_count
from keras_opt.data.arrays import arrays
from keras_opt.data.class_weights import sample_weights
from keras_opt.models.graph import functional, output_leaves

_LABELS, _TOLD, _WEIGHTS = "labels", "teacher", "sample_weight"


def distill(
    student: keras.Model,
    teacher: keras.Model,
    temperature: float = 3.0,
    student_loss_weight: float = 0.5,
    features: Mapping[str, str] | None = None,
    feature_loss_weight: float = 1.0,
    task: str | Sequence[str] | None = None,
) -> "Distillation":
    """Returns a model that trains `student` on the labels and on what `teacher` makes of the same inputs.

    Compile and fit it as you would the student, with the loss, the metrics and the callbacks of the labels:

        loss = w * labels' loss + (1 - w) * (soft targets + v * features) + the student's own regularisation
        soft targets = T^2 * KL(softmax(teacher's logits / T) || softmax(student's logits / T))

    with w = `student_loss_weight`, T = `temperature`, v = `feature_loss_weight`. A wrong answer of the teacher tells
    more than the label: that this coat looks much like a pullover. It pays where the student is too small to reach the
    teacher by itself, or labels are few; between models of one size it gains little.

    The student is trained in place, and is what `save`, `ModelCheckpoint` and `predict` of the returned model save and
    ask (files of weights alone have the projections too, and load into the returned model). Let it be what
    `quantize_aware` returns, or put `PruneLowMagnitude` among the callbacks, to do both at once.
    Validation reads the labels' loss alone, so that `val_loss` compares with that of a plain fit.

    With several outputs the soft targets of all are summed, each by the weight of its output in `loss_weights`.

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
        task: `"classification"`, `"multi_label"` (a single sigmoid too), `"regression"` or `"segmentation"` (a
            classification of each pixel), or a list of one for each output, in the order of `student.outputs`; `None`
            reads it from the student's last activation, which is possible for a softmax or a sigmoid.

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
    if features is not None and not isinstance(features, Mapping):
        cure = 'Give for example {"block_2": "stage_3"}.'
        raise kind_error("distill", "features", features, "a dict from student's to teacher's layer names", cure)
    kinds = {name: output_kinds("distill", name, model) for name, model in (("student", student), ("teacher", teacher))}
    _check_fit(student, teacher)
    tasks = tasks_of("distill", student, kinds["student"], task)
    tasks_of("distill", teacher, kinds["teacher"], tasks)
    told = [
        SoftTargets(each, temperature, *of_both)
        for each, *of_both in zip(tasks, kinds["teacher"], kinds["student"], strict=True)
    ]
    return Distillation(student, teacher, told, student_loss_weight, features, feature_loss_weight)


def _check_model(owner, name, model):
    if not isinstance(model, keras.Model):
        raise kind_error(owner, name, model, "a Keras model", "Load a file with keras_opt.load_model.")


def _check_fit(student, teacher):
    for what, cure in (("input", "Put a resizing into the teacher."), ("output", "Train a teacher of these classes.")):
        ours, theirs = ([tuple(each.shape[1:]) for each in getattr(model, f"{what}s")] for model in (student, teacher))
        if ours != theirs:
            must_be = f"a model with the student's {what}s of shape {ours}"
            raise argument_error("distill", "teacher", theirs, must_be, cure)
    _check_order("input", *([each.name for each in model.inputs] for model in (student, teacher)))
    _check_order("output", *(output_leaves(model) for model in (student, teacher)))


def _check_order(what, ours, theirs):
    if ours != theirs and sorted(ours) == sorted(theirs):
        cure = "They are matched by their order: build one of the two anew with that of the other."
        raise argument_error("distill", "teacher", theirs, f"a model with its {what}s in the order {ours}", cure)


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

    def __init__(self, student, teacher, soft_targets, student_loss_weight, features, feature_loss_weight):
        super().__init__(name=student.name, dtype=student.dtype_policy)  # which says whether to scale the loss
        features = dict(features or {})
        self.student = student
        self.output_names = functional(student).output_names  # by which `compile` takes losses and metrics
        outputs = functional(student).output
        self._keys = tuple(sorted(outputs) if isinstance(outputs, Mapping) else self.output_names)
        self.hints = hints("distill", features, student, teacher)
        self._learner = _with_features(student, features)
        self._teacher = _with_features(teacher, features.values())
        self._soft_targets = soft_targets
        self._squares = keras.losses.MeanSquaredError()
        self._student_loss_weight, self._feature_loss_weight = student_loss_weight, feature_loss_weight
        self._student_loss = keras.metrics.Mean(name="student_loss")
        self._distillation_loss = keras.metrics.Mean(name="distillation_loss")
        self.built = True

    def compile(
        self, optimizer: Any = "rmsprop", loss: Any = None, loss_weights: Any = None, *arguments: Any, **settings: Any
    ) -> None:
        """As the student's; `loss_weights` weigh the soft targets of each output too, by 1 where it has none."""
        super().compile(optimizer, loss, loss_weights, *arguments, **settings)
        weights = [1.0 if weight is None else weight for weight in self._in_order(loss_weights)]
        self._output_weights = tuple(weights * len(self._soft_targets) if len(weights) == 1 else weights)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        if training:
            return _Step(*self._learner.model(inputs, training=True))
        return self.student(inputs, training=False)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        labels, told = _split(y)
        if not isinstance(y_pred, _Step):
            return super().compute_loss(x, labels, y_pred, sample_weight, training)
        replicas = replica_count()  # Keras gives each its share of a loss
        penalty = sum(ops.sum(each) for each in self.losses) / replicas  # of regularisers: no part of what is weighed
        student_loss = super().compute_loss(x, labels, y_pred.outputs, sample_weight, training) - penalty
        distillation_loss = self._distance(x, told, y_pred, sample_weight)
        self._student_loss.update_state(student_loss * replicas)
        self._distillation_loss.update_state(distillation_loss * replicas)
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

    def _in_order(self, weights):
        """What Keras takes as weights, flat; of a dict by output `None` for each that is not named."""
        return keras.tree.flatten([weights.get(key) for key in self._keys] if isinstance(weights, Mapping) else weights)

    def _distance(self, x, told, step, sample_weight):
        """How far the student is from the teacher."""
        weights = self._in_order(sample_weight)
        features = []
        if told is None or self.hints:
            outputs, features = self._teacher.model(x, training=False)
            told = outputs if told is None else told
        theirs, ours = keras.tree.flatten(told), keras.tree.flatten(step.outputs)
        by_output = weights if len(weights) == len(ours) else weights * len(ours)
        distances = [
            distance(ops.stop_gradient(their), our, weight)
            for distance, their, our, weight in zip(self._soft_targets, theirs, ours, by_output, strict=True)
        ]
        soft = sum(weight * each for weight, each in zip(self._output_weights, distances, strict=True))
        by_row = weights[0] if len(weights) == 1 and weights[0] is not None and len(weights[0].shape) == 1 else None
        hinted = [hint(*pair) for hint, *pair in zip(self.hints, step.features, features, strict=True)]
        return soft + self._feature_loss_weight * sum(self._squares(their, our, by_row) for our, their in hinted)


def cache_teacher(
    teacher: keras.Model,
    x: Any,
    y: Any,
    batch_size: int = 32,
    seed: int | None = None,
    verbose: str | int = "auto",
    class_weight: Literal["balanced"] | Mapping[int, float] | None = None,
) -> tf.data.Dataset:
    """Asks `teacher` once about every row of `x`, and returns batches with its answers beside the labels.

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
        class_weight: As in `keras_opt.data.arrays`; give it here, since `fit` takes it for no such targets.

    Returns:
        A dataset of `(x, {"labels": y, "teacher": outputs})`, with sample weights where `class_weight` is given.

    Raises:
        ValueError: The teacher has several outputs, or x and y do not fit.

    Cost: one prediction of the teacher for each row, and its outputs in memory.
    """
    _check_model("cache_teacher", "teacher", teacher)
    check_at_least("cache_teacher", "batch_size", batch_size, 1)
    if len(getattr(teacher, "outputs", None) or ()) != 1:
        cure = "Fit with the teacher in the step, without this."
        raise argument_error("cache_teacher", "teacher", teacher.name, "a built model with one output", cure)
    (told,) = keras.tree.flatten(teacher.predict(x, batch_size=batch_size, verbose=verbose))  # maybe in a dict
    columns = {_LABELS: y, _TOLD: told}
    if class_weight is None:
        return arrays(x, columns, batch_size=batch_size, seed=seed)
    columns[_WEIGHTS] = sample_weights("cache_teacher", np.asarray(y), class_weight)
    batches = arrays(x, columns, batch_size=batch_size, seed=seed)
    return batches.map(lambda x, y: (x, {name: y[name] for name in (_LABELS, _TOLD)}, y[_WEIGHTS]))


def _split(targets):
    """The labels and the teacher's outputs of a batch of `cache_teacher`; other targets are all labels."""
    if isinstance(targets, Mapping) and set(targets) == {_LABELS, _TOLD}:
        return targets[_LABELS], targets[_TOLD]
    return targets, None


def _with_features(model, names):
    """`model` with the outputs of inner layers beside its own; the layers are the same."""
    model = functional(model)
    features = [model.get_layer(name).output for name in names]
    return _Untracked(keras.Model(model.input, [model.output, features]))
