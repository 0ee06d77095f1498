"""What `tf.distribute` asks of code inside the compiled step, and which of its workers this process is."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf


class Worker(NamedTuple):
    """A process of a training that may have several.

    Attributes:
        index: Its number, from 0.
        count: How many there are.
    """

    index: int
    count: int

    @property
    def is_chief(self) -> bool:
        """Whether it is the one that writes the files that are no worker's own."""
        return self.index == 0


def this_worker(strategy: tf.distribute.Strategy) -> Worker:
    """Which of the workers of `strategy`, the `distribute_strategy` of a model, this process is."""
    resolver = strategy.cluster_resolver
    cluster = None if resolver is None else resolver.cluster_spec()
    jobs = [job for job in ("chief", "worker") if cluster and job in cluster.jobs]
    tasks = [(job, task) for job in jobs for task in cluster.task_indices(job)]
    if len(tasks) < 2:
        return Worker(0, 1)
    return Worker(tasks.index((resolver.task_type, resolver.task_id)), len(tasks))


def local_replica_count(strategy: tf.distribute.Strategy) -> int:
    """How many of the replicas of `strategy` are in this process: so many values a variable has here."""
    return strategy.num_replicas_in_sync // this_worker(strategy).count


def gather_from_workers(row: Sequence[int], strategy: tf.distribute.Strategy) -> list[list[int]]:
    """The `row` of every worker, in their order. All call it at one place of the training, with rows of one length.

    Cost: a message to and from each worker, in some tens of milliseconds.
    """
    rows = strategy.experimental_distribute_values_from_function(lambda context: tf.constant([row], tf.int64))
    gathered = strategy.gather(rows, axis=0).numpy().tolist()
    return gathered[:: local_replica_count(strategy)]


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


def least_over_replicas(values: Any) -> Any:
    """The least over all replicas of each number of the vector `values`; outside of replicas `values` itself."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return values
    return tf.reduce_min(context.all_gather(values[tf.newaxis], axis=0), axis=0)


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
