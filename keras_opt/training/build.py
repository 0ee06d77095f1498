"""Building as `fit` does, without a step."""

from typing import Any

import keras
import tensorflow as tf

from keras_opt.core.all_layers import all_layers
from keras_opt.training.step_hooks import has_own_train_step


def build_without_a_step(model: keras.Model, batch: tf.TypeSpec | tuple) -> None:
    """Make the variables of `model` and its optimizer that the first step would make, if any are missing.

    Args:
        model: A compiled model.
        batch: What a batch consists of, in `tf.TypeSpec`s.
    """
    layers_are_built = all(layer.built for layer in all_layers(model))
    if model.optimizer.built and layers_are_built:
        return
    if layers_are_built and not has_own_train_step(model):
        model.optimizer.build(model.trainable_variables)
    else:
        tf.function(model.train_step, autograph=False).get_concrete_function(batch)  # traced, not run


def build_with_metrics(model: keras.Model, batch: Any) -> None:
    """Make the variables of `model` and of its compiled loss and metrics.

    Args:
        model: A compiled model.
        batch: What a batch consists of, as `tf.TypeSpec`s.
    """

    def step(batch: Any) -> None:
        if has_own_train_step(model):  # it may never call the model
            model.train_step(batch)
            return
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
        y_pred = model(x, training=True)
        if model.loss is not None:
            model.compute_loss(x, y, y_pred, sample_weight)
        model.compute_metrics(x, y, y_pred, sample_weight)

    with model.distribute_strategy.scope():
        tf.function(step, autograph=False).get_concrete_function(batch)  # traced, not run
