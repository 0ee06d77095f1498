"""What cannot train right over several replicas, refused in one line before the first step."""

import random
import zlib
from collections.abc import Iterable

import keras
import tensorflow as tf

from keras_opt.callbacks.loss_reduction import reductions_of
from keras_opt.core.errors import InputError
from keras_opt.core.optimizers import inner, parts
from keras_opt.core.replicas import gather_from_workers
from keras_opt.distribute.beginning import Beginning
from keras_opt.training.callers import running_fits

STRATEGIES = {
    "parameter_server": "Keras 3 has no `fit` for it, and it fails at the first batch",
    "central_storage": "Keras 3 reports wrong metrics under it",
    "tpu": "keras_opt has never been run on one",
}
"""Strategies of TensorFlow that `strategy` does not make, and why."""

_CLASSES = {
    "parameter_server": tf.distribute.ParameterServerStrategy,
    "central_storage": tf.distribute.experimental.CentralStorageStrategy,
}
_INSTEAD = 'Use keras_opt.distribute.strategy("auto").'


def check_name(name: object) -> None:
    """Raise if `name` is that of a strategy with which `fit` does not work."""
    if isinstance(name, str) and name in STRATEGIES:
        raise InputError(f"strategy: name={name!r} is not supported: {STRATEGIES[name]}. {_INSTEAD}")


def check_keras_distribution() -> None:
    """Raise if a `keras.distribution` is set."""
    set_one = keras.distribution.distribution()
    if set_one is not None:
        raise InputError(
            f"strategy: keras.distribution.{type(set_one).__name__} is set, which does nothing on the TensorFlow "
            f"backend: all would train on one device. Call keras.distribution.set_distribution(None). {_INSTEAD}"
        )


def check_model(model: keras.Model, is_training: bool = True) -> None:
    """Raise if `model`, as it was made and compiled, would crash or train wrong under its strategy.

    Args:
        model: Compiled.
        is_training: Whether it is to be trained; else it is evaluated, for which the optimizer is of no account.
    """
    strategy = model.distribute_strategy
    for name, kind in _CLASSES.items():
        if isinstance(strategy, kind):
            raise InputError(f"strategy: model {model.name!r} is of a {name} strategy: {STRATEGIES[name]}. {_INSTEAD}")
    check_keras_distribution()
    if strategy.num_replicas_in_sync > 1:
        _check_scope(model, strategy, is_training)
        _check_compiled(model, is_training)


def check_metrics(model: keras.Model) -> None:
    """Raise if a metric of `model` was made outside of the scope of several workers, which then sum no counts of it.

    Keras knows the metrics of `compile` from the first batch on, or the symbols of one.
    """
    strategy = model.distribute_strategy
    if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        _refuse_from_outside(model, strategy, "metrics", model.metrics_variables)


def check_whole_batch(model: keras.Model) -> None:
    """Raise if the losses that replicas have of one whole batch, as in `train_on_batch`, add up to several times it."""
    replicas = model.distribute_strategy.num_replicas_in_sync
    if replicas > 1 and reductions_of(model) & {"sum", None}:
        raise InputError(
            f"strategy: train_on_batch and test_on_batch give each replica the whole batch, and a loss of model "
            f"{model.name!r} is no mean, so it would be {replicas} times as large. Call `fit` or `evaluate` with "
            "batch_size=len(x), or compile the loss with a mean."
        )


def check_workers(beginning: Beginning) -> None:
    """Raise unless all workers have data of one length and, in training, one random seed; all of them must call it.

    Each worker goes through all of the data by itself and takes its share of each batch, which is of one order only if
    the seeds are one. With fewer batches than the others it would go on to something else while they wait for it.
    """
    strategy = beginning.strategy
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return
    row = [-1 if value is None else value for value in (_seed(), beginning.batches, _python_seed(beginning.model))]
    seeds, lengths, python_seeds = zip(*gather_from_workers(row, strategy), strict=True)
    if len(set(lengths)) > 1:
        raise InputError(
            "strategy: every worker needs all of the data, of which it takes its share, and they have different "
            f"numbers of batches. Received: {_known(lengths)}. Give all workers the same data; of data that are cut "
            "up already, give each worker its part with `strategy.distribute_datasets_from_function`."
        )
    if beginning.is_training and (-1 in seeds or len({*zip(seeds, python_seeds, strict=True)}) > 1):
        raise InputError(
            "strategy: the workers need one random seed, else each takes its share of another shuffle, some rows twice "
            f"and some never. Received: {_known(seeds)}. Call keras.utils.set_random_seed(1), which seeds Python's "
            "generator too, the same in every worker, before `fit`."
        )


def _seed() -> int | None:
    """TensorFlow's global one."""
    return tf.function(lambda: tf.constant(0)).get_concrete_function().graph.seed


def _python_seed(model: keras.Model) -> int | None:
    """A number of the state of Python's generator, by which Keras shuffles a `PyDataset`; `None` of other data."""
    if not any(isinstance(fit.f_locals["x"], keras.utils.PyDataset) for fit in running_fits(model)):
        return None
    return zlib.crc32(repr(random.getstate()).encode())


def _known(numbers: Iterable[int]) -> list[int | None]:
    return [None if number == -1 else number for number in numbers]


def _check_scope(model: keras.Model, strategy: tf.distribute.Strategy, is_training: bool) -> None:
    """Raise if a variable that the step moves was made outside of the scope of `strategy`, and so has one copy.

    TensorFlow refuses to update such a weight, and a count of the optimizer rises by one for each replica. A weight
    that does not train may come from anywhere.
    """
    if is_training:
        _refuse_from_outside(model, strategy, "weights", model.trainable_variables)
        optimizer = getattr(model, "optimizer", None)
        _refuse_from_outside(model, strategy, "optimizer", getattr(optimizer, "variables", ()))


def _refuse_from_outside(
    model: keras.Model, strategy: tf.distribute.Strategy, what: str, variables: Iterable[keras.Variable]
) -> None:
    for variable in variables:
        if not strategy.extended.variable_created_in_scope(variable.value):
            raise InputError(
                f"strategy: variable {variable.path!r} of the {what} of model {model.name!r} was made outside of the "
                "strategy's scope, so replicas would not agree on it. Make model, optimizer and metrics, and call "
                "`compile`, inside `with strategy.scope():`."
            )


def _check_compiled(model: keras.Model, is_training: bool) -> None:
    if model.jit_compile:
        raise InputError(
            f"strategy: model {model.name!r} was compiled with jit_compile=True, and XLA compiles no step in which "
            'replicas communicate. Leave jit_compile at "auto".'
        )
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None or not is_training:
        return
    for one in (inner(optimizer), *parts(inner(optimizer))):
        if one.gradient_accumulation_steps:
            _refuse(one, "gradient_accumulation_steps", "crashes in Keras", "GradientAccumulation")
        if one.use_ema and one.ema_overwrite_frequency:
            _refuse(one, "ema_overwrite_frequency", "crashes in Keras", "WeightAveraging")
        for name in ("clipvalue", "clipnorm", "global_clipnorm"):
            if getattr(one, name, None):
                _refuse(one, name, "clips each replica's share of the gradient, not their sum", "GradientClipping")


def _refuse(optimizer: keras.optimizers.Optimizer, name: str, fault: str, callback: str) -> None:
    raise InputError(
        f"strategy: {name}={getattr(optimizer, name)!r} of the optimizer {optimizer.name!r} {fault} where there are "
        f"several replicas. Leave it out, and use the callback keras_opt.callbacks.{callback}."
    )
