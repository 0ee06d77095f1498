"""Shares of a batch that differ in size, weighed so that the replicas compute the loss of the whole batch."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from keras_opt.core.replicas import replica_count, replica_number, sum_over_replicas


def share_weight(weight: tf.Tensor, batch_weight: tf.Tensor, replicas: int) -> tf.Tensor:
    """What the mean over a share must be multiplied by, for the mean over replicas to be that over the batch.

    With n_r rows of N on replica r of R, it is n_r R / N: sum_r (n_r R / N) mean_r / R = sum_r n_r mean_r / N.

    Args:
        weight: Rows of the share, or the sum of its sample weights, if the mean is taken by these.
        batch_weight: The same of the whole batch.
        replicas: Into how many shares it is split.
    """
    return tf.math.divide_no_nan(weight * replicas, batch_weight)


def weigh_shares(model: keras.Model, reduction: str | None) -> None:
    """Let `model.compute_loss` weigh each replica's share of a batch by its rows, from now on.

    TensorFlow splits a batch of three rows into two and one, one of a single row into one and none. Keras takes the
    mean of each share and gives all shares the same say, so that gradients are not those of the batch. Weighed, they
    are; the loss of each output is that of the batch; and as each row stands on one replica only, there is no padding
    that metrics, or a synchronised BatchNormalization, could see. What layers give to `add_loss` is weighed as a mean
    over samples.

    It hangs a wrapper on the instance, once; it acts in replicas, on batches whose size is not known to be even.

    Args:
        model: A compiled model.
        reduction: That of its losses: "sum_over_batch_size" weighs by rows, "mean_with_sample_weight" by the sum of the
            sample weights, "sum" does not weigh; with `None` the loss stays what it is.

    Cost: two sums of a number over replicas a step, for which neither the forward nor the backward pass waits.
    """
    replaced = vars(model).get("compute_loss")
    own = replaced.own if isinstance(replaced, _WeighedLoss) else model.compute_loss
    is_of_keras = getattr(own, "__func__", None) is keras.Model.compute_loss
    # Past `__setattr__`: Keras's tracker must not take what the wrapper is bound to for a part of the model.
    vars(model)["compute_loss"] = _WeighedLoss(own, reduction, is_of_keras)


def weigh_first(model: keras.Model, step: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """`step`, a train or test step of `model`, with its share weighed before the forward pass.

    Not in between, where the loss is computed: the replicas of a process are traced in turns, which change where they
    communicate, and what layers give to `add_loss` is forgotten where the next one begins its forward pass.
    """

    def weighed(data: Any) -> Any:
        if not are_shares_weighed(model) or replica_count() == 1:
            return step(data)
        with vars(model)["compute_loss"].weighing(data):
            return step(data)

    return weighed


def are_shares_weighed(model: keras.Model) -> bool:
    """Whether `weigh_shares` was called on `model`."""
    return isinstance(vars(model).get("compute_loss"), _WeighedLoss)


class _WeighedLoss:
    """Stands in for `compute_loss`.

    Keras's own gets weighed sample weights, so that the losses it records of several outputs are right too. One of the
    model's own may do with sample weights as it likes, and `mean_with_sample_weight` divides by them: their result is
    weighed instead.
    """

    def __init__(self, own: Any, reduction: str | None, is_of_keras: bool):
        self.own = own
        self._reduction = reduction
        self._weighs_samples = is_of_keras and reduction == "sum_over_batch_size"
        # Of the step that is being traced, by replica, for one replica is not always traced in one thread.
        self._weights: dict[int, tf.Tensor | None] = {}

    @contextlib.contextmanager
    def weighing(self, data: Any) -> Iterator[None]:
        """While it lasts, the share of this replica is `data`."""
        x, _, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        self._weights[replica_number()] = self._weight_of(x, sample_weight)
        try:
            yield
        finally:
            self._weights.pop(replica_number())

    def __call__(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, **settings: Any
    ) -> tf.Tensor:
        if tf.distribute.in_cross_replica_context() or replica_count() == 1:
            return self.own(x, y, y_pred, sample_weight, **settings)
        is_known = replica_number() in self._weights
        weight = self._weights[replica_number()] if is_known else self._weight_of(x, sample_weight)
        if weight is None:
            return self.own(x, y, y_pred, sample_weight, **settings)
        if self._weighs_samples:
            loss = self.own(x, y, y_pred, _times(sample_weight, weight), **settings)
            added = _added_loss(self.own.__self__)
            if added is None:
                return _with_value_of_batch(loss)
            loss += tf.cast((weight - 1) * added / replica_count(), loss.dtype)
        else:
            loss = self.own(x, y, y_pred, sample_weight, **settings)
            loss *= tf.cast(weight, loss.dtype)
        # All of it is weighed, so that a share without rows has none; there a mean over rows would be NaN.
        return _with_value_of_batch(tf.where(weight > 0, loss, tf.zeros_like(loss)))

    def _weight_of(self, x: Any, sample_weight: Any) -> tf.Tensor | None:
        """The weight of the share of this replica; `None` if shares are alike, or nothing is known of the loss."""
        first = next(leaf for leaf in keras.tree.flatten(x) if leaf is not None)
        is_even = first.shape[0] is not None and self._reduction != "mean_with_sample_weight"
        if is_even or self._reduction is None:
            return None
        if self._reduction == "sum":
            return tf.ones((), keras.config.floatx())
        share = tf.cast(tf.shape(first)[0], tf.float64)
        if self._reduction == "mean_with_sample_weight" and sample_weight is not None:
            weights = [weight for weight in keras.tree.flatten(sample_weight) if weight is not None]
            share = tf.reduce_sum(tf.cast(weights[0], tf.float64))
        (batch,) = sum_over_replicas([share])
        return tf.cast(share_weight(share, batch, replica_count()), keras.config.floatx())


def _times(sample_weight: Any, weight: tf.Tensor) -> Any:
    """`sample_weight` times the number `weight`, which stands for itself where there is none."""

    def one(own: Any) -> tf.Tensor:
        return weight if own is None else tf.cast(own, weight.dtype) * weight

    return keras.tree.map_structure(one, sample_weight)


def _added_loss(model: keras.Model) -> tf.Tensor | None:
    """What layers have given to `add_loss`, `None` if nothing."""
    regularizers = sum(variable.regularizer is not None for variable in model.trainable_variables)
    losses = model.losses
    if len(losses) == regularizers:
        return None
    # The regularizers' are in it too; over all shares their weights come to nothing.
    return tf.add_n([tf.cast(tf.reduce_sum(loss), keras.config.floatx()) for loss in losses])


def _with_value_of_batch(loss: tf.Tensor) -> tf.Tensor:
    """`loss` with its own gradient and the mean value over replicas, which Keras records by the rows of each."""
    (total,) = sum_over_replicas([tf.stop_gradient(loss)])
    return loss + tf.stop_gradient(total / replica_count() - loss)
