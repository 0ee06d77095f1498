"""The learning rate of any optimizer: who has one, what it is now, and what decides it."""

from typing import Any

import keras

from keras_opt.core.optimizers import inner, parts


def single_optimizers(optimizer: keras.optimizers.Optimizer) -> list[keras.optimizers.Optimizer]:
    """The optimizers within `optimizer` that have a rate: itself, without its `LossScaleOptimizer`, or its parts.

    A `MultiOptimizer` that asks a function for its parts has none before it is built.
    """
    unscaled = inner(optimizer)
    return parts(unscaled) if hasattr(unscaled, "optimizers") else [unscaled]


def rate_names(optimizer: keras.optimizers.Optimizer) -> list[str]:
    """What the rates of `single_optimizers` are called in the logs: as Keras's own callbacks call them."""
    if not hasattr(inner(optimizer), "optimizers"):
        return ["learning_rate"]
    return [f"learning_rate_{single.name}" for single in single_optimizers(optimizer)]


def rate_of(single: keras.optimizers.Optimizer) -> float:
    """The rate that the next update of one of `single_optimizers` has, outside the step."""
    return float(keras.ops.convert_to_numpy(single.learning_rate))


def rate_source(single: keras.optimizers.Optimizer) -> Any:
    """What decides the rate of one of `single_optimizers`: its schedule, its function, or `None` for a variable.

    Keras keeps it in `_learning_rate`, for which it has no public name: `learning_rate` is the value at this step.
    `tests/contract/test_keras_canary.py` fails, with the Keras version, when it moves.
    """
    if not hasattr(single, "_learning_rate"):
        raise RuntimeError(
            f"keras_opt: Keras {keras.__version__} has moved `_learning_rate` of its optimizers, where it keeps their "
            "schedule. Install an earlier Keras, or a newer keras_opt."
        )
    source = single._learning_rate
    return None if isinstance(source, keras.Variable) else source
