"""What `tf.distribute` asks of code inside the compiled step."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def replica_count() -> int:
    """How many replicas run the step that is being traced."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def replica_number() -> int:
    """Which of the replicas, from 0, is being traced."""
    return int(tf.get_static_value(tf.distribute.get_replica_context().replica_id_in_sync_group))


def sum_over_replicas(values: list[Any]) -> list[Any]:
    """The sum over all replicas of each of `values` (tensors or `tf.IndexedSlices`), the same on every replica."""
    if replica_count() == 1 or not values:
        return values
    own = [tf.identity(value) for value in values]  # TensorFlow fails on one tensor that all replicas share
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, own)


def replica_variable(value: Any, dtype: Any = None, name: str | None = None) -> tf.Variable:
    """A variable of the step's own state: each replica reads and writes its own copy, without communication.

    Read outside the step, it gives the first replica's value. Make it in the strategy's scope, outside replicas.
    """
    return tf.Variable(
        value,
        trainable=False,
        dtype=dtype,
        name=name,
        synchronization=tf.VariableSynchronization.ON_READ,
        aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
    )


def across_replicas(function: Callable[..., None], *args: Any) -> None:
    """Call `function(*args)` once for all replicas; `args` are no tensors."""
    if tf.distribute.has_strategy():
        tf.distribute.get_replica_context().merge_call(lambda strategy: function(*args))
    else:
        function(*args)


def cond(predicate: Any, when_true: Callable[..., Any], when_false: Callable[..., Any], args: tuple = ()) -> Any:
    """`tf.cond` of two functions of `args`, which may communicate between replicas.

    TensorFlow allows no communication in a plain `tf.cond` of a replica. So in a strategy, be it of one device, the
    choice is made once for all replicas, outside, by the first one's `predicate`; it must be the same on every replica.
    The functions must take every tensor as an argument, and return tensors of one structure.
    """
    if not tf.distribute.has_strategy():
        return tf.cond(predicate, lambda: when_true(*args), lambda: when_false(*args))

    def choose(strategy, predicate, *args):
        run = strategy.extended.call_for_each_replica
        chosen = strategy.experimental_local_results(predicate)[0]
        return tf.cond(chosen, lambda: run(_own(when_true), args=args), lambda: run(_own(when_false), args=args))

    return tf.distribute.get_replica_context().merge_call(choose, args=(predicate, *args))


def _own(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, with results that no other replica shares: where all share one, TensorFlow no longer counts them."""
    return lambda *args: tf.nest.map_structure(lambda x: None if x is None else tf.identity(x), function(*args))


def assign_all(variables: list[Any], values: list[Any]) -> None:
    """Assign `values`, the same on every replica, to Keras variables from inside the step."""
    targets = [variable.value for variable in variables]
    if not tf.distribute.has_strategy():
        for target, value in zip(targets, values, strict=True):
            target.assign(value)
        return

    def update(strategy, values):
        for target, value in zip(targets, values, strict=True):
            strategy.extended.update(target, lambda variable, new: variable.assign(new), args=(value,), group=False)

    tf.distribute.get_replica_context().merge_call(update, args=(values,))
