"""What an optimizer consists of."""

import keras
import pytest

from keras_opt.core.optimizers import inner, made_no_update, parts

HAS_ONE = hasattr(keras.optimizers, "MultiOptimizer")  # Keras 3.12 has none yet


def test_the_optimizer_within_a_loss_scale_optimizer():
    adam = keras.optimizers.Adam()
    assert inner(keras.optimizers.LossScaleOptimizer(adam)) is adam
    assert inner(adam) is adam


@pytest.mark.parametrize("multi_optimizer", [keras.optimizers.MultiOptimizer] if HAS_ONE else [])
def test_the_optimizers_within_a_multi_optimizer(multi_optimizer):
    adam, sgd = keras.optimizers.Adam(), keras.optimizers.SGD()
    both = multi_optimizer(keras.optimizers.OptimizerMap(sgd, {"head": adam}))
    assert {id(each) for each in parts(both)} == {id(adam), id(sgd)}
    assert parts(adam) == []


def test_an_optimizer_that_nobody_used_is_named_with_where_it_comes_from():
    said = made_no_update(keras.optimizers.RMSprop())
    assert said.startswith("`model.optimizer` (RMSprop, given to `compile` or its default) made no update.")
