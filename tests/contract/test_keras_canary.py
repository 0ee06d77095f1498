"""Tells at once which Keras moved what keras_opt hooks."""

import inspect

import keras
import numpy as np
import pytest

from keras_opt.callbacks.monitors import mode_in_model
from keras_opt.training import StepHooks
from keras_opt.training.step_hooks import _HOOKED_METHODS

SIGNATURES = {
    "_backend_apply_gradients": ["self", "grads", "trainable_variables"],
    "_clip_gradients": ["self", "grads"],
}


def test_every_hooked_method_has_its_signature_here():
    assert set(SIGNATURES) == set(_HOOKED_METHODS)


@pytest.mark.parametrize(("method", "parameters"), SIGNATURES.items())
@pytest.mark.parametrize("optimizer", ["Adam", "AdamW", "SGD", "RMSprop", "Lion", "Nadam", "Adafactor"])
def test_the_private_methods_of_keras_are_where_they_were(optimizer, method, parameters):
    found = getattr(getattr(keras.optimizers, optimizer), method, None)
    where = f"Keras {keras.__version__}: {optimizer}.{method}"
    assert found is not None, f"{where} is gone; see keras_opt/training/step_hooks.py"
    assert list(inspect.signature(found).parameters) == parameters, f"{where} has other parameters"


def test_clipping_is_called_once_an_update_with_the_variables_of_the_step():
    seen = []

    class Watch:
        def on_gradients(self, gradients, variables):
            seen.append((len(gradients), [variable.name for variable in variables]))
            return gradients

    optimizer, variable = keras.optimizers.SGD(1.0), keras.Variable([0.0], name="w")
    StepHooks.of(optimizer).add(Watch())
    optimizer.apply([keras.ops.ones((1,))], [variable])
    assert seen == [(1, ["w"])], f"Keras {keras.__version__} no longer clips in `apply`"


@pytest.mark.parametrize("method", SIGNATURES)
def test_the_error_names_the_keras_version_and_the_method(monkeypatch, method):
    monkeypatch.setattr("keras_opt.training.step_hooks._HOOKED_METHODS", (*SIGNATURES, method + "_of_old"))
    message = f"StepHooks: Keras {keras.__version__} has moved {method}_of_old of its optimizers"
    with pytest.raises(RuntimeError) as caught:
        StepHooks.of(keras.optimizers.SGD())
    assert message in str(caught.value)


def test_the_walk_over_all_layers_is_where_it_was():
    found = getattr(keras.Layer, "_flatten_layers", None)
    assert callable(found), f"Keras {keras.__version__} has moved Layer._flatten_layers; see keras_opt/export/tflite.py"


@pytest.mark.parametrize(("metric", "mode"), [(keras.metrics.AUC, "max"), (keras.metrics.MeanSquaredError, "min")])
def test_the_direction_of_a_compiled_metric_is_where_it_was(metric, mode):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, activation="sigmoid")])
    model.compile("sgd", "mse", metrics=[metric(name="ranking")])
    model.train_on_batch(np.ones((2, 2)), np.ones((2, 1)))
    where = f"Keras {keras.__version__} has moved Metric._direction; see keras_opt/callbacks/monitors.py"
    assert mode_in_model("val_ranking", model) == mode, where
