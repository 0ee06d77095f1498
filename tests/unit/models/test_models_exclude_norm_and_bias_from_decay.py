"""Decay shrinks kernels, and neither norms nor biases."""

import keras
import numpy as np
import pytest

from keras_opt.core.errors import NoEffectWarning
from keras_opt.models import exclude_norm_and_bias_from_decay, mlp

KERNELS = {"dense1/kernel", "classifier/kernel"}


def sgd(weight_decay=0.1):
    return keras.optimizers.SGD(0.5, weight_decay=weight_decay)


def shrunk(model, optimizer):
    """What a step with gradients of zero changes, by path, and that it is shrunk by rate times decay."""
    for weight in model.trainable_weights:
        weight.assign(np.full(weight.shape, 2.0))
    optimizer.build(model.trainable_weights)
    optimizer.apply([np.zeros(weight.shape, "float32") for weight in model.trainable_weights])
    changed = {weight.path: np.array(weight) for weight in model.trainable_weights if np.all(np.array(weight) != 2)}
    for values in changed.values():
        np.testing.assert_allclose(values, 2 * (1 - 0.5 * 0.1), rtol=1e-6)
    return set(changed)


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_only_kernels_shrink(norm):
    model, optimizer = mlp([8], (4,), 3, norm=norm), sgd()
    exclude_norm_and_bias_from_decay(optimizer, model)
    assert shrunk(model, optimizer) == KERNELS
    everything = mlp([8], (4,), 3, norm=norm)
    assert shrunk(everything, sgd()) == {weight.path for weight in everything.trainable_weights}


def test_what_is_frozen_now_does_not_shrink_when_it_is_unfrozen():
    model, optimizer = mlp([8], (4,), 3), sgd()
    for layer in model.layers:
        layer.trainable = False
    paths = exclude_norm_and_bias_from_decay(optimizer, model)
    assert paths == ["norm1/gamma", "norm1/beta", "classifier/bias"]
    for layer in model.layers:
        layer.trainable = True
    assert shrunk(model, optimizer) == KERNELS


def test_the_optimizers_within_are_meant():
    model = mlp([8], (4,), 3)
    head, rest = sgd(), sgd()
    both = keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(rest, {"classifier.*": head}))
    exclude_norm_and_bias_from_decay(both, model)
    assert shrunk(model, both) == KERNELS
    scaled = keras.optimizers.LossScaleOptimizer(sgd())
    assert len(exclude_norm_and_bias_from_decay(scaled, model)) == 3
    assert shrunk(model, scaled) == KERNELS


def test_other_norms_and_nested_layers():
    norms = [keras.layers.LayerNormalization(), keras.layers.RMSNormalization(), keras.layers.Dense(4)]
    model = keras.Sequential([keras.Input((4,)), keras.Sequential(norms, name="inner"), keras.layers.PReLU()])
    paths = exclude_norm_and_bias_from_decay(keras.optimizers.AdamW(), model)
    assert sorted(path.rsplit("/")[-1] for path in paths) == ["beta", "bias", "gamma", "scale"]


def test_an_optimizer_that_was_used_is_refused():
    model, optimizer = mlp([8], (4,), 3), sgd()
    optimizer.build(model.trainable_weights)
    with pytest.raises(ValueError, match="argument `optimizer` must be one that was not used yet"):
        exclude_norm_and_bias_from_decay(optimizer, model)


def test_a_multi_optimizer_of_a_function_is_refused():
    with pytest.raises(ValueError, match="must be one that knows its parts before it is built"):
        exclude_norm_and_bias_from_decay(keras.optimizers.MultiOptimizer(lambda variable: sgd()), mlp([8], (4,), 3))


@pytest.mark.parametrize(
    ("optimizer", "model", "message"),
    [
        ("adamw", mlp, "argument `optimizer` must be a Keras optimizer. Received: optimizer='adamw'"),
        (sgd(), keras.Sequential([keras.layers.Dense(2)]), "argument `model` must be a built Keras model"),
        (sgd(), 3, "argument `model` must be a built Keras model. Received: model=3"),
    ],
)
def test_bad_arguments(optimizer, model, message):
    with pytest.raises(ValueError, match=message):
        exclude_norm_and_bias_from_decay(optimizer, model)


def test_what_has_no_effect_warns():
    with pytest.warns(NoEffectWarning, match="SGD has no weight_decay; nothing changes") as caught:
        exclude_norm_and_bias_from_decay(sgd(None), mlp([8], (4,), 3))
    assert caught[0].filename == __file__
    kernels = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, use_bias=False)])
    with pytest.warns(NoEffectWarning, match="has no norm and no bias among its 1 weights"):
        exclude_norm_and_bias_from_decay(sgd(), kernels)
