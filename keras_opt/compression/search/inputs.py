"""What `compress` is given, checked and brought into one form before anything is trained."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_opt.callbacks.monitors import resolve_mode
from keras_opt.compression.distillation.soft_targets import output_kinds, tasks_of
from keras_opt.compression.search.recipe import CompressionRecipe
from keras_opt.compression.search.result import Limits
from keras_opt.core.errors import argument_error, check_at_least, check_positive, kind_error
from keras_opt.data.arrays import arrays

_BATCH_SIZE = 32


def check_numbers(limits: Limits, budget_seconds: float | None, epochs: int, learning_rate: float, seed: int) -> None:
    """Raise unless each number of `compress` is in its range."""
    check_at_least("compress", "max_drop", limits.max_drop, 0, whole=False)
    for name in ("max_flash_bytes", "max_arena_bytes"):
        if (value := getattr(limits, name)) is not None:
            check_at_least("compress", name, value, 1)
    if budget_seconds is not None:
        check_positive("compress", "budget_seconds", budget_seconds)
    check_at_least("compress", "epochs", epochs, 1)
    check_positive("compress", "learning_rate", learning_rate)
    check_at_least("compress", "seed", seed, 0)


def check_recipes(recipes: Any) -> None:
    """Raise unless there are recipes."""
    cure = 'Give for example [CompressionRecipe("int8"), CompressionRecipe("int8", aware=True)].'
    if not isinstance(recipes, Sequence) or not all(isinstance(each, CompressionRecipe) for each in recipes):
        raise kind_error("compress", "recipes", recipes, "a list of CompressionRecipe", cure)
    if not recipes:
        raise argument_error("compress", "recipes", recipes, "a list of at least one", cure)


def task_or_raise(model: keras.Model, task: str | None) -> str:
    """What the model is for; raise where it cannot be told, or the model cannot be compressed."""
    if not isinstance(model, keras.Model):
        raise kind_error("compress", "model", model, "a Keras model", "Load a file with keras_opt.load_model.")
    kinds = output_kinds("compress", "model", model)
    if len(kinds) != 1:
        cure = "Compress by hand: quantize_aware, prune_channels and to_tflite take several outputs."
        raise argument_error("compress", "model", model.name, "a model with one output", cure)
    return tasks_of("compress", model, kinds, task)[0]


@keras.saving.register_keras_serializable("keras_opt")
def logit_accuracy(y_true: Any, y_pred: Any) -> Any:
    """The share of labels, of 0 or 1, that the sign of the logits tells."""
    return keras.ops.mean(keras.ops.equal(y_pred > 0, keras.ops.cast(y_true, y_pred.dtype) > 0.5), axis=-1)


def metric_or_raise(metric: str | keras.metrics.Metric, task: str, model: keras.Model) -> tuple[Any, str, bool]:
    """What `metric_value` takes, its name, and whether less of it is better."""
    if isinstance(metric, str) and metric == "accuracy":
        if task == "regression":
            raise argument_error("compress", "metric", metric, "one of a regression", 'Give for example "mae".')
        if task == "multi_label" and output_kinds("compress", "model", model) == ["linear"]:
            return keras.metrics.MeanMetricWrapper(logit_accuracy, name=metric), metric, False
        return task, metric, False
    try:
        judged = keras.metrics.get(metric)
    except ValueError as error:
        cure = 'Give for example "accuracy", "mae" or a keras.metrics.Metric.'
        raise argument_error("compress", "metric", metric, "a metric that Keras knows", cure) from error
    if not isinstance(judged, keras.metrics.Metric):
        raise kind_error("compress", "metric", metric, "a name or a Keras metric", 'Give for example "accuracy".')
    mode = resolve_mode(judged.name, "auto")
    if mode == "auto":
        cure = "Name it for what it is, as in name='my_error' or name='my_accuracy'."
        raise argument_error("compress", "metric", judged.name, "named so that its direction is known", cure)
    # Keras numbers the names of some metrics by process, and the name decides whether a later call may go on.
    return judged, metric if isinstance(metric, str) else judged.name, mode == "min"


def batches(name: str, data: Any, seed: int) -> tf.data.Dataset:
    """Batches of data, of known number."""
    if isinstance(data, tuple) and len(data) == 2:
        return arrays(*data, batch_size=_BATCH_SIZE, shuffle=name == "train", seed=seed)
    if not isinstance(data, tf.data.Dataset) or not isinstance(data.element_spec, tuple):
        cure = "keras_opt.data.arrays and image_folder make such sets."
        raise kind_error("compress", name, data, "a tf.data.Dataset of (x, y) batches, or a pair of arrays", cure)
    if len(data.element_spec) not in (2, 3) or not isinstance(data.element_spec[1], tf.TensorSpec):
        cure = "Give (x, y), or (x, y, sample weight), where y is one tensor."
        raise argument_error("compress", name, data.element_spec, "a dataset of inputs with targets", cure)
    if data.cardinality() < 1:
        cure = "Apply tf.data.experimental.assert_cardinality(batches) to it."
        raise argument_error("compress", name, data, "a dataset of a known number of batches, at least 1", cure)
    return data


def check_inputs(name: str, data: tf.data.Dataset, model: keras.Model) -> None:
    """Raise unless batches of `data` have the shape of the model's one input; several are checked by the model."""
    spec = data.element_spec[0]
    if len(model.inputs) > 1 or not isinstance(spec, tf.TensorSpec):
        return
    takes = model.inputs[0].shape
    if not spec.shape.is_compatible_with(takes):
        cure = "Give batches, of inputs raw as the model takes them."
        raise argument_error("compress", name, tuple(spec.shape), f"batches of inputs of shape {tuple(takes)}", cure)


def check_targets(name: str, data: tf.data.Dataset, model: keras.Model, task: str, loss: Any) -> str | None:
    """Raise unless all integer labels name classes of the model; TensorFlow would say it in the midst of a training.

    What a loss of the user's own does with them is not known.

    Returns:
        What tells these labels from others, by how often each of them occurs. `None` where they were not looked at, or
        where `data` may not have the same in each call: a set with a `fresh_copy` has.
    """
    known = loss == "sparse_categorical_crossentropy" or isinstance(loss, keras.losses.SparseCategoricalCrossentropy)
    if not known or task not in ("classification", "segmentation") or _is_one_hot(data.element_spec[1], model):
        return None
    classes, ignored = model.outputs[0].shape[-1], getattr(loss, "ignore_class", None)
    found = Counter()
    for _, y, *_ in data:
        labels, counts = np.unique(y, return_counts=True)
        is_text = labels.dtype.kind in "OSU"
        odd = [label for label in labels if is_text or not (0 <= label < classes or label == ignored)]
        if odd:
            must_be = f"batches with labels from 0 to {classes - 1}, the classes of {model.name!r}"
            cure = "Number the labels from 0 on, or give a model with as many outputs as there are classes."
            raise argument_error("compress", name, f"... {odd[0]} ...", must_be, cure)
        found.update(dict(zip(labels.tolist(), counts.tolist(), strict=True)))
    return hashlib.sha256(repr(sorted(found.items())).encode()).hexdigest() if hasattr(data, "fresh_copy") else None


def _is_one_hot(targets: tf.TensorSpec, model: keras.Model) -> bool:
    outputs = model.outputs[0].shape
    return targets.shape.rank == len(outputs) and targets.shape[-1] == outputs[-1]


def loss_of(model: keras.Model, task: str, data: tf.data.Dataset) -> Any:
    """The loss the model was compiled with, or the usual one for its task and targets."""
    if model.loss is not None:
        return model.loss
    if task == "regression":
        return "mse"
    from_logits = output_kinds("compress", "model", model) == ["linear"]
    if task == "multi_label":
        return keras.losses.BinaryCrossentropy(from_logits=from_logits)
    if _is_one_hot(data.element_spec[1], model):
        return keras.losses.CategoricalCrossentropy(from_logits=from_logits)
    return keras.losses.SparseCategoricalCrossentropy(from_logits=from_logits)
