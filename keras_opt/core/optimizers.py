"""What an optimizer consists of."""

import keras


def inner(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """`optimizer` without the `LossScaleOptimizer` around it, if there is one."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def parts(optimizer: keras.optimizers.Optimizer) -> list[keras.optimizers.Optimizer]:
    """The optimizers in a `MultiOptimizer`, all of them once it is built; none in any other."""
    return list(getattr(optimizer, "optimizers", ()))


def trained_by(optimizer: keras.optimizers.Optimizer, model: keras.Model) -> list[keras.Variable]:
    """What `optimizer.apply(grads)` updates, in this order: the variables it was built for, else those of `model`."""
    # No public attribute of Keras 3.15 has them.
    built_for = getattr(optimizer, "_trainable_variables", None) if optimizer.built else None
    return list(built_for or model.trainable_variables)


def uses_ema(optimizer: keras.optimizers.Optimizer | None) -> bool:
    """Whether `optimizer`, or a part of it, averages the weights by itself; `None` does not."""
    unscaled = inner(optimizer)
    return any(getattr(each, "use_ema", False) for each in parts(unscaled) or [unscaled])


def made_no_update(optimizer: keras.optimizers.Optimizer) -> str:
    """What to say of the optimizer of a model that was trained, it seems, without it."""
    return (
        f"`model.optimizer` ({type(optimizer).__name__}, given to `compile` or its default) made no update. Was there "
        "a training step, and does `train_step` call that optimizer? No other one is seen."
    )
