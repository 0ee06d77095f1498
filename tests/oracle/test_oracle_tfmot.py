"""TF-MOT through keras_opt: what it trains comes back as asked, and nothing around it changes."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from full_rows import few, full
from keras import layers

from keras_opt import models
from keras_opt.callbacks import EarlyStopping, Plateau, ScheduleLearningRate, Target
from keras_opt.compression import (
    ConstantSparsity,
    PolynomialSparsity,
    PruneLowMagnitude,
    copy_weights_back,
    for_tf_keras,
    sparsity,
    tfmot_cluster,
    tfmot_prune,
    tfmot_quantize,
    to_tf_keras,
)
from keras_opt.compression.bridge.tf_keras_import import tf_keras, tfmot
from keras_opt.core.errors import InputError, NoEffectWarning
from keras_opt.export import to_tflite, verify
from keras_opt.models.tf_keras_inside import in_keras_3
from keras_opt.schedules import OneCycle, StepDecay

RNG = np.random.default_rng(0)
X = RNG.uniform(0, 255, (32, 6, 6, 2)).astype("float32")
Y = RNG.integers(0, 3, 32)


def network():
    x = keras.Input((6, 6, 2))
    y = layers.Conv2D(4, 3, use_bias=False, name="body")(layers.Rescaling(1 / 255)(x))
    y = layers.ReLU()(layers.BatchNormalization(name="norm")(y))
    y = layers.Flatten()(y + layers.Conv2D(4, 1, name="side")(y))
    return keras.Model(x, layers.Dense(3, "softmax", name="head")(y))


def compiled(model, rate=0.01):
    model.compile(
        tf_keras().optimizers.SGD(rate, momentum=0.9), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    return model


def values(model, name):
    return model.get_layer(name).get_weights()[0]


def pruned_half(model):
    return [np.mean(values(model, name) == 0) for name in ("body", "side", "head")] == [0.5] * 3


def clustered(model):
    return all(len(np.unique(values(model, name))) <= 4 for name in ("body", "side", "head"))


def clustered_by_channel(model):
    """CQAT may let the clusters of a convolution's channels part."""
    kernels = [values(model, name).reshape(-1, values(model, name).shape[-1]) for name in ("body", "side", "head")]
    return all(len(np.unique(column)) <= 4 for kernel in kernels for column in kernel.T)


def moved(model):
    return not np.array_equal(values(model, "body"), values(network_as_it_was(), "body"))


def network_as_it_was():
    keras.utils.set_random_seed(0)
    return network()


RECIPES = {
    "prune": (lambda model: tfmot_prune(model, ConstantSparsity(0.5)), pruned_half),
    "cluster": (lambda model: tfmot_cluster(model, 4), clustered),
    "quantize": (tfmot_quantize, moved),
    "PQAT": (
        lambda model: tfmot_quantize(trained_a_step(tfmot_prune(model, ConstantSparsity(0.5))), "PQAT"),
        pruned_half,
    ),
    "CQAT": (lambda model: tfmot_quantize(trained_a_step(tfmot_cluster(model, 4)), "CQAT"), clustered_by_channel),
    "PCQAT": (
        lambda model: tfmot_quantize(
            trained_a_step(
                tfmot_cluster(trained_a_step(tfmot_prune(model, ConstantSparsity(0.5))), 4, preserve_sparsity=True)
            ),
            "PCQAT",
        ),
        lambda model: clustered_by_channel(model) and np.mean(values(model, "head") == 0) >= 0.5,
    ),
}


def trained_a_step(model):
    compiled(model).fit(X, Y, batch_size=16, verbose=0)
    return model


@pytest.mark.parametrize("recipe", few(RECIPES, "prune", "cluster", "quantize"))
def test_each_way_trains_with_early_stopping_and_a_schedule(recipe):
    wrap, holds = recipe
    model = network_as_it_was()
    wrapped = compiled(wrap(model))
    stop = EarlyStopping(Plateau("loss", patience=2, min_delta=1e3) | Target("accuracy", 2.0))
    schedule = ScheduleLearningRate(StepDecay(0.02, 1, 0.5))
    history = wrapped.fit(X, Y, batch_size=16, epochs=9, verbose=0, callbacks=[stop, schedule])
    assert history.epoch == [0, 1, 2]
    assert history.stop_reason == stop.stopped_because != ""
    assert float(wrapped.optimizer.learning_rate) == pytest.approx(0.005)
    assert copy_weights_back(wrapped) is model
    assert holds(model)


def test_a_tf_keras_model_is_taken_too_and_left_as_it_is():
    model = to_tf_keras(network())
    before = model.get_weights()
    wrapped = trained_a_step(tfmot_prune(model, ConstantSparsity(0.5)))
    assert tfmot().sparsity.keras.strip_pruning(wrapped).get_layer("head").units == 3
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


def test_a_polynomial_schedule_ends_at_its_final_sparsity():
    """TF-MOT's own PolynomialDecay renews the masks last at step 10, at 0.763 of 0.8 here."""
    model = network()
    wrapped = compiled(tfmot_prune(model, PolynomialSparsity(0.0, 0.75, begin_step=0, end_step=15), frequency=10))
    wrapped.fit(X, Y, batch_size=2, verbose=0)
    copy_weights_back(wrapped)
    assert sparsity(model)["total"] == pytest.approx(0.75, abs=0.005)


def test_a_fit_that_is_shorter_than_its_schedule_is_told():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(4)])
    wrapped = tfmot_prune(model, PolynomialSparsity(0.0, 0.5, begin_step=0, end_step=3), frequency=1)
    wrapped.compile("sgd", "mse")
    with pytest.warns(UserWarning, match="ended after 2 updates, before the schedule, which ends with update 3"):
        wrapped.fit(np.ones((2, 4)), np.ones((2, 4)), batch_size=1, verbose=0)
    wrapped.fit(np.ones((1, 4)), np.ones((1, 4)), verbose=0)
    copy_weights_back(wrapped)
    assert sparsity(model)["total"] == 0.5


@pytest.mark.parametrize("target", [0.25, full(0.5), full(0.75)])
def test_native_and_tfmot_pruning_give_the_same_masks(target):
    model = network()
    for layer in model.layers:  # distinct magnitudes
        if layer.weights and "norm" not in layer.name:
            size = layer.kernel.shape
            magnitudes = RNG.permutation(np.prod(size)).reshape(size) + 1.0
            layer.kernel.assign(magnitudes * RNG.choice([-1e-3, 1e-3], size))
    wrapped = compiled(tfmot_prune(model, ConstantSparsity(target)), rate=0.0)
    wrapped.fit(X[:4], Y[:4], verbose=0)
    native = keras.models.clone_model(model)
    native.set_weights(model.get_weights())
    native.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy")
    native.fit(X[:4], Y[:4], verbose=0, callbacks=[PruneLowMagnitude(ConstantSparsity(target))])
    copy_weights_back(wrapped)
    for name in ("body", "side", "head"):
        assert np.array_equal(values(model, name), values(native, name))
        assert np.mean(values(model, name) == 0) == pytest.approx(target, abs=0.01)


def test_kernels_that_tfmot_leaves_are_named():
    model = keras.Sequential([keras.Input((6, 6, 2)), layers.DepthwiseConv2D(3, name="depthwise"), layers.Conv2D(2, 1)])
    with pytest.warns(NoEffectWarning, match="does not prune the kernels of depthwise; PruneLowMagnitude"):
        tfmot_prune(model, ConstantSparsity(0.5))
    with pytest.warns(NoEffectWarning, match="does not cluster the kernels of depthwise, conv"):
        tfmot_cluster(model, 16)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: layers.LayerNormalization(name="named"),
        lambda: layers.LSTM(2, name="named"),
        lambda: keras.Sequential([layers.Dense(2)], name="named"),
        lambda: layers.Conv1D(2, 1, name="named"),
    ],
    ids=["LayerNormalization", "LSTM", "nested", "Conv1D"],
)
def test_what_tfmot_cannot_quantize_is_refused_by_name(layer):
    model = keras.Sequential([keras.Input((3, 4)), layer(), layers.Dense(2)])
    with pytest.raises(InputError, match=r"^tfmot_quantize: `?named`? .*Use quantize_aware"):
        tfmot_quantize(model)


def test_a_norm_behind_a_pooling_is_refused_with_its_cure():
    model = models.convnet((4,), (6, 6, 2), 3)
    with pytest.raises(InputError, match=r"`norm1` \(BatchNormalization\) .*Give it keras_opt.models.fold_batch_norm"):
        tfmot_quantize(model)
    assert tfmot_quantize(models.fold_batch_norm(model)).output_shape == (None, 3)


def test_a_layer_that_tfmot_split_does_not_come_back():
    model = keras.Sequential([keras.Input((6, 6, 2)), layers.SeparableConv2D(2, 3, name="split")])
    with pytest.raises(InputError, match=r"other layers in the place of `split` \(SeparableConv2D\)"):
        copy_weights_back(tfmot_quantize(model))


def test_a_schedule_gives_the_same_rates_in_a_tf_keras_optimizer():
    schedule = OneCycle(0.1, 6)
    model = to_tf_keras(keras.Sequential([keras.Input((4,)), layers.Dense(2)]))
    model.compile(tf_keras().optimizers.SGD(for_tf_keras(schedule)), "mse")
    rates = []
    note = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: rates.append(float(model.optimizer.learning_rate))
    )
    model.fit(np.ones((12, 4)), np.ones((12, 2)), batch_size=2, verbose=0, callbacks=for_tf_keras([note]))
    np.testing.assert_allclose(rates, [float(schedule(step)) for step in range(6)], rtol=1e-6)


def test_a_quantized_model_is_one_of_keras_3_for_the_export():
    wrapped = trained_a_step(tfmot_quantize(network()))
    model = in_keras_3(wrapped)
    assert isinstance(model, keras.Model)
    assert model.layers[-1].keeps_quantized_ranges
    np.testing.assert_allclose(model.predict(X, verbose=0), wrapped.predict(X, verbose=0), rtol=1e-5, atol=1e-6)
    other = to_tf_keras(network())
    assert in_keras_3(other) is other


@pytest.mark.full
def test_a_quantized_model_becomes_an_int8_file_without_representative_data(tmp_path):
    wrapped = trained_a_step(tfmot_quantize(network()))
    file = to_tflite(wrapped, tmp_path / "model.tflite", "int8")
    assert file.input.dtype == "int8"
    assert verify(wrapped, file.path, X, task="regression").max_error_lsb <= 5


_CODE = """
import json, os, sys
import tensorflow as tf
{first}
before = dict(os.environ)
import keras
from keras_opt.compression import ConstantSparsity, tfmot_prune
tfmot_prune(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]), ConstantSparsity(0.5))
print(json.dumps([
    "tensorflow_model_optimization" in sys.modules, tf.keras.__version__, tf.compat.v2.keras.layers.Dense.__module__,
    tf.optimizers.Adam.__module__, keras.__version__, before == dict(os.environ),
]))
"""


@pytest.mark.parametrize(
    "first", ["", full("tf.keras.layers.Dense"), full("import tf_keras")], ids=["unresolved", "resolved", "tf_keras"]
)
def test_tf_keras_and_the_environment_stay_as_they_were(first):
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-c", _CODE.format(first=first)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    loaded, version, layer, optimizer, keras_version, is_same = json.loads(done.stdout.splitlines()[-1])
    assert loaded
    assert version == keras_version == keras.__version__
    assert layer.startswith("keras.src")
    assert optimizer.startswith("keras.src")
    assert is_same
