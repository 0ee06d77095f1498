"""Synchronised norms on two replicas equal one device with the whole batch."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from oracle_models import float64

from keras_opt.core.errors import NoEffectWarning
from keras_opt.models import mlp, synchronize_batch_norm

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(32, 6)) * np.linspace(0.1, 3, 32)[:, np.newaxis], np.arange(32) % 3


def weights_after_two_epochs(strategy=None, change=None, norm="batch"):
    keras.utils.set_random_seed(1)
    with float64(), strategy.scope() if strategy else contextlib.nullcontext():
        model = mlp([8], (6,), 3, norm=norm)
        model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
        if change:
            change(model)
        model.fit(tf.data.Dataset.from_tensor_slices((X, Y)).batch(8), epochs=2, verbose=0)
    return np.concatenate([weight.ravel() for weight in model.get_weights()])


def test_two_replicas_equal_one_device(two_replicas):
    alone = weights_after_two_epochs()
    synchronised = weights_after_two_epochs(two_replicas, synchronize_batch_norm)
    assert np.abs(synchronised - alone).max() < 1e-10
    assert np.abs(weights_after_two_epochs(two_replicas, norm="sync") - alone).max() < 1e-10
    assert np.abs(weights_after_two_epochs(two_replicas) - alone).max() > 1e-3  # the fault that it cures


def test_it_takes_effect_in_a_model_that_was_trained_and_is_kept_in_the_file(tmp_path):
    model = mlp([8], (6,), 3)
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(X, Y, verbose=0)
    before = model.get_weights()
    traced = model.train_function
    synchronize_batch_norm(model)
    assert model.train_function not in (traced, None)
    for kept, now in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(kept, now)
    model.save(tmp_path / "model.keras")
    assert keras.models.load_model(tmp_path / "model.keras").get_layer("norm1").synchronized


def test_no_norm_warns():
    with pytest.warns(NoEffectWarning, match="synchronize_batch_norm: none of the 5 layers of model 'mlp'"):
        synchronize_batch_norm(mlp([8], (6,), 3, norm="none"))
