"""The step uphill and the two passes, driven by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_opt.training import StepHooks, StepPlugin
from keras_opt.training.sharpness import SharpnessAware, ascended


class Seen(StepPlugin):
    """Keeps the gradients that the optimizer is about to get."""

    def on_gradients(self, gradients, variables):
        self.gradients = [tf.convert_to_tensor(gradient).numpy() for gradient in gradients]


def line(optimizer="sgd", **settings):
    """y = w x with w = 1, in eager mode."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")])
    model.compile(optimizer, "mse", run_eagerly=True, **settings)
    return model


def step(model, *plugins, x=2.0, y=0.0):
    hooks = StepHooks.of(model)
    for plugin in plugins:
        hooks.add(plugin)
    try:
        return model.train_on_batch(np.full((1, 1), x), np.full((1, 1), y), return_dict=True)
    finally:
        hooks.detach()


def sharp(model, rho=0.5, interval=1):
    return SharpnessAware(model, rho, interval)


def kernel(model):
    return float(model.layers[0].kernel.numpy()[0, 0])


def test_the_step_has_the_length_rho_over_all_weights():
    weights = [tf.constant([1.0, 2.0]), tf.constant([[3.0]])]
    moved = ascended(weights, [tf.constant([2.0, 0.0]), tf.constant([[-1.5]])], rho=0.5)
    assert moved[0].numpy() == pytest.approx([1.4, 2.0])  # |g| = 2.5
    assert moved[1].numpy() == pytest.approx(2.7)


@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_a_gradient_whose_square_is_lost_shows_the_way(scale):
    (moved,) = ascended([tf.zeros(2)], [tf.constant([3.0, 4.0]) * scale], rho=1.0)
    assert moved.numpy() == pytest.approx([0.6, 0.8], rel=1e-6)


@pytest.mark.parametrize("bad", [0.0, np.inf, -np.inf, np.nan])
def test_without_a_finite_direction_the_weights_stay_bit_for_bit(bad):
    weights = [tf.constant([0.1, -0.2]), tf.constant([[0.3], [0.4]])]
    rows = tf.IndexedSlices(tf.constant([[bad]]), tf.constant([1]), tf.constant([2, 1]))
    moved = ascended(weights, [tf.constant([bad, 0.0 if bad == 0 else 1.0]), rows], rho=0.5)
    assert all(np.array_equal(a, b) for a, b in zip(moved, weights, strict=True))


def test_rows_of_an_embedding_move_where_their_ids_say():
    rows = tf.IndexedSlices(tf.constant([[3.0], [4.0]]), tf.constant([2, 0]), tf.constant([3, 1]))
    (moved,) = ascended([tf.zeros((3, 1))], [rows], rho=1.0)
    assert moved.numpy() == pytest.approx(np.array([[0.8], [0.0], [0.6]]))


def test_half_precision_weights_move_by_a_step_that_is_computed_in_float32():
    # rho / |g| is 1e5, which float16 does not hold.
    (moved,) = ascended([tf.zeros(2, tf.float16)], [tf.constant([0.6e-5, 0.8e-5])], rho=1.0)
    assert moved.dtype == tf.float16
    assert moved.numpy() == pytest.approx([0.6, 0.8], rel=1e-3)


def test_the_optimizer_and_other_plugins_get_the_gradient_of_the_second_pass():
    model, seen = line(), Seen()
    # At w = 1 the gradient is 2 x (x w - y) = 8, so w + e = 1.5, where it is 12.
    step(model, seen, sharp(model))
    assert seen.gradients[0].tolist() == [[12.0]]
    assert kernel(model) == pytest.approx(1 - 0.01 * 12)


def test_logs_and_metrics_are_of_the_first_pass():
    model = line(metrics=["mae"])
    assert step(model, sharp(model)) == {"loss": 4.0, "mae": 2.0}
    assert int(model.metrics[1].variables[0]) == 2  # one batch in the mean


@pytest.mark.parametrize("run_eagerly", [False, True])
def test_the_memory_of_a_stateful_layer_is_that_after_the_first_pass(run_eagerly):
    states = []
    for rho in (None, 0.5):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((2, 1), batch_size=1), keras.layers.SimpleRNN(2, stateful=True)])
        model.compile("sgd", "mse", run_eagerly=run_eagerly)
        if rho is not None:
            StepHooks.of(model).add(sharp(model, rho))
        model.train_on_batch(np.ones((1, 2, 1)), np.ones((1, 2)))
        states.append([state.numpy().tolist() for state in model.layers[0].states])
    assert states[0] == states[1]


def test_only_every_interval_th_update_is_made_so():
    model, seen = line(keras.optimizers.SGD(0.0)), Seen()
    found = []
    for _ in range(5):
        step(model, seen, sharp(model, interval=3))
        found.append(float(seen.gradients[0][0, 0]))
    assert found == [12.0, 8.0, 8.0, 12.0, 8.0]


def test_a_zero_gradient_changes_nothing():
    model = line()
    step(model, sharp(model), y=2.0)
    assert kernel(model) == 1.0


@pytest.mark.parametrize("scale", [2.0**-70, 2.0**70])
def test_the_direction_does_not_depend_on_the_loss_scale(scale):
    """Scaled, the square of the gradient leaves float32."""
    model, seen = line(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.01), initial_scale=scale)), Seen()
    step(model, seen, sharp(model))
    assert seen.gradients[0][0, 0] == pytest.approx(12.0)


def test_an_overflow_skips_the_update_and_lowers_the_scale():
    model = line(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.01), initial_scale=2.0**127))
    logs = step(model, sharp(model), x=1e3)
    assert kernel(model) == 1.0
    assert logs["loss"] == 1e6
    assert float(model.optimizer.dynamic_scale) == 2.0**126


def test_constraints_act_on_the_weights_and_not_on_the_perturbed_ones():
    model, seen = line(), Seen()
    model.layers[0].kernel.constraint = keras.constraints.MaxNorm(0.5)
    step(model, seen, sharp(model))
    assert seen.gradients[0].tolist() == [[12.0]]
    assert kernel(model) == pytest.approx(0.5)


def test_a_frozen_model_runs_one_pass():
    model = line()
    model.trainable = False
    with pytest.warns(UserWarning, match="does not have any trainable weights"):
        assert step(model, sharp(model))["loss"] == 4.0
    assert kernel(model) == 1.0


class Counting(keras.layers.Layer):
    """A layer with state, whose second call ends as it is told."""

    def build(self, shape):
        self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False, name="calls")
        self.passes, self.end = 0, []

    def call(self, x):
        self.calls.assign_add(1)
        self.passes += 1
        if self.passes == 2:
            for act in self.end:
                act()
        return x


def breaking(*end):
    dense = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")
    model = keras.Sequential([keras.Input((1,)), dense, Counting()])
    model.compile("sgd", "mse", run_eagerly=True)
    model.layers[1].passes, model.layers[1].end = 0, end
    return model


def raising(error):
    def act():
        raise error

    return act


@pytest.mark.parametrize("error", [ValueError("bad batch"), KeyboardInterrupt()], ids=["error", "ctrl_c"])
def test_an_eager_step_that_breaks_off_in_its_second_pass_leaves_the_weights_where_they_were(error):
    model = breaking(raising(error))
    with pytest.raises(type(error)):
        step(model, sharp(model))
    assert kernel(model) == 1.0
    assert float(model.layers[1].calls) == 1.0  # as after the first pass, which counts


def test_weights_that_a_ctrl_c_has_put_into_the_model_stay():
    """`EarlyStopping` puts its best weights there before the interrupt gets to the step."""
    model = breaking()
    best = [np.full((1, 1), 7.0), np.float32(5.0)]
    model.layers[1].end = [lambda: model.set_weights(best), raising(KeyboardInterrupt())]
    with pytest.raises(KeyboardInterrupt):
        step(model, sharp(model))
    assert kernel(model) == 7.0
    assert float(model.layers[1].calls) == 5.0


def test_the_replicas_of_an_eager_step_that_breaks_off_are_where_they_were(two_replicas):
    with two_replicas.scope():
        model = breaking()
    model.layers[1].passes, model.layers[1].end = -2, [raising(ValueError("bad batch"))]  # two first passes
    with pytest.raises(ValueError, match="bad batch"):
        step(model, sharp(model))
    copies = two_replicas.experimental_local_results(model.layers[0].kernel.value)
    assert [float(copy[0, 0]) for copy in copies] == [1.0, 1.0]
