"""What acts inside the compiled step."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf


class StepPlugin:
    """What a plugin of `StepHooks` may do in the compiled step. A phase does nothing until a plugin overrides it.

    A step runs through the phases in this order: `begin_batch`; `run_step`; `merge` for each micro-batch, if there is a
    `MicroBatchMerger`; then, for each real update, `on_gradients` of all plugins, `clip_gradients` of all, the
    optimizer's own clipping and its update, `after_update` of all. Phases are called while the step is traced, once for
    each replica; `build` before the first of them that sees gradients.

    In `on_gradients`, `clip_gradients` and `after_update` the lists hold the trainable variables that have a gradient.
    The gradients are those of the whole batch: summed over replicas, merged over micro-batches, unscaled, and with
    repeated embedding ids summed. Each is a tensor or a `tf.IndexedSlices`, of the variable's shape and type.
    """

    owner = "StepHooks"
    """Whom an error names: the callback that the plugin is of."""

    is_single = False
    """Whether a model takes only one plugin of that owner."""

    needs_train_step = False
    """Whether it cannot act in a loop that calls `optimizer.apply` by itself, outside of the model's own step."""

    def build(self, variables: list[keras.Variable]) -> None:
        """Make the state (see `PluginState`); outside the graph, once for each set of variables."""

    def begin_batch(self) -> None:
        """Be told that a batch begins: once for each, however often plugins run the step; before `build` maybe."""

    def run_step(self, train_step: Callable[[Any], dict[str, Any]], data: Any) -> dict[str, Any]:
        """Run the model's `train_step` on one batch, as often as this plugin wants."""
        return train_step(data)

    def on_gradients(self, gradients: list[Any], variables: list[keras.Variable]) -> None:
        """See the gradients before any clipping."""

    def clip_gradients(self, gradients: list[Any], variables: list[keras.Variable]) -> list[Any]:
        """Return the gradients to use."""
        return gradients

    def after_update(self, variables: list[keras.Variable]) -> None:
        """See, or change, the variables after the update and their constraints."""

    def on_interrupt(self) -> None:
        """Do what is due at the end of training: a Ctrl-C ends it now, before `build` maybe, or in mid-phase."""

    def close(self) -> None:
        """Let go of what must not outlive the training. Called when the plugin leaves, however long after it."""


class MicroBatchMerger(StepPlugin):
    """A plugin that gathers micro-batches into one update; a hub takes one."""

    owner = "GradientAccumulation"
    is_single = True
    needs_train_step = True

    def merge(self, gradients: list[Any], variables: list[keras.Variable], data: Any) -> tf.Tensor:
        """Add this replica's gradients of the micro-batch `data`; say whether an update is due, alike on all replicas.

        The gradients are not summed over replicas, and scaled by the optimizer's `loss_scale_factor`, if it has one.
        """
        raise NotImplementedError

    def take(self) -> list[Any]:
        """What was gathered on this replica, such that the sum over replicas is the gradient; gathering starts anew."""
        raise NotImplementedError

    def is_pending(self) -> bool:
        """Outside the step: whether micro-batches are waiting for their update."""
        raise NotImplementedError
