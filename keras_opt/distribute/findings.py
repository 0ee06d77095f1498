"""What trains otherwise than on one device: one function a finding."""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import keras
import tensorflow as tf

from keras_opt.callbacks.loss_reduction import (
    are_activities_summed,
    fault_of,
    layers_with_activity_regularizer,
    losses_of,
    reductions_of,
)
from keras_opt.core.all_layers import all_layers
from keras_opt.core.process_strategy import ours
from keras_opt.core.replicas import local_replica_count, this_worker
from keras_opt.distribute.even_batches import convolutions_on_cpus, may_be_uneven, unsynchronized_norms
from keras_opt.models.batch_norms import norms_in
from keras_opt.training.step_hooks import has_own_train_step

# Names in a method whose loss is divided by the number of replicas.
_SCALED = {"compute_loss", "train_step", "num_replicas_in_sync", "replica_count"}

_DIVIDING = {"num_replicas_in_sync", "compute_average_loss"}


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


def missing_parts(training: Training) -> Iterator[Finding]:
    """`None` in the place of an array, of which TensorFlow makes no share."""
    specs = [] if training.element_spec is None else tf.nest.flatten(training.element_spec)
    if not all(hasattr(spec, "shape") for spec in specs):
        yield Finding(
            "missing parts",
            "refusal",
            "the data have None in the place of an array, which TensorFlow cannot split over replicas.",
            "Leave it out, or give weights of 1 in the place of missing sample weights.",
        )


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


def own_methods(training: Training) -> Iterator[Finding]:
    """Losses that methods of the model's own compute, whose gradients are summed over replicas."""
    model, kind = training.model, type(training.model)
    found = ["train_step"] if has_own_train_step(model) else []
    found += ["compute_loss"] if kind.compute_loss is not keras.Model.compute_loss else []
    for name in found:
        if not _names_in(getattr(kind, name)) & _SCALED:
            yield Finding(
                "own step",
                "warning",
                f"the `{name}` of model {model.name!r} is its own, and gradients are summed over {training.replicas} "
                "replicas: of a loss that it takes the mean of by itself, as with `tf.reduce_mean`, they are "
                f"{training.replicas} times as large. Keras's `compute_loss` and `keras.losses.Loss` see to it.",
                "Call one of these, or divide the loss by tf.distribute.get_strategy().num_replicas_in_sync.",
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
        function = getattr(loss, "fn", type(loss).call) if isinstance(loss, keras.losses.Loss) else loss
        if callable(function) and _names_in(function) & _DIVIDING:
            name = getattr(loss, "name", getattr(function, "__name__", "loss"))
            text = f"the loss {name!r} seems to divide by the number of replicas, as Keras does once more."
            yield Finding("loss", "warning", text, "Compile the loss of one device.")
    if None in reductions_of(training.model):
        text = f"a loss has reduction None, of which Keras reports {training.replicas} times the value."
        yield Finding("loss", "warning", text, 'Compile it with reduction="sum_over_batch_size" or "sum".')


def activity_regularizers(training: Training) -> Iterator[Finding]:
    """Penalties that Keras 3.12 sums over the batch, of which replicas take the mean."""
    penalized = layers_with_activity_regularizer(training.model)
    if penalized and are_activities_summed():
        yield Finding(
            "activity regularizer",
            "warning",
            f"the layer {penalized[0]!r} has an activity_regularizer, which Keras sums over the batch. Of the sums "
            f"over shares it takes the mean, 1/{training.replicas} of what it is on one device.",
            f"Make it {training.replicas} times as strong, or leave it out.",
        )


def added_losses(training: Training) -> Iterator[Finding]:
    """What layers give to `add_loss`, of which replicas take the mean."""
    adding = _layers_that_add_losses(training.model)
    if adding:
        yield Finding(
            "added loss",
            "warning",
            f"the layer {adding[0]!r} adds a loss. Each replica computes it of its share, and Keras takes the mean of "
            f"them, by their rows: a mean over samples stays what it is, a sum is 1/{training.replicas}.",
            f"Add means over samples, or make a sum {training.replicas} times as large.",
        )


def mixed_losses(training: Training) -> Iterator[Finding]:
    """Losses of layers, beside a layer in which the replicas of a process take turns.

    Keras keeps them in the layer, which the replicas have in common, and empties it where a replica begins.
    """
    model = training.model
    adding = _layers_that_add_losses(model) or layers_with_activity_regularizer(model)
    synchronized = [norm.name for norm in norms_in(model) if norm.trainable and norm.synchronized]
    if adding and synchronized and local_replica_count(model.distribute_strategy) > 1:
        yield Finding(
            "mixed losses",
            "refusal",
            f"the layer {adding[0]!r} adds a loss, and BatchNormalization {synchronized[0]!r} is synchronised: Keras "
            "gives replicas one another's losses, without their gradients.",
            "Freeze the BatchNormalization, or compute that loss in `compute_loss` of the model.",
        )


def _layers_that_add_losses(model: keras.Model) -> list[str]:
    return [layer.name for layer in all_layers(model) if "add_loss" in _names_in(type(layer).call)]


def _names_in(function: Callable[..., Any]) -> set[str]:
    """What `function` calls or asks for by name, none of a function that is not Python's."""
    return set(getattr(getattr(inspect.unwrap(function), "__code__", None), "co_names", ()))


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


RULES = (
    missing_parts,
    uneven_batches,
    own_methods,
    batch_norm,
    convolutions,
    losses,
    activity_regularizers,
    added_losses,
    mixed_losses,
    masks,
    sharding,
)
