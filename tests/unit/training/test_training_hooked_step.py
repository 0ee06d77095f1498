"""The step with plugins in it: what reaches them, and which steps are refused."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from line_model import Scaling, line, names, weight_after_a_batch

from keras_opt.training import StepHooks, StepPlugin
from keras_opt.training.norm_recorder import NormRecorder
from keras_opt.training.step_plugin import MicroBatchMerger


class Pairs(MicroBatchMerger):
    """Sums two micro-batches."""

    def build(self, variables):
        self.sums = [tf.Variable(tf.zeros(variable.shape, variable.dtype)) for variable in variables]
        self.count = tf.Variable(0)

    def merge(self, gradients, variables, data):
        for total, gradient in zip(self.sums, gradients, strict=True):
            total.assign_add(gradient)
        return self.count.assign_add(1) >= 2

    def take(self):
        gradients = [total.read_value() for total in self.sums]
        self.count.assign(0)
        for total in self.sums:
            total.assign(tf.zeros_like(total))
        return gradients

    def is_pending(self):
        return bool(self.count.numpy() > 0)


@pytest.mark.parametrize("run_eagerly", [True, False])
def test_left_over_micro_batches_are_flushed(run_eagerly):
    model, merger = line(run_eagerly=run_eagerly), Pairs()
    hub = StepHooks.of(model)
    hub.add(merger)
    hub.flush()  # nothing was gathered yet
    ones = np.ones((2, 1))
    for _ in range(3):
        model.train_on_batch(ones, ones)
    assert float(model.layers[0].kernel.numpy()[0, 0]) == 4.0
    hub.flush()
    hub.flush()
    assert float(model.layers[0].kernel.numpy()[0, 0]) == -2.0  # 4 - 2 * (4 - 1)
    assert int(model.optimizer.iterations) == 2


def test_micro_batches_cannot_be_merged_outside_of_the_models_step():
    model = line()
    StepHooks.of(model).add(Pairs())
    refused = r"GradientAccumulation: it acts only in the model's own step.*Call `fit` or `train_on_batch`"
    with pytest.raises(RuntimeError, match=refused):
        model.optimizer.apply([tf.ones((1, 1))], model.trainable_variables)


def test_captured_gradients_update_nothing():
    class Capturing(StepPlugin):
        def __init__(self, hub):
            self.hub = hub

        def run_step(self, train_step, data):
            with self.hub.captured() as outer:
                with self.hub.captured() as inner:
                    train_step(data)
                logs = train_step(data)
            self.counts = len(inner), len(outer), len(outer[0][0])
            return logs

    model = line()
    hub = StepHooks.of(model)
    plugin = Capturing(hub)
    hub.add(plugin)
    assert weight_after_a_batch(model) == 0.0
    assert plugin.counts == (1, 1, 1)


def test_a_loop_of_ones_own_around_the_optimizer_is_hooked_too():
    model = line()
    StepHooks.of(model).add(Scaling())
    (kernel,) = model.trainable_variables
    model.optimizer.apply(grads=[tf.ones((1, 1))], trainable_variables=[kernel])
    model.optimizer.apply_gradients([(tf.ones((1, 1)), kernel)])
    assert float(kernel.numpy()[0, 0]) == -4.0


def test_a_step_without_any_gradient_gets_the_error_of_keras():
    model = line()
    StepHooks.of(model).add(Scaling())
    with pytest.raises(ValueError, match="No gradients provided for any variable"):
        model.optimizer.apply([None], model.trainable_variables)


def test_a_variable_that_is_overwritten_with_its_gradient_is_none_of_the_plugins_business():
    model = line()
    StepHooks.of(model).add(Scaling())
    (kernel,) = model.trainable_variables
    scale = keras.Variable([[1.0]], name="scale")
    scale.overwrite_with_gradient = True
    model.optimizer.build([kernel, scale])
    model.optimizer.apply([tf.ones((1, 1)), tf.constant([[7.0]])], [kernel, scale])
    assert (float(kernel.numpy()[0, 0]), float(scale.numpy()[0, 0])) == (-2.0, 7.0)


def test_gradients_without_variables_are_those_that_the_optimizer_was_built_for():
    model = line()
    StepHooks.of(model).add(Scaling())
    other = keras.Variable([0.0], name="other")
    model.optimizer.build([other])
    model.optimizer.apply([tf.ones((1,))])
    assert float(other.numpy()[0]) == -2.0


class CompiledTwice(keras.Model):
    """Its `train_step`, or the helper that calls the optimizer in it, is a tf.function of its own."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1)

    def call(self, inputs):
        return self.dense(inputs)

    @tf.function
    def update(self, gradients):
        self.optimizer.apply(gradients, self.trainable_variables)

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = self.compute_loss(x, y, self(x, training=True))
        self.update(tape.gradient(loss, self.trainable_variables))
        return {"loss": loss}


@pytest.mark.parametrize("run_eagerly", [False, True])
def test_a_step_that_would_keep_the_plugins_in_a_function_of_its_own_is_refused(run_eagerly):
    model = CompiledTwice()
    model.compile("sgd", "mse", run_eagerly=run_eagerly)
    StepHooks.of(model).add(Scaling())
    with pytest.raises(RuntimeError, match=r"in a tf\.function, which would keep"):
        model.fit(tf.ones((4, 1)), tf.ones((4, 1)), verbose=0)


class TwoParts(keras.Model):
    """Its `train_step` gives the one optimizer the head's gradients first, then the others'."""

    def __init__(self, same=False):
        super().__init__()
        self.body, self.head = keras.layers.Dense(2, name="body"), keras.layers.Dense(1, name="head")
        self.same = same

    def call(self, inputs):
        return self.head(self.body(inputs))

    def train_step(self, data):
        x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
        parts = [self.trainable_variables] * 2 if self.same else [self.head.variables, self.body.variables]
        for variables in parts:
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((self(x) - y) ** 2)
            self.optimizer.apply(tape.gradient(loss, variables), variables)
        return {"loss": loss}


def two_parts(**settings):
    model = TwoParts(**settings)
    model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False)
    model(np.ones((1, 3)))
    model.optimizer.build(model.trainable_variables)
    return model


BATCH = np.ones((2, 3), "float32"), np.ones((2, 1), "float32")


@pytest.mark.parametrize("run_eagerly", [False, True])
@pytest.mark.parametrize("plugin", [Scaling, lambda: NormRecorder(1, 8, per_layer=True, ratios=True)])
def test_a_step_that_updates_two_sets_of_variables_with_one_optimizer_is_refused(plugin, run_eagerly):
    model = two_parts()
    model.run_eagerly = run_eagerly
    before = names(model)
    StepHooks.of(model).add(plugin())
    refused = r"first for 'two_parts\S*/head/kernel' and 1 more, then for .*/body/kernel' and 1 more.*Call it once with"
    with pytest.raises(RuntimeError, match=refused):
        model.train_on_batch(*BATCH)
    assert names(model) == before
    model.train_on_batch(*BATCH)


def test_a_step_that_updates_one_set_of_variables_twice_has_two_updates():
    model, recorder = two_parts(same=True), NormRecorder(1, 8, per_layer=False, ratios=False)
    StepHooks.of(model).add(recorder)
    model.train_on_batch(*BATCH)
    assert sum(len(block.step) for block in recorder.read()) == 2


def test_a_layer_that_is_frozen_while_plugins_are_on_leaves_the_others_to_them():
    model, recorder = two_parts(same=True), NormRecorder(1, 8, per_layer=True, ratios=False)
    StepHooks.of(model).add(recorder)
    model.train_on_batch(*BATCH)
    model.body.trainable = False
    model.make_train_function(force=True)
    model.train_on_batch(*BATCH)
    assert [len(block.layers) for block in recorder.read()] == [2, 1]


def test_two_sets_of_variables_are_refused_on_replicas_too(two_replicas):
    with two_replicas.scope():
        model = two_parts()
    before = names(model)
    StepHooks.of(model).add(Scaling())
    with pytest.raises(RuntimeError, match="calls one optimizer twice in a step"):
        model.train_on_batch(*BATCH)
    assert names(model) == before
