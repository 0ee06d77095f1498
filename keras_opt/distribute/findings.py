"""What trains otherwise than on one device: one function a finding."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import keras
import tensorflow as tf

from keras_opt.callbacks.loss_reduction import fault_of, losses_of, reductions_of
from keras_opt.core.all_layers import all_layers
from keras_opt.core.process_strategy import ours
from keras_opt.core.replicas import this_worker
from keras_opt.distribute.even_batches import convolutions_on_cpus, may_be_uneven, unsynchronized_norms
from keras_opt.training.step_hooks import has_own_train_step


@dataclass(frozen=True)
class Finding:
    """One thing that `preflight` has found.

    Attributes:
        name: What it is about, in one word or two.
        severity: `"refusal"`: `fit` raises; `"warning"`: it trains, otherwise than on one device; `"repair"`: it trains
            as on one device because keras_opt has mended it.
        text: What would happen, and of what.
        cure: What to do, one sentence.
    """

    name: str
    severity: Literal["refusal", "warning", "repair"]
    text: str
    cure: str

    def __str__(self) -> str:
        return f"{self.severity} ({self.name}): {self.text} {self.cure}".rstrip()


@dataclass(frozen=True)
class Training:
    """What is about to train, as far as it is known before the first batch.

    Attributes:
        model: Compiled.
        element_spec: Of a global batch; `None` if unknown.
        shard_policy: The data's; `None` if unknown.
        replicas: Into how many shares a batch is split.
        workers: How many processes there are.
    """

    model: keras.Model
    element_spec: Any = None
    shard_policy: tf.data.experimental.AutoShardPolicy | None = None
    replicas: int = 2
    workers: int = 1

    @property
    def is_maybe_uneven(self) -> bool:
        """Whether batches may split into shares of different sizes."""
        return self.element_spec is None or may_be_uneven(self.element_spec, self.replicas)


def uneven_batches(training: Training) -> Iterator[Finding]:
    """Shares of different sizes, which Keras gives the same say."""
    if not training.is_maybe_uneven:
        return
    if len(reductions_of(training.model)) > 1:
        yield Finding(
            "uneven batches",
            "refusal",
            f"batches may not split evenly over {training.replicas} replicas, and the losses of model "
            f"{training.model.name!r} have different reductions, so no weight of a share is right for all of them.",
            "Compile the losses with one reduction, or batch with drop_remainder=True and a multiple of the replicas.",
        )
    elif has_own_train_step(training.model):
        yield Finding(
            "uneven batches",
            "warning",
            f"batches may not split evenly over {training.replicas} replicas, and the `train_step` of model "
            f"{training.model.name!r} is its own: shares of different sizes have the same say in the gradient, unless "
            "it calls `compute_loss`.",
            "Override `compute_loss` instead, or batch with drop_remainder=True and a multiple of the replicas.",
        )
    else:
        yield Finding(
            "uneven batches",
            "repair",
            f"batches may not split evenly over {training.replicas} replicas; the loss of each share is weighed by its "
            "rows, so that gradient, loss and metrics are those of the batch.",
            "To save two sums of a number over replicas a step, batch with drop_remainder=True.",
        )


def batch_norm(training: Training) -> Iterator[Finding]:
    """Statistics of a share instead of the batch."""
    norms = unsynchronized_norms(training.model)
    if not norms:
        return
    names = ", ".join(repr(norm.name) for norm in norms[:3]) + (f" and {len(norms) - 3} more" if norms[3:] else "")
    small = (
        " A batch that is too small for all replicas is given to each of them whole, and counts that often in the "
        "metrics of the epoch."
        if training.is_maybe_uneven
        else ""
    )
    yield Finding(
        "batch norm",
        "warning",
        f"BatchNormalization {names} takes its statistics from each replica's share, 1/{training.replicas} of the "
        f"batch: another model than on one device.{small}",
        "Call keras_opt.models.synchronize_batch_norm(model), or freeze them.",
    )


def convolutions(training: Training) -> Iterator[Finding]:
    """Shares without rows, of which TensorFlow's convolutions on CPUs die."""
    found = convolutions_on_cpus(training.model, training.model.distribute_strategy)
    if found and training.is_maybe_uneven:
        yield Finding(
            "convolution",
            "repair",
            f"the layer {found[0].name!r} takes no share without rows on a CPU. A batch that is too small for all "
            f"{training.replicas} replicas is given to each of them whole, and counts that often in the metrics of the "
            "epoch; the gradient is that of the batch.",
            "For exact metrics take a batch size that leaves no such rest.",
        )


def losses(training: Training) -> Iterator[Finding]:
    """Losses that are no mean over samples."""
    for loss in losses_of(training.model):
        fault = fault_of(loss)
        if fault is not None:
            name, reason, cure = fault
            text = f"the loss {name!r} {reason}; each replica computes it of its share alone."
            yield Finding("loss", "warning", text, f"{cure}.")
    if None in reductions_of(training.model):
        text = f"a loss has reduction None, of which Keras reports {training.replicas} times the value."
        yield Finding("loss", "warning", text, 'Compile it with reduction="sum_over_batch_size" or "sum".')


def activity_regularizers(training: Training) -> Iterator[Finding]:
    """Penalties that Keras sums over the batch, of which replicas take the mean."""
    penalized = [
        layer.name for layer in all_layers(training.model) if getattr(layer, "activity_regularizer", None) is not None
    ]
    if penalized:
        yield Finding(
            "activity regularizer",
            "warning",
            f"the layer {penalized[0]!r} has an activity_regularizer, which Keras sums over the batch. Of the sums "
            f"over shares it takes the mean, 1/{training.replicas} of what it is on one device.",
            f"Make it {training.replicas} times as strong, or leave it out.",
        )


def masks(training: Training) -> Iterator[Finding]:
    """Masked steps of sequences, whose number differs from share to share."""
    outputs = getattr(training.model, "outputs", None) or ()
    masking = [
        layer.name
        for layer in all_layers(training.model)
        if isinstance(layer, keras.layers.Masking) or getattr(layer, "mask_zero", False)
    ]
    if masking and any(len(output.shape) > 2 for output in outputs) and "sum" not in reductions_of(training.model):
        yield Finding(
            "mask",
            "warning",
            f"the layer {masking[0]!r} masks steps of sequences, and Keras takes the mean over the steps that each "
            "replica's share has left: a step counts more where there are few.",
            'Compile the loss with reduction="sum" and a lower learning rate.',
        )


def sharding(training: Training) -> Iterator[Finding]:
    """Workers that all read the same rows."""
    off = training.shard_policy == tf.data.experimental.AutoShardPolicy.OFF
    if training.workers > 1 and off:
        yield Finding(
            "sharding",
            "warning",
            f"the dataset has AutoShardPolicy.OFF: each of the {training.workers} workers trains on all rows that its "
            "own pipeline gives, in batches of its share. Where the pipelines are the same, every row is trained on "
            f"{training.workers} times an epoch, by all workers at once.",
            "Leave the policy at AUTO or DATA, unless each worker reads rows of its own.",
        )


def outside_of_scope(model: keras.Model) -> Iterator[Finding]:
    """A model of no strategy that trains by itself, in a process with a strategy of several replicas.

    It is right where that is meant, for a model to compare with, say; so it is a warning. A model that is only
    evaluated, or called, has no such finding, nor one of another strategy.
    """
    strategy = ours()
    is_of_none = not tf.distribute.has_strategy() and model.distribute_strategy is tf.distribute.get_strategy()
    if strategy is None or strategy.num_replicas_in_sync == 1 or not is_of_none:
        return
    cure = "Make model, optimizer and metrics, and call `compile`, inside `with strategy.scope():`"
    moved = [*model.trainable_variables, *getattr(getattr(model, "optimizer", None), "variables", ())]
    inside = [variable for variable in moved if strategy.extended.variable_created_in_scope(variable.value)]
    if inside:
        text = f"variable {inside[0].path!r} was made in the strategy's scope and model {model.name!r} outside of it: "
        yield Finding("scope", "refusal", f"{text}TensorFlow cannot train it.", f"{cure}.")
        return
    workers = this_worker(strategy).count
    what = "it trains on one device alone"
    if workers > 1:
        what = f"each of the {workers} workers trains one of its own, on all rows, and writes all files"
    yield Finding(
        "scope",
        "warning",
        f"model {model.name!r} was made outside of the scope of the process's strategy: {what}.",
        f"{cure}, unless it is meant so.",
    )


RULES = (uneven_batches, batch_norm, convolutions, losses, activity_regularizers, masks, sharding)
