"""Frozen norms stay as they are; the other layers train."""

import keras
import numpy as np
import pytest
from builders import with_random_statistics

from keras_opt.core.errors import NoEffectWarning
from keras_opt.models import freeze_batch_norm, mlp

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(32, 6)), np.arange(32) % 3


def trained(model):
    """What one more epoch changes, by path."""
    before = {weight.path: np.array(weight) for weight in model.weights}
    model.fit(X, Y, batch_size=8, verbose=0)
    return {weight.path for weight in model.weights if not np.array_equal(before[weight.path], weight)}


def compiled(model):
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


def test_a_frozen_norm_keeps_its_weights_and_statistics():
    model = with_random_statistics(mlp([8], (6,), 3))
    freeze_batch_norm(model)
    assert trained(compiled(model)) == {"dense1/kernel", "classifier/kernel", "classifier/bias"}


def test_it_takes_effect_in_a_model_that_was_trained():
    model = compiled(with_random_statistics(mlp([8], (6,), 3)))
    assert "norm1/moving_mean" in trained(model)
    freeze_batch_norm(model)
    assert trained(model) == {"dense1/kernel", "classifier/kernel", "classifier/bias"}


def test_training_normalises_by_the_moving_statistics():
    model = with_random_statistics(mlp([8], (6,), 3))
    freeze_batch_norm(model)
    np.testing.assert_array_equal(model(X, training=True), model(X, training=False))


def test_norms_in_nested_models_and_wrappers():
    inner = mlp([8], (6,), 3)
    each = keras.layers.TimeDistributed(keras.layers.BatchNormalization())
    model = keras.Sequential([keras.Input((6,)), inner, keras.layers.Reshape((3, 1)), each])
    freeze_batch_norm(model)
    assert not inner.get_layer("norm1").trainable
    assert not each.layer.trainable
    assert inner.get_layer("dense1").trainable


def test_it_is_kept_in_the_file(tmp_path):
    model = mlp([8], (6,), 3)
    freeze_batch_norm(model)
    model.save(tmp_path / "model.keras")
    assert not keras.models.load_model(tmp_path / "model.keras").get_layer("norm1").trainable


def test_no_norm_warns():
    with pytest.warns(NoEffectWarning, match="freeze_batch_norm: none of the 5 layers of model 'mlp' is a") as caught:
        freeze_batch_norm(mlp([8], (6,), 3, norm="none"))
    assert caught[0].filename == __file__


def test_what_is_no_model_is_refused():
    with pytest.raises(
        ValueError, match=r"freeze_batch_norm: argument `model` must be a Keras model\. Received: model=3"
    ):
        freeze_batch_norm(3)
