"""What Keras does wrong under a `tf.distribute` strategy, put right for models made in the process's strategy.

The one file of the room that touches private attributes of Keras, for keras issue #20585 and its kin, as they are in
Keras 3.12 to 3.15.1:

- `_maybe_symbolic_build` averages the first batch over replicas, which fails on workers, and where it splits unevenly.
  Here the model is built from what the dataset says of its batches; none is drawn.
- `reduce_per_replica` averages the logs of workers, which are scalars, over their first axis. Here it is over the
  workers, all logs in one message.
- `_make_function` puts several steps into a `tf.while_loop`, where replicas cannot communicate. Here one runs after the
  other, which gives the same and saves nothing.
- `_make_function` takes the batch within the step: if there is none left, what needs no data, such as the count of
  updates, is done all the same. Here the batch comes before the step.
- `predict` lets workers share out the files of a dataset that reads files, so rows come back in another order. Here
  each worker takes its share of every batch.
- `predict_on_batch` gives what all replicas compute of the batch, each of the whole. Here it is once.
- `LossScaleOptimizer.apply` asks the first replica of each process whether a gradient overflowed: one on another makes
  the weights inf, and one on another worker lets that wait for ever. Here they agree.
- `reduce_values` divides a mean over samples by the number of replicas, over which gradients are summed, and leaves a
  loss alone that is one number by itself, as of `tf.reduce_mean`: its gradient is as many times too large. Here it is
  divided too.
- `SeedGenerator.next` gives every replica the same seed, so that dropout does the same to all shares. Here each replica
  has its own, the first one that of Keras.

Models of other strategies, or of none, go Keras's own way; if one of none trains, there is a warning. `undo` puts
everything back.
`tests/contract/test_keras_canary.py` fails on the day that Keras mends one of them, and says what to delete here.
"""

import weakref
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
from keras.src.backend.tensorflow import trainer
from keras.src.losses import loss as losses

from keras_opt.core.process_strategy import is_ours, set_ours
from keras_opt.core.replicas import replica_count, replica_number, this_worker
from keras_opt.distribute.beginning import Beginning
from keras_opt.distribute.preflight import check_outside
from keras_opt.distribute.refusals import check_metrics, check_whole_batch
from keras_opt.distribute.row_order import in_order
from keras_opt.training.callers import is_called_by_evaluation, is_predicting
from keras_opt.training.gradients import agree_on_overflow
from keras_opt.training.weighed_shares import weigh_first

_Trainer = trainer.TensorFlowTrainer
_KERAS_BUILD = _Trainer._maybe_symbolic_build
_KERAS_MAKE = _Trainer._make_function
_KERAS_PREDICT_ON_BATCH = _Trainer.predict_on_batch
_KERAS_REDUCE = trainer.reduce_per_replica
_KERAS_REDUCE_VALUES = losses.reduce_values
_KERAS_APPLY = keras.optimizers.LossScaleOptimizer.apply
_KERAS_NEXT = keras.random.SeedGenerator.next

_APART = 0x9E3779B1  # seeds of replicas: odd, and far from what generators are made with

Begin = Callable[[Beginning], tf.data.Dataset | None]


class _Repaired:
    """The strategy that Keras is repaired for, and what its data were before they were distributed."""

    def __init__(self, strategy: tf.distribute.Strategy, begin: Begin):
        self.strategy = strategy
        self.begin = begin
        self._sources = weakref.WeakKeyDictionary()

    def distribute(self, dataset: Any, options: Any = None) -> Any:
        """In the place of `strategy.experimental_distribute_dataset`."""
        if is_predicting() and this_worker(self.strategy).count > 1:
            dataset = in_order(dataset)
        distributed = type(self.strategy).experimental_distribute_dataset(self.strategy, dataset, options)
        self._sources[distributed] = dataset
        return distributed

    def source(self, distributed: Any) -> tf.data.Dataset | None:
        """The dataset that `distributed` was made of; `None` if it was made otherwise."""
        return self._sources.get(distributed)


_repaired: list[_Repaired] = []


def apply(strategy: tf.distribute.Strategy, begin: Begin) -> None:
    """Repair Keras for models that are made in the scope of `strategy`.

    Args:
        strategy: The process's one.
        begin: Called where a `fit` or an `evaluate` of such a model begins, before its first batch; if it gives back
            another dataset than it was given, of as many batches, that one is taken.
    """
    undo()
    set_ours(strategy)
    _repaired[:] = [_Repaired(strategy, begin)]
    vars(strategy)["experimental_distribute_dataset"] = _repaired[0].distribute
    _Trainer._maybe_symbolic_build = _build
    _Trainer._make_function = _make_function
    _Trainer.predict_on_batch = _predict_on_batch
    trainer.reduce_per_replica = _reduce
    losses.reduce_values = _reduce_values
    keras.optimizers.LossScaleOptimizer.apply = _apply
    keras.random.SeedGenerator.next = _next


def undo() -> None:
    """Give Keras its own code back."""
    set_ours(None)
    for repaired in _repaired:
        vars(repaired.strategy).pop("experimental_distribute_dataset", None)
    _repaired.clear()
    _Trainer._maybe_symbolic_build = _KERAS_BUILD
    _Trainer._make_function = _KERAS_MAKE
    _Trainer.predict_on_batch = _KERAS_PREDICT_ON_BATCH
    trainer.reduce_per_replica = _KERAS_REDUCE
    losses.reduce_values = _KERAS_REDUCE_VALUES
    keras.optimizers.LossScaleOptimizer.apply = _KERAS_APPLY
    keras.random.SeedGenerator.next = _KERAS_NEXT


# --- the build, where a `fit` and an `evaluate` begin -----------------------------------------------------------------


def _build(model: keras.Model, iterator: Any = None, data_batch: Any = None) -> None:
    if not is_ours(model.distribute_strategy):
        if not is_called_by_evaluation(model):
            check_outside(model)
        _KERAS_BUILD(model, iterator=iterator, data_batch=data_batch)
        return
    if iterator is None:
        check_whole_batch(model)
        _repaired[0].begin(Beginning(model, None, is_training=not is_called_by_evaluation(model), batches=1))
    else:
        if not isinstance(iterator.data_adapter, _Taken):
            _take(model, iterator)
        data_batch = iterator.data_adapter.symbols
    with model.distribute_strategy.scope():
        model._symbolic_build(data_batch=data_batch)
    check_metrics(model)


def _take(model: keras.Model, iterator: Any) -> None:
    """Let `iterator`, a `TFEpochIterator`, take the dataset that `begin` answers with."""
    repaired, strategy = _repaired[0], model.distribute_strategy
    source = repaired.source(iterator._distributed_dataset)
    is_training = not is_called_by_evaluation(model)
    taken = repaired.begin(Beginning(model, source, is_training=is_training, batches=iterator.num_batches))
    if source is None:  # the caller has distributed it
        first = next(iter(iterator._distributed_dataset))
        specs = keras.tree.map_structure(lambda value: strategy.experimental_local_results(value)[0], first)
    else:
        specs = taken.element_spec
        if taken is not source:
            iterator._distributed_dataset = strategy.experimental_distribute_dataset(taken)
    iterator.data_adapter = _Taken(iterator.data_adapter, keras.tree.map_structure(_symbol, specs))


class _Taken:
    """The data adapter of an epoch iterator whose data `begin` has seen.

    Args:
        adapter: Keras's own.
        symbols: A batch of Keras tensors.
    """

    def __init__(self, adapter: Any, symbols: Any):
        self._adapter = adapter
        self.symbols = symbols

    def __getattr__(self, name: str) -> Any:
        return getattr(self._adapter, name)


def _symbol(spec: Any) -> keras.KerasTensor | None:
    if spec is None or isinstance(spec, (tf.OptionalSpec, tf.experimental.Optional)):
        return None
    is_sparse = isinstance(spec, (tf.SparseTensorSpec, tf.SparseTensor))
    shape = (None, *spec.shape[1:]) if spec.shape.rank else ()
    return keras.KerasTensor(shape, keras.backend.standardize_dtype(spec.dtype), sparse=is_sparse)


# --- the step ---------------------------------------------------------------------------------------------------------


def _make_function(model: keras.Model, step_function: Callable[..., Any]) -> Callable[..., Any]:
    if not is_ours(model.distribute_strategy) or model.distribute_strategy.num_replicas_in_sync == 1:
        return _KERAS_MAKE(model, step_function)
    run_batches = _KERAS_MAKE(model, weigh_first(model, step_function))

    def fetch(iterator: Any) -> tf.experimental.Optional:
        return iterator.get_next_as_optional()

    def run(batch: tf.experimental.Optional) -> Any:
        return run_batches([batch.get_value()])

    if not model.run_eagerly:
        fetch, run = (tf.function(function, autograph=False, reduce_retracing=True) for function in (fetch, run))

    def run_execution(iterator: Any) -> Any:
        if not isinstance(iterator, (tf.data.Iterator, tf.distribute.DistributedIterator)):
            return run_batches(iterator)
        for step in range(model.steps_per_execution):
            batch = fetch(iterator)
            if not batch.has_value():
                if step == 0:
                    raise StopIteration
                break
            logs = run(batch)
        return logs

    return run_execution


def _reduce_values(values: Any, sample_weight: Any = None, reduction: str | None = "sum_over_batch_size") -> Any:
    reduced = _KERAS_REDUCE_VALUES(values, sample_weight, reduction)
    is_mean = reduction in ("sum_over_batch_size", "mean", "mean_with_sample_weight")
    return reduced / replica_count() if is_mean and tuple(values.shape) == () and _is_in_our_replica() else reduced


def _apply(optimizer: keras.optimizers.LossScaleOptimizer, grads: Any, trainable_variables: Any = None) -> None:
    if _is_in_our_replica() and "apply" not in vars(optimizer):  # else a hub of keras_opt.training has seen to it
        grads = agree_on_overflow(list(grads))
    _KERAS_APPLY(optimizer, grads, trainable_variables)


def _is_in_our_replica() -> bool:
    """Whether the step of one of several replicas of the process's strategy is being made."""
    return (
        not tf.distribute.in_cross_replica_context() and is_ours(tf.distribute.get_strategy()) and replica_count() > 1
    )


# --- prediction -------------------------------------------------------------------------------------------------------


def _predict_on_batch(model: keras.Model, x: Any) -> Any:
    outputs = _KERAS_PREDICT_ON_BATCH(model, x)
    strategy = model.distribute_strategy
    if not is_ours(strategy) or strategy.num_replicas_in_sync == 1:
        return outputs
    worker = this_worker(strategy).index  # the first replicas of all workers come first, in their order

    def own(output: Any) -> Any:
        rows = output.shape[0] // strategy.num_replicas_in_sync
        return output[worker * rows : (worker + 1) * rows]

    return keras.tree.map_structure(own, outputs)


# --- what replicas draw and report ------------------------------------------------------------------------------------


def _next(generator: keras.random.SeedGenerator, ordered: bool = True) -> Any:
    seed = _KERAS_NEXT(generator, ordered)
    if not _is_in_our_replica():
        return seed
    own = tf.convert_to_tensor([_APART * replica_number() % 2**31, 0], seed.dtype)
    return keras.ops.add(seed, own)


def _reduce(values: Any, strategy: tf.distribute.Strategy, reduction: str) -> Any:
    over_workers = isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy) and is_ours(strategy)
    if not over_workers or reduction not in ("auto", "mean"):
        return _KERAS_REDUCE(values, strategy, reduction)
    local = strategy.experimental_local_results
    here = [tf.reduce_mean(tf.stack(local(value)), axis=0) for value in keras.tree.flatten(values)]
    message = tf.concat([tf.reshape(tf.cast(value, tf.float64), [-1]) for value in here], axis=0)
    parts = tf.split(strategy.reduce("MEAN", message, axis=None), [tf.size(value) for value in here])
    means = [tf.cast(tf.reshape(part, tf.shape(value)), value.dtype) for part, value in zip(parts, here, strict=True)]
    return keras.tree.pack_sequence_as(values, means)
