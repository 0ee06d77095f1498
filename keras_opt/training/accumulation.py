"""Micro-batches gathered into one update, as a plugin of the compiled step."""

from typing import Any

import keras
import tensorflow as tf

from keras_opt.core.errors import InputError
from keras_opt.core.replicas import replica_count, replica_variable, sum_over_replicas
from keras_opt.training.plugin_state import PluginState
from keras_opt.training.step_plugin import MicroBatchMerger


class GradientAccumulator(MicroBatchMerger):
    """Gathers the gradients of `steps` micro-batches into the gradient of the batch that they make up.

    With `g_i` the gradient of micro-batch i and `w_i` its weight, the update gets sum(w_i g_i) / sum(w_i), over all
    micro-batches of all replicas; with reduction "sum" it gets sum(g_i). Whatever waits for its update when the plugin
    leaves is dropped, for half a batch is not the batch: flush the hub before.

    Args:
        reduction: The loss's reduction. "sum_over_batch_size" weighs by samples, "mean_with_sample_weight" by the sum
            of the sample weights, "sum" by 1.
        steps: Micro-batches to an update.
        are_shares_weighed: Whether `weigh_shares` has made the gradient of each replica its part of that of the whole
            micro-batch, whose weight then is the same on every replica.
    """

    def __init__(self, reduction: str, steps: int = 1, are_shares_weighed: bool = False):
        self._reduction = reduction
        self._are_shares_weighed = are_shares_weighed
        self._wanted_steps = steps
        self._state = PluginState()
        self._steps: tf.Variable | None = None

    def set_steps(self, steps: int) -> None:
        """Gather `steps` micro-batches from now on; outside the step."""
        self._wanted_steps = steps
        if self._steps is not None:
            self._steps.assign(steps)

    def build(self, variables: list[keras.Variable]) -> None:
        if self._reduction == "sum":
            check_unregularized(variables)
        self._steps = replica_variable(self._wanted_steps, tf.int64, "accumulation_steps")
        self._gathered = self._state.variable("micro_batches", 0, tf.int64)
        self._weight = self._state.variable("accumulated_weight", 0.0, tf.float64)
        self._types = [tf.as_dtype(variable.dtype) for variable in variables]
        self._sums = [
            self._state.variable(f"accumulated_gradient_{place}", tf.zeros(variable.shape, _sum_type(kind)))
            for place, (variable, kind) in enumerate(zip(variables, self._types, strict=True))
        ]

    def merge(self, gradients: list[Any], variables: list[keras.Variable], data: Any) -> tf.Tensor:
        weight = self._weight_of(data)
        if self._are_shares_weighed and self._reduction != "sum":
            weight = sum_over_replicas([weight])[0] / replica_count()
        self._weight.assign_add(weight)
        for total, gradient in zip(self._sums, gradients, strict=True):
            total.assign_add(tf.cast(tf.convert_to_tensor(gradient), total.dtype) * tf.cast(weight, total.dtype))
        self._gathered.assign_add(1)
        return self._gathered >= self._steps

    def take(self) -> list[Any]:
        factor = tf.constant(1.0, tf.float64)
        if self._reduction != "sum":
            # Keras has divided each replica's loss by their number already.
            (weight,) = sum_over_replicas([self._weight.read_value()])
            factor = tf.math.divide_no_nan(tf.cast(replica_count(), weight.dtype), weight)
        means = [total.read_value() * tf.cast(factor, total.dtype) for total in self._sums]
        self._gathered.assign(0)
        self._weight.assign(0.0)
        for total in self._sums:
            total.assign(tf.zeros_like(total))
        return [tf.cast(mean, kind) for mean, kind in zip(means, self._types, strict=True)]

    def is_pending(self) -> bool:
        return int(self._state.value("micro_batches", 0)) > 0

    def state_dict(self) -> dict[str, Any]:
        """The micro-batches that wait for their update, of every replica; empty if none do."""
        return self._state.state_dict() if self.is_pending() else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on gathering where `state_dict` was called. No step may have been made yet."""
        self._state.load_state_dict(state)

    def _weight_of(self, data: Any) -> tf.Tensor:
        if self._reduction == "sum":
            return tf.constant(1.0, tf.float64)
        x, _, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        if self._reduction == "mean_with_sample_weight" and sample_weight is not None:
            return tf.reduce_sum(tf.cast(_only(sample_weight), tf.float64))
        first = next(leaf for leaf in keras.tree.flatten(x) if leaf is not None)
        return tf.cast(tf.shape(first)[0], tf.float64)


def check_unregularized(variables: list[keras.Variable]) -> None:
    """Raise if one of `variables` has a regularizer; sums of gradients, unlike means, would have it many times over."""
    regularized = [variable.path for variable in variables if variable.regularizer is not None]
    if regularized:
        raise InputError(
            f"GradientAccumulation: the loss has reduction 'sum' and {regularized[0]!r} has a regularizer, whose loss "
            "the big batch has once, but each of its micro-batches too. Compile the loss with "
            'reduction="sum_over_batch_size", or leave the regularizer out and use weight decay.'
        )


def _only(sample_weight: Any) -> Any:
    weights = keras.tree.flatten(sample_weight)
    if len(weights) > 1:
        raise InputError(
            "GradientAccumulation: the loss has reduction 'mean_with_sample_weight' and each output has sample weights "
            "of its own, so no weight of a micro-batch is right for all of them. Compile the losses with "
            'reduction="sum_over_batch_size", or give one weight a row in a dataset of (x, y, sample_weight); that of '
            "arrays `fit` copies for each output."
        )
    return weights[0]


def _sum_type(kind: tf.DType) -> tf.DType:
    """Half-precision gradients, times their samples, are summed in float32."""
    return tf.float32 if kind in (tf.float16, tf.bfloat16) else kind
