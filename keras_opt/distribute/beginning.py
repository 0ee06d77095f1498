"""What is known where a `fit` or an `evaluate` under the process's strategy begins."""

from dataclasses import dataclass

import keras
import tensorflow as tf


@dataclass(frozen=True)
class Beginning:
    """A `fit`, or an `evaluate` by itself or within a fit, that has its data and has made no step.

    `begin` gets it, once for each set of data of each call, and answers with the dataset to take in the place of this
    one.

    Attributes:
        model: Compiled, built maybe not yet.
        dataset: Of global batches, not distributed yet; `None` for what `distribute_datasets_from_function` gave, and
            for the one batch of `train_on_batch`.
        is_training: Whether it is the training data of a `fit`.
        batches: How many batches an epoch has, `None` if unknown.
    """

    model: keras.Model
    dataset: tf.data.Dataset | None
    is_training: bool
    batches: int | None

    @property
    def strategy(self) -> tf.distribute.Strategy:
        """The strategy that the model was made under."""
        return self.model.distribute_strategy

    @property
    def replicas(self) -> int:
        """How many shares each batch is split into, over all workers."""
        return self.strategy.num_replicas_in_sync
