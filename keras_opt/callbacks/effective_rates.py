"""What adaptive optimizers make of the learning rate, weight by weight."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_opt.core.errors import InputError
from keras_opt.core.learning_rates import single_optimizers
from keras_opt.core.patterns import layer_of

_KINDS = (keras.optimizers.Adam, keras.optimizers.RMSprop)  # AdamW is an Adam


def adam_rate(learning_rate: float, v: np.ndarray, t: int, beta_1: float, beta_2: float, epsilon: float) -> np.ndarray:
    """What Adam's first moment was multiplied by in update number `t` (from 1), by weight; `v` is that after it."""
    return learning_rate * np.sqrt(1 - beta_2**t) / (1 - beta_1**t) / (np.sqrt(v) + epsilon)


def rmsprop_rate(learning_rate: float, v: np.ndarray, epsilon: float) -> np.ndarray:
    """What RMSprop multiplied the gradient by in its last update, by weight; `v` is that after it."""
    return learning_rate / np.sqrt(v + epsilon)


def check_has_second_moment(optimizer: keras.optimizers.Optimizer) -> None:
    """Raise unless a part of `optimizer` divides by a second moment as Keras's Adam or RMSprop does."""
    singles = single_optimizers(optimizer)
    if singles and not any(map(_kind_of, singles)):
        kinds = ", ".join(sorted({type(single).__name__ for single in singles}))
        raise InputError(
            "LearningRateMonitor: argument `effective` must be False unless the optimizer is Adam, AdamW or RMSprop. "
            f"Received: effective=True and the optimizer {kinds}, which has no second moment that is known. Leave "
            "effective out."
        )


def effective_rates(model: keras.Model, last_rates: Sequence[float]) -> dict[str, np.ndarray]:
    """The effective rates in the last update of all weights that ever had a gradient, by the path of their layer.

    Args:
        last_rates: The learning rate of that update, for each of `single_optimizers`.
    """
    by_layer: dict[str, list[np.ndarray]] = {}
    for single, learning_rate in zip(single_optimizers(model.optimizer), last_rates, strict=True):
        kind = _kind_of(single)
        if kind is None or not single.built:
            continue
        slots = _Slots(single)
        for variable in model.trainable_variables:
            v = slots.of(variable, "velocity_hat" if getattr(single, "amsgrad", False) else "velocity")
            if v is None:
                continue
            if kind is keras.optimizers.Adam:
                t = int(keras.ops.convert_to_numpy(single.iterations))
                rates = adam_rate(learning_rate, v, t, single.beta_1, single.beta_2, single.epsilon)
            else:
                mean = slots.of(variable, "average_gradient") if single.centered else 0.0
                rates = rmsprop_rate(learning_rate, v - np.square(mean), single.epsilon)
            by_layer.setdefault(layer_of(variable), []).append(rates[v > 0])
    return {layer: np.concatenate(rates) for layer, rates in by_layer.items()}


def _kind_of(single: keras.optimizers.Optimizer) -> type | None:
    """Which of the known kinds updates as `single` does: a subclass may do so otherwise."""
    return next((kind for kind in _KINDS if type(single).update_step is kind.update_step), None)


class _Slots:
    """The slot variables of an optimizer, which Keras names for the variables that they belong to.

    `tests/contract/test_keras_canary.py` fails, with the Keras version, when it names them otherwise. Two variables of
    one name take their slots in the order in which Keras makes them: that of the model's variables.
    """

    def __init__(self, single: keras.optimizers.Optimizer):
        self._by_name: dict[str, list[Any]] = {}
        for slot in single.variables:
            self._by_name.setdefault(slot.name, []).append(slot)

    def of(self, variable: keras.Variable, slot: str) -> np.ndarray | None:
        """The next value of that kind; `None` if the optimizer does not update `variable`."""
        found = self._by_name.get(f"{variable.path.replace('/', '_')}_{slot}")
        return np.asarray(keras.ops.convert_to_numpy(found.pop(0)), "float64").ravel() if found else None
