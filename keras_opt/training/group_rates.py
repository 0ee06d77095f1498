"""Groups of variables that train at a part of the learning rate, as a plugin of the compiled step."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from keras_opt.core.replicas import replica_number
from keras_opt.training.instance_wrappers import InstanceWrappers
from keras_opt.training.step_plugin import StepPlugin


@dataclass(frozen=True)
class RateGroup:
    """Variables that train alike.

    Args:
        variables: The variables.
        rate: The part of the optimizer's learning rate that they get.
        first_update: The update of the optimizer, from 0, that was their first.
    """

    variables: Sequence[keras.Variable]
    rate: float = 1.0
    first_update: int = 0


class GroupRates(StepPlugin):
    """Lets the optimizer update each group as an optimizer of its own would, whose rate is that part of the common one.

    The rate and the count of updates reach the optimizer's formula itself. So momentum, constraints and bias
    corrections are what they are at a lower rate, and weight decay too, which is in proportion to the rate. The count
    matters for Adam and its kin: in shared counting, a variable whose moments are still near zero late in training is
    taken for one whose moments are settled, and moves up to 6.6 times too far for hundreds of updates.

    It wraps `update_step`, which Keras documents, on the instance. While that runs for a group that began late, the
    private `_iterations` holds the group's own count; `tests/contract/test_keras_canary.py` fails, with the Keras
    version, when it moves. The momentum product of Nadam is one number for all variables and stays so.

    Args:
        model: A compiled model. Its optimizer is no `MultiOptimizer`.
        optimizer: Its optimizer, without the `LossScaleOptimizer`.
        groups: The groups; variables in none of them are updated as ever.
    """

    owner = "GradualUnfreezing"
    is_single = True

    def __init__(self, model: keras.Model, optimizer: keras.optimizers.Optimizer, groups: Sequence[RateGroup]):
        self._strategy = model.distribute_strategy
        self._optimizer = optimizer
        self._groups = groups
        self._wrappers = InstanceWrappers()
        # By each replica's own copy of a variable: its group, and its value before weight decay.
        self._group_of: dict[int, RateGroup] = {}
        self._before: dict[int, tf.Tensor] = {}

    def build(self, variables: list[keras.Variable]) -> None:
        for group in self._groups:
            for variable in group.variables:
                self._group_of |= {id(copy): group for copy in self._copies(variable)}
        if not self._wrappers:
            self._wrappers.put_on(self._optimizer, "update_step", self._update_step)

    def clip_gradients(self, gradients: list[Any], variables: list[keras.Variable]) -> list[Any]:
        if _has_weight_decay(self._optimizer):
            for variable in variables:
                copy = self._copies(variable)[replica_number()]
                if id(copy) in self._group_of:
                    self._before[id(copy)] = tf.identity(variable.value)
        return gradients

    def close(self) -> None:
        self._wrappers.take_off()

    def _copies(self, variable: keras.Variable) -> Sequence[tf.Variable]:
        return self._strategy.experimental_local_results(variable.value)

    def _update_step(self, gradient: Any, variable: tf.Variable, learning_rate: Any) -> None:
        optimizer = self._optimizer
        group = self._group_of.get(id(variable))
        if group is None:
            type(optimizer).update_step(optimizer, gradient, variable, learning_rate)
            return
        if id(variable) in self._before and group.rate != 1:
            before = self._before.pop(id(variable))
            variable.assign(before + (variable - before) * group.rate)  # what weight decay does at this rate
        rate = keras.ops.cast(learning_rate, variable.dtype) * group.rate
        shared = optimizer._iterations
        skipped = group.first_update * (optimizer.gradient_accumulation_steps or 1)
        # Past `__setattr__`, which would take the tensor for a new part of the optimizer's state.
        vars(optimizer)["_iterations"] = tf.convert_to_tensor(shared) - skipped if skipped else shared
        try:
            type(optimizer).update_step(optimizer, gradient, variable, rate)
        finally:
            vars(optimizer)["_iterations"] = shared


def _has_weight_decay(optimizer: keras.optimizers.Optimizer) -> bool:
    # Muon has a second one, for what it leaves to Adam.
    return any(getattr(optimizer, name, None) for name in ("weight_decay", "adam_weight_decay"))
