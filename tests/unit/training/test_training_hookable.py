"""Which models and optimizers are refused, and that a refusal leaves nothing."""

import keras
import pytest
from line_model import Scaling, line, names, weight_after_a_batch

from keras_opt.training import StepHooks


class OwnApply(keras.optimizers.SGD):
    def apply(self, grads, trainable_variables=None):
        return super().apply(grads, trainable_variables)


class OwnScale(keras.optimizers.LossScaleOptimizer):
    def apply(self, grads, trainable_variables=None):
        return super().apply(grads, trainable_variables)


OVERRIDING = {
    "itself": OwnApply,
    "scaled": lambda: keras.optimizers.LossScaleOptimizer(OwnApply()),
    "scaling": lambda: OwnScale(keras.optimizers.SGD()),
}
HAS_MULTI_OPTIMIZER = hasattr(keras.optimizers, "MultiOptimizer")  # Keras 3.12 has none yet
if HAS_MULTI_OPTIMIZER:
    OVERRIDING["in many"] = lambda: keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(OwnApply()))


@pytest.mark.parametrize("optimizer", OVERRIDING.values(), ids=OVERRIDING)
def test_an_optimizer_that_overrides_apply_is_refused(optimizer):
    model = line(optimizer())
    before = names(model)
    with pytest.raises(RuntimeError, match=r"optimizer Own\w+ overrides `apply`.*Override `update_step` instead"):
        StepHooks.of(model).add(Scaling())
    with pytest.raises(RuntimeError, match="overrides `apply`"):
        StepHooks.prepare(model)
    assert names(model) == before


def test_an_optimizer_that_overrides_update_step_is_welcome():
    class Own(keras.optimizers.SGD):
        def update_step(self, gradient, variable, learning_rate):
            variable.assign_sub(3 * gradient)

    model = line(Own())
    StepHooks.of(model).add(Scaling())
    assert weight_after_a_batch(model) == 12.0


def test_an_optimizer_hooked_for_another_model_is_refused():
    model, other = line(keras.optimizers.SGD(1.0, name="ours")), line()
    StepHooks.of(model).add(Scaling())
    other.compile(model.optimizer, "mse")
    with pytest.raises(RuntimeError, match=r"of the optimizer 'ours' is already replaced by .* of its own"):
        StepHooks.of(other).add(Scaling())
    assert "train_step" not in vars(other)


@pytest.mark.parametrize("multi_optimizer", [keras.optimizers.MultiOptimizer] if HAS_MULTI_OPTIMIZER else [])
def test_accumulation_within_a_multi_optimizer_is_refused_even_if_it_shows_late(multi_optimizer):
    def choose(variable):
        return keras.optimizers.SGD(gradient_accumulation_steps=2)

    model = line(multi_optimizer(choose))
    StepHooks.of(model).add(Scaling())
    with pytest.raises(RuntimeError, match="an optimizer in the MultiOptimizer has gradient_accumulation_steps set"):
        weight_after_a_batch(model)


def test_accumulation_of_keras_over_replicas_is_refused(two_replicas):
    with two_replicas.scope():
        model = line(keras.optimizers.SGD(gradient_accumulation_steps=2))
    with pytest.raises(RuntimeError, match="Keras cannot accumulate gradients over several replicas"):
        StepHooks.of(model).add(Scaling())
    assert "train_step" not in vars(model)


def test_overwriting_weights_by_averages_over_several_replicas_is_refused(two_replicas):
    """Plain Keras fails in the first trace, with "merge_call called while defining a new graph"."""
    with two_replicas.scope():
        model = line(keras.optimizers.SGD(use_ema=True, ema_overwrite_frequency=2))
    with pytest.raises(RuntimeError, match="Leave ema_overwrite_frequency out of the optimizer"):
        StepHooks.of(model).add(Scaling())
    assert "train_step" not in vars(model)


def test_several_steps_in_an_execution_over_several_replicas_are_refused(two_replicas):
    """Plain Keras fails in the first execution, with "You must feed a value for placeholder tensor"."""
    with two_replicas.scope():
        model = line(steps_per_execution=2)
    refused = r"steps_per_execution=2 in `compile`, and 2 replicas. Leave steps_per_execution out"
    with pytest.raises(RuntimeError, match=refused):
        StepHooks.prepare(model)
    with pytest.raises(RuntimeError, match=refused):
        StepHooks.of(model).add(Scaling())
    assert "train_step" not in vars(model)
