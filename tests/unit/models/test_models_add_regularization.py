"""L1 and L2 penalties on models that are built already."""

import keras
import numpy as np
import pytest

from keras_opt.core.errors import InputError
from keras_opt.models import add_regularization, mlp, resnet

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(32, 4)).astype("float32"), np.arange(32) % 3


def trained(**settings):
    model = mlp([8], (4,), 3, **settings)
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(X, Y, verbose=0)
    return model


def penalty(model):
    return float(sum(model.losses))


def squares(*variables):
    return sum(float(keras.ops.sum(variable**2)) for variable in variables)


def test_it_acts_at_once_where_kerass_own_setting_does_nothing():
    model = trained()
    before = model.evaluate(X, Y, verbose=0)[0]
    for layer in ("dense1", "classifier"):
        model.get_layer(layer).kernel_regularizer = keras.regularizers.L2(100.0)
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    assert model.evaluate(X, Y, verbose=0)[0] == pytest.approx(before)  # Keras's fault
    weights = model.get_weights()
    model.fit(X, Y, verbose=0)
    add_regularization(model, l2=0.5)
    kernels = [model.get_layer(layer).kernel for layer in ("dense1", "classifier")]
    model.set_weights(weights)
    assert model.evaluate(X, Y, verbose=0)[0] == pytest.approx(before + 0.5 * squares(*kernels), rel=1e-5)
    norm = squares(*kernels)
    model.optimizer.learning_rate = 0.1
    model.fit(X, Y, epochs=5, verbose=0)
    assert squares(*kernels) < 0.9 * norm


def test_the_history_gains_the_penalty_and_evaluate_stays():
    model = trained()
    add_regularization(model, l2=0.01)
    history = model.fit(X, Y, epochs=2, validation_data=(X, Y), verbose=0).history
    assert set(history) == {"loss", "accuracy", "val_loss", "val_accuracy", "regularization_loss"}
    assert history["regularization_loss"][-1] == pytest.approx(penalty(model), rel=1e-6)
    assert history["regularization_loss"][0] > history["regularization_loss"][1]
    loss, _accuracy = model.evaluate(X, Y, verbose=0)
    assert loss > penalty(model)
    assert set(model.test_on_batch(X, Y, return_dict=True)) == {"loss", "accuracy"}
    assert "regularization_loss" in model.train_on_batch(X, Y, return_dict=True)


@pytest.mark.parametrize("metrics", [[], ["accuracy"], ["accuracy", keras.metrics.SparseCategoricalCrossentropy()]])
def test_train_on_batch_returns_as_many_numbers_as_before(metrics):
    model = mlp([8], (4,), 3)
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=metrics)
    before = model.train_on_batch(X, Y)
    add_regularization(model, l2=0.01)
    after, by_name = model.train_on_batch(X, Y), model.train_on_batch(X, Y, return_dict=True)
    assert np.shape(after) == np.shape(before)
    assert set(by_name) == {"loss", *(getattr(each, "name", each) for each in metrics), "regularization_loss"}
    assert np.ravel(after)[0] > by_name["regularization_loss"] > 0


def test_the_strength_follows_a_callback_without_a_new_trace():
    model = trained()
    strength = add_regularization(model, l2=0.0)
    traces = []

    class Rise(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            strength.l2 = 0.1 * epoch

        def on_epoch_end(self, epoch, logs=None):
            traces.append(model.train_function)

    history = model.fit(X, Y, epochs=3, verbose=0, callbacks=[Rise()]).history["regularization_loss"]
    assert history[0] == 0
    assert history[2] > 1.5 * history[1] > 0
    assert len({id(function) for function in traces}) == 1
    assert (strength.l1, strength.l2) == (0.0, pytest.approx(0.2))
    assert model.get_layer("dense1").get_config()["kernel_regularizer"]["config"]["l2"] == pytest.approx(0.2)
    strength.l1 = 0.5
    assert repr(strength) == "Regularization(l1=0.5, l2=0.2, weights=['dense1/kernel', 'classifier/kernel'])"
    with pytest.raises(InputError, match="Regularization: argument `l2` must be a finite number of at least 0"):
        strength.l2 = -1


@pytest.mark.parametrize(
    ("settings", "chosen"),
    [
        ({}, ["dense1/kernel", "classifier/kernel"]),
        ({"exclude": ["classifier"]}, ["dense1/kernel"]),
        ({"include": ["dense*"]}, ["dense1/kernel"]),
        ({"include": ["*/bias", "dense1"]}, ["dense1/kernel", "classifier/bias"]),
        ({"include": "all_trainable", "exclude": ["norm1", "*/bias"]}, ["dense1/kernel", "classifier/kernel"]),
    ],
    ids=["kernels", "but one", "a layer", "a weight", "all but a norm"],
)
def test_what_is_chosen(settings, chosen):
    assert add_regularization(mlp([8], (4,), 3), l2=0.1, **settings).weights == chosen


def test_a_second_call_replaces_and_other_weights_keep_theirs():
    model = mlp([8], (4,), 3, weight_decay=0.2)
    add_regularization(model, l2=5.0, exclude=["classifier"])
    add_regularization(model, l1=0.1, exclude=["classifier"])
    first, last = model.get_layer("dense1").kernel, model.get_layer("classifier").kernel
    expected = 0.1 * float(keras.ops.sum(abs(first))) + 0.1 * squares(last)
    assert penalty(model) == pytest.approx(expected, rel=1e-5)
    model.compile("sgd", "sparse_categorical_crossentropy")
    history = model.fit(X, Y, verbose=0).history
    assert history["regularization_loss"][0] == pytest.approx(penalty(model), rel=1e-5)


def many_kinds():
    """Layers that keep their regularizers in many ways."""
    layers, ids = keras.layers, keras.Input((6,), dtype="int32")
    shared = layers.Dense(8, name="shared")
    x = layers.Embedding(10, 8)(ids)
    x = layers.MultiHeadAttention(2, 4)(x, x)
    x = layers.Bidirectional(layers.GRU(4, return_sequences=True))(x)
    x = layers.TimeDistributed(layers.Dense(8))(shared(x))
    x = layers.LayerNormalization()(layers.SeparableConv1D(8, 3)(x))
    x = shared(layers.LSTM(8)(layers.DepthwiseConv1D(2)(x)))
    inner = keras.Sequential([keras.Input((8,)), layers.Dense(3), layers.BatchNormalization(), layers.PReLU()])
    return keras.Model(ids, layers.Dense(2)(inner(x)))


@pytest.mark.parametrize("include", ["kernels", "all_trainable"])
def test_it_survives_saving_and_opens_in_plain_keras(include, tmp_path):
    model = many_kinds()
    add_regularization(model, l1=0.25, l2=0.5, include=include)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    kinds = {type(each.regularizer) for each in again.weights} - {type(None)}
    assert kinds == {keras.regularizers.L1L2}
    assert [each.regularizer is None for each in again.weights] == [each.regularizer is None for each in model.weights]
    assert penalty(again) == pytest.approx(penalty(model), rel=1e-6)
    assert penalty(model) > 0


def test_a_layer_that_is_shared_with_a_wrapper_has_its_own_setting():
    shared = keras.layers.Dense(4, name="shared")
    inputs = keras.Input((3, 4))
    model = keras.Model(inputs, keras.layers.TimeDistributed(shared)(shared(inputs)))
    assert len(add_regularization(model, l2=0.5).weights) == 1
    assert shared.kernel_regularizer.l2 == 0.5
    assert len(model.losses) == 1


def test_what_a_file_cannot_keep_is_named():
    inputs = keras.Input((4, 6))
    x = keras.layers.MultiHeadAttention(2, 4, name="mha")(inputs, inputs)
    x = keras.layers.Attention(use_scale=True, name="attention")([x, x])
    model = keras.Model(inputs, keras.layers.Dense(2, name="head")(x))
    include = ["mha/query/kernel", "head", "attention/scale"]
    with pytest.warns(UserWarning, match=r"the regularizer of mha/query/kernel, attention/scale acts now, but a saved"):
        add_regularization(model, l2=0.1, include=include)
    assert penalty(model) > 0


def test_a_part_of_an_attention_layer_gets_another_strength_with_a_warning():
    inputs = keras.Input((4, 6))
    model = keras.Model(inputs, keras.layers.MultiHeadAttention(2, 4, name="mha")(inputs, inputs))
    add_regularization(model, l2=1.0)
    with pytest.warns(UserWarning, match="the regularizer of mha/query/kernel acts now, but a saved file will lack it"):
        add_regularization(model, l2=0.1, include=["mha/query/kernel"])


@keras.saving.register_keras_serializable("test_models_add_regularization")
class WithoutConfig(keras.layers.Layer):
    """A layer that Keras cannot save."""

    def __init__(self, factor):
        super().__init__()
        self.factor = keras.ops.convert_to_tensor(factor)

    def call(self, inputs):
        return self.factor * inputs


def test_a_model_that_cannot_be_saved_is_regularized():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(2, name="head")(WithoutConfig(np.ones(4, "float32"))(inputs)))
    with pytest.raises(NotImplementedError):
        model.get_config()
    add_regularization(model, l2=0.5)
    assert penalty(model) == pytest.approx(0.5 * squares(model.get_layer("head").kernel), rel=1e-5)


class OfItsOwn(keras.Model):
    """A model without a graph."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(2, name="dense")

    def call(self, inputs):
        return self.dense(inputs)


def test_a_subclassed_model_is_regularized_with_a_warning():
    model = OfItsOwn()
    with pytest.raises(InputError, match="argument `model` must be a built Keras model"):
        add_regularization(model, l2=0.1)
    model(X)
    with pytest.warns(UserWarning, match="a saved file will lack it"):
        add_regularization(model, l2=0.1)
    assert penalty(model) == pytest.approx(0.1 * squares(model.dense.kernel), rel=1e-5)


def test_what_is_frozen_costs_nothing_until_it_trains():
    model = mlp([8], (4,), 3)
    model.get_layer("dense1").trainable = False
    add_regularization(model, l2=1.0)
    assert penalty(model) == pytest.approx(squares(model.get_layer("classifier").kernel), rel=1e-5)
    model.get_layer("dense1").trainable = True
    kernels = [model.get_layer(layer).kernel for layer in ("dense1", "classifier")]
    assert penalty(model) == pytest.approx(squares(*kernels), rel=1e-5)


def test_two_replicas_log_what_one_device_does(two_replicas):
    def history(scope):
        keras.utils.set_random_seed(0)
        with scope:
            model = mlp([8], (4,), 3, norm="none")
            model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
            add_regularization(model, l2=0.1)
        return model.fit(X, Y, epochs=2, batch_size=16, shuffle=False, verbose=0).history

    one, two = history(keras.device("cpu:0")), history(two_replicas.scope())
    for name, values in one.items():
        np.testing.assert_allclose(two[name], values, rtol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": 3}, "argument `model` must be a built Keras model"),
        ({"l1": -1}, "argument `l1` must be a finite number of at least 0"),
        ({"l2": float("nan")}, "argument `l2` must be a finite number of at least 0"),
        ({"include": "dense"}, "argument `include` must be 'kernels', 'all_trainable' or patterns"),
        ({"include": 3}, "argument `include` must be a sequence of patterns"),
        ({"include": ["conv"]}, "argument `include` must be patterns that fit layers with weights, or weights"),
        ({"include": ["norm1"]}, r"no weight fits include=\['norm1'\]"),
        ({"exclude": "dense1"}, "argument `exclude` must be a sequence of patterns"),
        ({"exclude": ["dense2"]}, "argument `exclude` must be patterns that fit"),
    ],
)
def test_bad_arguments(change, message):
    with pytest.raises((TypeError, ValueError), match=f"add_regularization: {message}"):
        add_regularization(**{"model": mlp([8], (4,), 3), "l2": 0.1, **change})


def test_a_regularizer_of_another_kind_is_not_thrown_away():
    layer = keras.layers.Dense(2, kernel_regularizer="orthogonal_regularizer", name="dense")
    model = keras.Sequential([keras.Input((4,)), layer])
    with pytest.raises(InputError, match="dense/kernel' has a OrthogonalRegularizer already"):
        add_regularization(model, l2=0.1)
    assert type(layer.kernel.regularizer) is keras.regularizers.OrthogonalRegularizer


def test_a_network_of_many_layers():
    model = resnet(20, (8, 8, 1), 2, 4)
    chosen = add_regularization(model, l2=1e-4).weights
    assert len(chosen) == 22
    assert all(path.endswith("/kernel") for path in chosen)
