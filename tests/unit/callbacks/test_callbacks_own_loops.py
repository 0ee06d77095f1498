"""Callbacks of the engine without a `fit`: in a bare `CallbackList`, and around `optimizer.apply`."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_opt.callbacks import (
    EarlyStopping,
    GradientAccumulation,
    GradientClipping,
    GradientMonitor,
    ProgressBar,
    SharpnessAwareMinimization,
    WeightAveraging,
)
from keras_opt.training import StepHooks, attach

X = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")
Y = X[:, :1]
KNOWS_NO_EPOCHS = r"nothing has told it how many epochs there are.*CallbackList\(callbacks, model=model, epochs=10\)"


@pytest.fixture
def model():
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(3), keras.layers.BatchNormalization(), keras.layers.Dense(1)]
    )
    model.compile(keras.optimizers.SGD(0.05), "mse")
    return model


def apply(model):
    """A step of one's own."""
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((model(X, training=True) - Y) ** 2)
    model.optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
    return loss


def train_on_batch(model):
    return model.train_on_batch(X, Y)


def run(callbacks, model, step):
    """Two epochs of three steps."""
    for epoch in range(2):
        callbacks.on_epoch_begin(epoch)
        for batch in range(3):
            callbacks.on_train_batch_begin(batch)
            loss = float(step(model))
            callbacks.on_train_batch_end(batch, {"loss": loss})
        callbacks.on_epoch_end(epoch, {"loss": loss})


EVERYWHERE = {
    "monitor": lambda: GradientMonitor(ratios=True),
    "clipping": lambda: GradientClipping(global_clipnorm=1.0),
    "ema": lambda: WeightAveraging(ema_momentum=0.1),
    "swa": lambda: WeightAveraging("swa", start=1),
    "lookahead": lambda: WeightAveraging("lookahead", every=2),
    "stopping": lambda: EarlyStopping("loss"),
}
IN_THE_MODELS_STEP = {
    "accumulation": lambda: GradientAccumulation(2),
    "sharpness": lambda: SharpnessAwareMinimization(),
}


@pytest.mark.parametrize(
    ("callback", "step"),
    [
        *[(callback, step) for callback in EVERYWHERE.values() for step in (train_on_batch, apply)],
        *[(callback, train_on_batch) for callback in IN_THE_MODELS_STEP.values()],
    ],
)
def test_a_list_that_was_told_nothing_will_do(callback, step, model):
    running = keras.callbacks.CallbackList([callback()], model=model)
    running.on_train_begin()
    run(running, model, step)
    running.on_train_end()
    assert "train_step" not in vars(model)


def test_accumulation_in_a_list_that_was_told_nothing_updates_at_the_end_of_the_epoch(model):
    running = keras.callbacks.CallbackList([GradientAccumulation(2)], model=model)
    running.on_train_begin()
    run(running, model, train_on_batch)
    assert int(model.optimizer.iterations) == 4, "of three micro-batches an epoch"
    running.on_train_end()


def test_a_fraction_of_unknown_epochs_is_refused_and_leaves_nothing(model):
    running = keras.callbacks.CallbackList([WeightAveraging("swa", start=0.5)], model=model)
    with pytest.raises(RuntimeError, match=f"WeightAveraging: {KNOWS_NO_EPOCHS}"):
        running.on_train_begin()
    assert "train_step" not in vars(model)


def test_progress_towards_unknown_epochs_is_refused(model):
    running = keras.callbacks.CallbackList([ProgressBar()], model=model)
    running.on_train_begin()
    with pytest.raises(RuntimeError, match=f"ProgressBar: {KNOWS_NO_EPOCHS}"):
        running.on_epoch_begin(0)


@pytest.mark.parametrize("callback", IN_THE_MODELS_STEP.values(), ids=IN_THE_MODELS_STEP)
def test_what_needs_the_models_own_step_says_so_in_a_loop_without_it(callback, model):
    name = type(callback()).__name__
    refused = rf"{name}: it acts only in the model's own step.*Call `fit` or `train_on_batch` instead of"
    with pytest.raises(RuntimeError, match=refused), attach(model, callback()):
        apply(model)
    assert "train_step" not in vars(model)


@pytest.mark.parametrize("compiled", [False, True])
def test_averages_of_a_loop_around_the_optimizer_are_those_of_its_weights(compiled, model):
    def step():
        apply(model)

    function = tf.function(step, autograph=False) if compiled else step
    expected = [weight.numpy() for weight in model.trainable_variables]
    with attach(model, WeightAveraging(ema_momentum=0.25)):
        for _ in range(5):
            function()
            pairs = zip(expected, model.trainable_variables, strict=True)
            expected = [0.25 * average + 0.75 * weight.numpy() for average, weight in pairs]
    for average, weight in zip(expected, model.trainable_variables, strict=True):
        np.testing.assert_allclose(weight.numpy(), average, rtol=1e-5)
    assert StepHooks.of(model).plugins == ()


def test_an_optimizer_that_compile_chose_and_nobody_uses_is_named_as_such():
    class Own(keras.Sequential):
        def train_step(self, data):
            return {"loss": tf.constant(0.0)}

    own = Own([keras.Input((4,)), keras.layers.Dense(1)])
    own.compile()
    told = r"`model\.optimizer` \(RMSprop, given to `compile` or its default\) made no update"
    for callback in (GradientMonitor(), GradientClipping(clipnorm=1.0)):
        with pytest.warns(UserWarning, match=told):
            own.fit(X, Y, verbose=0, callbacks=[callback])
