"""Batches that do not split evenly over the replicas, with the loss, gradient and metrics of one device."""

from typing import Any

import keras
import tensorflow as tf

from keras_opt.callbacks.loss_reduction import reductions_of
from keras_opt.core.all_layers import all_layers
from keras_opt.distribute.beginning import Beginning
from keras_opt.models.batch_norms import norms_in
from keras_opt.models.convolutions import CONVOLUTIONS, TRANSPOSED_CONVOLUTIONS
from keras_opt.training.weighed_shares import weigh_shares


def even_batches(beginning: Beginning) -> tf.data.Dataset | None:
    """Let batches of any size be split, and give the dataset to take in the place of `beginning.dataset`.

    No row is added, left out or moved: TensorFlow splits a batch as evenly as it can, the last replicas may get no row,
    and `weigh_shares` makes the loss that of the batch. Rows of weight zero, which would make the shares equal, do not
    serve: Keras counts them in the loss of the epoch and in every unweighted metric.

    Two things cannot take a share without rows: a BatchNormalization in training that is not synchronised, whose moving
    statistics would be NaN for ever, and a convolution on a CPU, of which oneDNN (TensorFlow 2.21) gives no rows of
    another shape, where the step dies. There each replica gets the whole of such a small batch.
    """
    replicas = beginning.replicas
    if replicas == 1:
        return beginning.dataset
    reductions = reductions_of(beginning.model)
    weigh_shares(beginning.model, reductions.pop() if len(reductions) == 1 else None)
    dataset = beginning.dataset
    if dataset is None or not may_be_uneven(dataset.element_spec, replicas):
        return dataset
    needs_rows = convolutions_on_cpus(beginning.model, beginning.strategy)
    needs_rows += unsynchronized_norms(beginning.model) if beginning.is_training else []
    return _repeat_small(dataset, replicas) if needs_rows else dataset


def may_be_uneven(element_spec: Any, replicas: int) -> bool:
    """Whether batches of `element_spec` may split into shares of different sizes."""
    shapes = [spec.shape for spec in tf.nest.flatten(element_spec) if hasattr(spec, "shape")]
    sizes = {shape[0] if shape.rank else None for shape in shapes}
    return any(size is None or size % replicas for size in sizes)


def leaves_replicas_empty(rows: Any, replicas: int) -> Any:
    """Whether TensorFlow, with ceil(rows / replicas) rows for each replica in turn, has none left for the last."""
    return -(-rows // replicas) * (replicas - 1) >= rows


def unsynchronized_norms(model: keras.Model) -> list[keras.layers.BatchNormalization]:
    """The BatchNormalization layers that will take their statistics from each replica's share alone."""
    return [norm for norm in norms_in(model) if norm.trainable and not norm.synchronized]


def convolutions_on_cpus(model: keras.Model, strategy: tf.distribute.Strategy) -> list[keras.layers.Layer]:
    """The convolutions of `model`, if replicas of `strategy` are CPUs."""
    if not any("CPU" in device for device in strategy.extended.worker_devices):
        return []
    return [layer for layer in all_layers(model) if isinstance(layer, (*CONVOLUTIONS, *TRANSPOSED_CONVOLUTIONS))]


def _repeat_small(dataset: tf.data.Dataset, replicas: int) -> tf.data.Dataset:
    """`dataset`, with batches that are too small for all replicas once for each of them."""

    def repeat(*batch: Any) -> Any:
        batch = batch if len(batch) > 1 else batch[0]
        rows = tf.shape(tf.nest.flatten(batch)[0])[0]

        def repeated() -> Any:
            return tf.nest.map_structure(lambda leaf: _stacked([leaf] * replicas), batch)

        return tf.cond(leaves_replicas_empty(rows, replicas), repeated, lambda: batch)

    return dataset.map(repeat)


def _stacked(parts: list[Any]) -> Any:
    is_sparse = isinstance(parts[0], tf.SparseTensor)
    return tf.sparse.concat(0, parts) if is_sparse else tf.concat(parts, 0)
