"""A look at model and data before they train on several replicas."""

import warnings
import weakref
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_opt.core.call_stack import users_stacklevel
from keras_opt.core.errors import InputError, check_at_least, kind_error
from keras_opt.core.replicas import this_worker
from keras_opt.distribute.beginning import Beginning
from keras_opt.distribute.findings import RULES, Finding, Training, outside_of_scope
from keras_opt.distribute.refusals import check_model

_warned: weakref.WeakKeyDictionary[keras.Model, set[str]] = weakref.WeakKeyDictionary()


def preflight(model: keras.Model, data: Any = None, batch_size: int = 32) -> list[Finding]:
    """Finds what would train otherwise under the strategy of `model` than on one device; draws no batch.

    `fit` and `evaluate` under `keras_opt.distribute.strategy` look by themselves: they raise what is a refusal, warn
    once of what is a warning, and say nothing of a repair. Call it to know beforehand.

    | name | severity | of what |
    |---|---|---|
    | model | refusal | what crashes or is clipped wrong: `jit_compile`, the optimizer's own accumulation or clipping |
    | scope | warning | a model from outside of the scope, which trains alone; refused if it was made half inside |
    | uneven batches | repair | shares of different sizes, which are weighed; refused for losses of several reductions |
    | own step | warning | a `train_step` or `compute_loss` of the model's own that may not divide by the replicas |
    | batch norm | warning | BatchNormalization that is not synchronised |
    | convolution | repair | on CPUs, small batches, which each replica gets whole |
    | loss, mask, added loss, activity regularizer | warning | what is, or may be, no mean over the samples |
    | mixed losses | refusal | layers that add a loss, beside a BatchNormalization that is synchronised |
    | missing parts | refusal | `None` in the place of an array |
    | sharding | warning | `AutoShardPolicy.OFF` under several workers |

    Args:
        model: Compiled, in the scope of its strategy.
        data: What `fit` is to get: a `tf.data.Dataset` of batches, of which `element_spec` and options are read;
            arrays, or a tuple of them; `None` or anything else counts as unknown.
        batch_size: Int of at least 1, for arrays: that of the whole batch. Default 32, as in `fit`.

    Returns:
        The findings, refusals first; for a model on one device none, unless the process has a strategy of several.

    Raises:
        TypeError: `model` is no compiled Keras model.
        ValueError: `batch_size` is wrong.

    Example:
        >>> import keras, keras_opt, numpy as np
        >>> with keras_opt.distribute.strategy("one").scope():
        ...     model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        ...     model.compile("sgd", "mse")
        >>> keras_opt.distribute.preflight(model, (np.ones((8, 3)), np.ones((8, 1))))
        []
    """
    check_at_least("preflight", "batch_size", batch_size, 1)
    if not isinstance(model, keras.Model) or not model.compiled:
        raise kind_error("preflight", "model", model, "a compiled Keras model", "Compile it in the strategy's scope.")
    found = []
    try:
        check_model(model)
    except InputError as refusal:
        found.append(Finding("model", "refusal", str(refusal), ""))
    found += _findings(model, _element_spec(data, batch_size), _shard_policy(data))
    return sorted(found, key=lambda finding: ("refusal", "warning", "repair").index(finding.severity))


def check_beginning(beginning: Beginning) -> None:
    """Raise the refusals of what begins, and warn of the warnings once for each model.

    Raises:
        ValueError: There are refusals; the message is all of them.
    """
    model, dataset = beginning.model, beginning.dataset
    # Of data that the caller has split himself, nothing is known.
    findings = _findings(model, () if dataset is None else dataset.element_spec, _shard_policy(dataset))
    _raise_or_warn(model, findings, is_training=beginning.is_training)


def check_outside(model: keras.Model) -> None:
    """The same where the training of a model begins that is not of the process's strategy.

    Raises:
        ValueError: It was made half inside of the scope.
    """
    _raise_or_warn(model, list(outside_of_scope(model)), is_training=True)


def _raise_or_warn(model: keras.Model, findings: list[Finding], is_training: bool) -> None:
    refusals = [f"{finding.text} {finding.cure}" for finding in findings if finding.severity == "refusal"]
    if refusals:
        raise InputError(f"preflight: {' '.join(refusals)}")
    told = _warned.setdefault(model, set())
    for finding in findings:
        if finding.severity == "warning" and finding.text not in told and is_training:
            told.add(finding.text)
            warnings.warn(f"preflight: {finding.text} {finding.cure}", stacklevel=users_stacklevel())


def _findings(model: keras.Model, element_spec: Any, shard_policy: Any) -> list[Finding]:
    strategy = model.distribute_strategy
    replicas, workers = strategy.num_replicas_in_sync, this_worker(strategy).count
    if replicas == 1:
        return list(outside_of_scope(model))
    training = Training(model, element_spec, shard_policy, replicas, workers)
    return [finding for rule in RULES for finding in rule(training)]


def _shard_policy(data: Any) -> Any:
    if not isinstance(data, tf.data.Dataset):
        return None
    return data.options().experimental_distribute.auto_shard_policy


def _element_spec(data: Any, batch_size: int) -> Any:
    """What is known of the batches of `data`; `None` if nothing is."""
    if isinstance(data, tf.data.Dataset):
        return data.element_spec
    arrays = [leaf for leaf in keras.tree.flatten(data) if leaf is not None]
    if not arrays or not all(isinstance(array, np.ndarray | tf.Tensor) and len(array.shape) for array in arrays):
        return None
    size = batch_size if all(array.shape[0] % batch_size == 0 for array in arrays) else None
    return [tf.TensorSpec((size, *array.shape[1:]), array.dtype) for array in arrays]
