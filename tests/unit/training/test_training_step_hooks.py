"""The hub of one optimizer."""

import keras
import numpy as np
import pytest

from keras_opt.training import StepHooks


class Doubling:
    """A plugin that doubles the gradients and remembers the variables."""

    def on_gradients(self, gradients, variables):
        self.seen = [variable.name for variable in variables]
        return [gradient * 2 for gradient in gradients]


def apply_once(optimizer):
    """One update of a variable of zeros with a gradient of ones."""
    if not optimizer.built:
        optimizer.build([keras.Variable(np.zeros(2, "float32"), name="w")])
    (variable,) = optimizer._trainable_variables
    variable.assign([0.0, 0.0])
    optimizer.apply([keras.ops.ones((2,))], [variable])
    return keras.ops.convert_to_numpy(variable).tolist()


def test_plugins_change_the_gradients_before_clipping_in_the_order_they_came():
    optimizer = keras.optimizers.SGD(1.0, clipvalue=3.0)
    hooks, first, second = StepHooks.of(optimizer), Doubling(), Doubling()
    hooks.add(first)
    hooks.add(second)
    assert apply_once(optimizer) == [-3.0, -3.0]  # 4, clipped to 3
    assert first.seen == ["w"]


def test_there_is_one_hub_for_an_optimizer_and_its_wrapper():
    inner = keras.optimizers.SGD(1.0)
    outer = keras.optimizers.LossScaleOptimizer(inner)
    hooks = StepHooks.of(outer)
    hooks.add(Doubling())
    assert StepHooks.of(inner) is hooks
    assert StepHooks.of(outer) is hooks


def test_the_last_plugin_to_leave_gives_the_optimizer_its_own_methods_back():
    optimizer = keras.optimizers.SGD(1.0)
    apply_once(optimizer)
    before = set(vars(optimizer))
    hooks, first, second = StepHooks.of(optimizer), Doubling(), Doubling()
    hooks.add(first)
    hooks.add(second)
    hooks.remove(first)
    hooks.remove(first)  # twice does no harm
    assert apply_once(optimizer) == [-2.0, -2.0]
    hooks.remove(second)
    assert set(vars(optimizer)) == before
    assert apply_once(optimizer) == [-1.0, -1.0]


def test_a_plugin_that_left_long_ago_does_not_unhook_a_later_hub():
    optimizer = keras.optimizers.SGD(1.0)
    old, first, second = StepHooks.of(optimizer), Doubling(), Doubling()
    old.add(first)
    old.remove(first)
    new = StepHooks.of(optimizer)
    new.add(second)
    old.remove(first)
    assert new.plugins == (second,)
    assert apply_once(optimizer) == [-2.0, -2.0]


def test_another_tool_that_replaced_the_method_is_named():
    optimizer = keras.optimizers.SGD(1.0, name="mine")
    vars(optimizer)["_clip_gradients"] = lambda gradients: gradients
    with pytest.raises(RuntimeError, match="of the optimizer 'mine' is already replaced by <function"):
        StepHooks.of(optimizer)


@pytest.mark.parametrize("optimizer", [None, "sgd"])
def test_what_is_no_optimizer_is_refused(optimizer):
    with pytest.raises(TypeError, match=r"must be a Keras optimizer\. .* Compile the model before"):
        StepHooks.of(optimizer)
