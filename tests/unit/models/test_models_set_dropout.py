"""Dropout rates of models that are built already."""

import keras
import numpy as np
import pytest

from keras_opt.core.errors import InputError
from keras_opt.layers import DropBlock, ScheduledDropout, StochasticDepth
from keras_opt.models import mlp, set_dropout
from keras_opt.schedules import PolynomialDecay

X, Y = np.ones((64, 4), "float32"), np.zeros((64, 4), "float32")


def loaded(layer, tmp_path):
    """A model of that layer alone (and one weight), trained, saved and loaded."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4, name="dense"), layer])
    model.compile("sgd", "mse")
    model.fit(X, Y, verbose=0)
    model.save(tmp_path / "model.keras")
    return keras.models.load_model(tmp_path / "model.keras")


def test_in_keras_a_rate_above_0_fails_on_a_layer_made_with_0(tmp_path):
    model = loaded(keras.layers.Dropout(0.0, name="drop"), tmp_path)
    model.get_layer("drop").rate = 0.3
    with pytest.raises(AttributeError, match="seed_generator"):
        model(X, training=True)


@pytest.mark.parametrize("kind", ["Dropout", "GaussianDropout", "AlphaDropout"])
def test_from_0_to_a_rate_at_once_and_saved(kind, tmp_path):
    model = loaded(getattr(keras.layers, kind)(0.0, seed=7, name="drop"), tmp_path)
    model.fit(X, Y, verbose=0)  # traced with rate 0
    weights = model.get_weights()
    set_dropout(model, {"drop": 0.5})
    for before, now in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, now)
    assert np.std(model(X, training=True)[:, 0]) > 0
    np.testing.assert_array_equal(model(X, training=False)[0], model(X, training=False)[1])
    state = model.get_layer("drop").seed_generator.state
    assert any(variable is state for variable in model.variables)  # so that backups have it
    model.fit(X, Y, verbose=0)
    assert state[1] > 1
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.get_layer("drop").rate == 0.5
    again.fit(X, Y, verbose=0)


def test_a_traced_step_sees_the_new_rate_in_the_middle_of_fit():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dropout(0.9, name="drop"), keras.layers.Dense(4)])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    switch = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: set_dropout(model, {"drop": 0.0 if epoch else 0.9})
    )
    losses = model.fit(X, Y, epochs=3, verbose=0, callbacks=[switch]).history["loss"]
    plain = float(np.mean(np.square(model(X, training=False))))
    assert losses[0] > 1.5 * plain
    assert losses[1:] == pytest.approx([plain, plain], rel=1e-5)


@keras.saving.register_keras_serializable("test_models_set_dropout")
class MonteCarlo(keras.layers.Dropout):
    """Drops at inference too, to measure how sure a model is."""

    def call(self, inputs, training=None):
        return super().call(inputs, training=True)


def test_predict_sees_the_new_rate():
    model = keras.Sequential([keras.Input((4,)), MonteCarlo(0.0, name="drop")])
    np.testing.assert_array_equal(model.predict(X, verbose=0), X)
    set_dropout(model, {"drop": 0.9})
    assert np.mean(model.predict(X, verbose=0) == 0) > 0.7


def test_layers_by_name_in_nested_models_and_wrappers():
    inner = keras.Sequential([keras.Input((4,)), keras.layers.Dropout(0.1, name="drop1")], name="inner")
    inputs = keras.Input((3, 4))
    x = keras.layers.SpatialDropout1D(0.2, name="drop2")(inputs)
    x = keras.layers.TimeDistributed(keras.layers.Dropout(0.0, name="each"), name="td")(x)
    x = StochasticDepth(0.1, name="depth")(DropBlock(0.1, 1, name="block")(x))
    model = keras.Model(inputs, inner(keras.layers.GlobalAveragePooling1D()(x)))
    set_dropout(model, {"*": 0.5, "drop?": 0.3, "drop1": 0.4})
    found = {layer.name: layer.rate for layer in model._flatten_layers() if hasattr(layer, "rate")}
    assert found == {"drop1": 0.4, "drop2": 0.3, "each": 0.5, "depth": 0.5, "block": 0.5}
    again = keras.Model.from_config(model.get_config())
    assert {layer.name: layer.rate for layer in again._flatten_layers() if hasattr(layer, "rate")} == found
    assert np.std(again(np.ones((50, 3, 4)), training=True)) > 0


@pytest.mark.parametrize(
    ("layer", "pattern"),
    [
        (lambda: keras.layers.LSTM(2, dropout=0.2, name="own"), "own"),
        (lambda: keras.layers.Bidirectional(keras.layers.GRU(2), name="own"), "own"),
        (lambda: ScheduledDropout(PolynomialDecay(0.3, 10), name="own"), "own"),
    ],
)
def test_a_dropout_that_is_an_argument_is_refused(layer, pattern):
    model = keras.Sequential([keras.Input((3, 4)), layer()])
    with pytest.raises(
        InputError, match="set_dropout: pattern 'own' fits only `own`, which takes its dropout when it is"
    ):
        set_dropout(model, {pattern: 0.3})


def test_the_dropout_inside_of_an_attention_layer_stays():
    inputs = keras.Input((3, 4))
    x = keras.layers.MultiHeadAttention(1, 2, dropout=0.2, name="mha")(inputs, inputs)
    model = keras.Model(inputs, keras.layers.Dropout(0.1, name="dropout")(x))
    set_dropout(model, {"*dropout*": 0.5})
    assert model.get_layer("dropout").rate == 0.5
    assert [layer.rate for layer in model.get_layer("mha")._flatten_layers() if hasattr(layer, "rate")] == [0.2]
    with pytest.raises(InputError, match="fits only `mha`, which takes its dropout when it is made"):
        set_dropout(model, {"mha": 0.5})


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ({"nothing*": 0.3}, "argument `rates` must be patterns of layers with a rate, which are dropout1"),
        ({"dense1": 0.3}, "argument `rates` must be patterns of layers with a rate"),
        ({"dropout1": 1}, r"argument `rates\['dropout1'\]` must be a fraction in \[0, 1\)"),
        ({"dropout1": 0.2, "droput": 0.3}, "Received: rates='droput'. Did you mean 'dropout1'"),
        (0.3, "argument `rates` must be a dict from patterns to rates"),
        ({1: 0.3}, "argument `rates` must be a dict from patterns to rates"),
        ({}, "argument `rates` must be a dict from patterns to rates"),
    ],
)
def test_bad_arguments_change_nothing(rates, message):
    model = mlp([8], (4,), 3, dropout=[0.5])
    with pytest.raises((TypeError, ValueError), match=f"set_dropout: .*{message}"):
        set_dropout(model, rates)
    assert model.get_layer("dropout1").rate == 0.5
    with pytest.raises(InputError, match="argument `model` must be a Keras model"):
        set_dropout("model", {"dropout1": 0.3})
