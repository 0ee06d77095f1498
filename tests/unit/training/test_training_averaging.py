import keras
import numpy as np
import oracle_models
import pytest

from keras_opt.training import StepHooks
from keras_opt.training.averaging import WeightAverager

X, Y = (each.astype("float32") for each in oracle_models.data("batch_norm"))


def trained(step_size=0.5, start=0, every=1, updates=3, mode=None, lookahead=False):
    """A model, its averager, and the raw weights after each update."""
    model = oracle_models.build("batch_norm")
    model.compile(keras.optimizers.SGD(0.1), "mse", **(mode or {}))
    averager = WeightAverager(model, step_size, start, every, lookahead)
    StepHooks.of(model).add(averager)
    states = [model.get_weights()]
    for _ in range(updates):
        model.train_on_batch(X[:4], Y[:4])
        states.append(model.get_weights())
    return model, averager, states


def equal(found, expected):
    return all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def averages_of(model, averager):
    averager.put_in_place()
    weights = model.get_weights()
    averager.take_out()
    return weights


@pytest.mark.parametrize("run_eagerly", [False, True])
def test_a_step_size_of_one_copies_the_last_weights_and_of_half_halves_the_distance(run_eagerly):
    mode = {"run_eagerly": run_eagerly}
    model, averager, states = trained(1.0, mode=mode)
    assert oracle_models.deviation(averages_of(model, averager), states[3]) < 1e-6
    model, averager, states = trained(0.5, updates=1, mode=mode)
    middle = [(a + b) / 2 for a, b in zip(states[0], states[1], strict=True)]
    assert oracle_models.deviation(averages_of(model, averager), middle) < 1e-6


def test_there_are_no_averages_before_the_first_averaging():
    model, averager, _ = trained(start=2, every=2, updates=3)
    assert averager.averagings == 0
    assert not averager.put_in_place()
    model.train_on_batch(X[:4], Y[:4])
    assert averager.averagings == 1
    assert averager.updates == 4


def test_putting_in_twice_and_taking_out_twice_loses_nothing():
    model, averager, states = trained()
    averager.take_out()
    assert equal(model.get_weights(), states[3])
    assert averager.put_in_place()
    averages = model.get_weights()
    assert not averager.put_in_place()
    assert equal(model.get_weights(), averages)
    assert not equal(averages, states[3])
    averager.take_out()
    averager.take_out()
    assert equal(model.get_weights(), states[3])


@pytest.mark.parametrize("swap", ["put_in_place", "take_out"])
def test_an_interrupt_in_the_middle_of_a_swap_leaves_the_averages(swap, monkeypatch):
    model, averager, _ = trained()
    averages = averages_of(model, averager)
    if swap == "take_out":
        averager.put_in_place()
    kernel = model.layers[0].kernel.value

    def struck(value):
        raise KeyboardInterrupt

    norm = model.layers[1].gamma.value
    with monkeypatch.context() as patch:
        patch.setattr(norm, "assign", struck)
        with pytest.raises(KeyboardInterrupt):
            getattr(averager, swap)()
    assert np.array_equal(kernel.numpy(), averages[0]) == (swap == "put_in_place")
    averager.on_interrupt()
    assert equal(model.get_weights(), averages)
    averager.take_out()
    assert not averager.put_in_place()
    assert equal(model.get_weights(), averages)


def test_finished_averages_stay_when_the_plugin_leaves():
    model, averager, _ = trained()
    averager.put_in_place()
    model.set_weights([weight + 1 for weight in model.get_weights()])  # re-estimated statistics, say
    kept = model.get_weights()
    averager.finish()
    averager.close()
    assert equal(model.get_weights(), kept)


def test_constraints_hold_for_the_averages():
    model, averager, states = trained()
    model.layers[0].kernel.constraint = keras.constraints.NonNeg()
    averages = averages_of(model, averager)
    assert (averages[0] >= 0).all()
    assert (states[3][0] < 0).any()


def test_the_constraint_of_a_frozen_layer_does_not_change_its_weights():
    model, averager, states = trained()
    model.layers[0].kernel.constraint = keras.constraints.NonNeg()
    model.layers[0].trainable = False
    assert (states[0][0] < 0).any()
    assert (averages_of(model, averager)[0] < 0).any()


def test_a_layer_that_is_trained_later_gets_slow_weights_of_its_own():
    model = oracle_models.build("frozen")
    model.compile(keras.optimizers.SGD(0.1), "mse")
    averager = WeightAverager(model, 0.5, 0, 1, lookahead=True)
    StepHooks.of(model).add(averager)
    model.train_on_batch(X[:4], Y[:4])
    frozen = model.get_weights()[0]
    model.layers[0].trainable = True
    model.optimizer.built = False
    model.make_train_function(force=True)
    model.train_on_batch(X[:4], Y[:4])
    assert not np.array_equal(model.get_weights()[0], frozen)
    assert np.array_equal(averages_of(model, averager)[0], model.get_weights()[0])


def test_half_precision_weights_are_averaged_in_float32():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("bfloat16")
    try:
        model = oracle_models.build("sequential")
    finally:
        keras.config.set_dtype_policy(policy)
    model.compile(keras.optimizers.SGD(0.0), "mse")
    averager = WeightAverager(model, 1e-4, 0, 1)
    StepHooks.of(model).add(averager)
    model.train_on_batch(X[:4], Y[:4])
    model.set_weights([weight + 1 for weight in model.get_weights()])
    for _ in range(100):
        model.train_on_batch(X[:4], Y[:4])
    bias = averages_of(model, averager)[1].astype("float32")
    assert np.allclose(bias, 1 - (1 - 1e-4) ** 100, rtol=0.01)  # in bfloat16 it would have stopped at 0.004
