"""A `fit` that an exception has ended leaves its plugins on the model; whoever trains next must not have them."""

import contextlib

import keras
import pytest
from full_rows import few
from line_model import ONES, Scaling, line, names, weight, weight_after_a_batch, weight_after_a_fit

from keras_opt.training import StepHooks, attach


class Twofold(keras.callbacks.Callback):
    """Adds a plugin that doubles the gradients, in each fit a new one."""

    def on_train_begin(self, logs=None):
        self.plugin = Scaling()
        StepHooks.of(self.model).add(self.plugin)

    def on_train_end(self, logs=None):
        StepHooks.of(self.model).remove(self.plugin)


class Calling(keras.callbacks.Callback):
    """Calls a function with the model in the middle of a fit, between the first two epochs."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def on_epoch_end(self, epoch, logs=None):
        if epoch == 0:
            self.function(self.model)


def fail(model):
    raise OSError("no space left")


def break_off(model, *callbacks):
    with pytest.raises(OSError, match="no space"):
        model.fit(ONES, ONES, verbose=0, callbacks=[*callbacks, Calling(fail)])


class Repeating(keras.Sequential):
    """A model with a `fit` of its own around that of Keras."""

    def fit(self, *args, **kwargs):
        return super().fit(*args, **kwargs)


def repeating():
    dense = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")
    model = Repeating([keras.Input((1,)), dense])
    model.compile(keras.optimizers.SGD(1.0), "mse", jit_compile=False)
    return model


MODELS = {"compiled": line, "eager": lambda: line(run_eagerly=True), "own fit": repeating}


@pytest.fixture(params=few(MODELS, "compiled", "own fit"))
def model(request):
    model = request.param()
    assert weight_after_a_fit(model) == 2.0
    return model


def test_a_plain_fit_is_plain_again(model):
    before, twofold = names(model), Twofold()
    function = model.train_function
    break_off(model, twofold)
    assert weight(model) == -2.0, "the fit that broke off was hooked: from 2 by 2 * 2"
    assert weight_after_a_fit(model) == 2.0
    assert names(model) == before
    assert model.train_function is function, "and it was not traced anew"
    assert twofold.plugin.closed == 1


def test_a_plain_train_on_batch_is_plain_again(model):
    before = names(model)
    break_off(model, Twofold())
    assert weight_after_a_batch(model) == 2.0
    assert names(model) == before


def test_a_plain_fit_after_a_new_compile_is_plain(model):
    break_off(model, Twofold())
    model.compile(keras.optimizers.SGD(1.0), "mse", jit_compile=False)
    assert weight_after_a_fit(model) == 2.0
    assert not {"train_step", "make_train_function"} & set(vars(model))


def test_a_fit_with_a_callback_that_prepares_nothing_has_its_own_plugin_only(model):
    break_off(model, Twofold())
    assert weight_after_a_fit(model, Twofold()) == 4.0


@pytest.mark.parametrize(
    "call",
    [
        lambda model: model.evaluate(ONES, ONES, verbose=0),
        lambda model: model.evaluate(ONES, ONES, verbose=0, callbacks=[keras.callbacks.Callback()]),
        lambda model: model.predict(ONES, verbose=0),
        lambda model: model.make_train_function(),
        lambda model: model.make_train_function(force=True),
        weight_after_a_batch,
        weight_after_a_fit,
    ],
    ids=["evaluate", "with callbacks", "predict", "make", "force", "train_on_batch", "plain fit"],
)
def test_what_is_called_in_the_middle_of_a_fit_leaves_its_plugins_on(model, call):
    seen = []

    def call_and_train(model):
        call(model)
        seen.append(weight_after_a_batch(model))
        model.layers[0].kernel.assign([[0.0]])

    model.fit(ONES, ONES, epochs=2, verbose=0, callbacks=[Twofold(), Calling(call_and_train)])
    assert seen == [4.0]
    assert weight(model) == 4.0, "in the second epoch too"


class Prepared(Twofold):
    """As our callbacks do."""

    def set_model(self, model):
        StepHooks.prepare(model)
        super().set_model(model)


def fit_within(model):
    assert weight_after_a_fit(model, Prepared()) == 8.0, "the plugins of both fits act"


def attach_within(model):
    with attach(model, Prepared()):
        assert weight_after_a_batch(model) == 8.0


@pytest.mark.parametrize("train", [fit_within, attach_within])
def test_a_training_with_callbacks_in_the_middle_of_a_fit_leaves_its_plugins_on(model, train):
    seen = []

    def train_and_look(model):
        train(model)
        seen.append(weight_after_a_batch(model))
        model.layers[0].kernel.assign([[0.0]])

    model.fit(ONES, ONES, epochs=2, verbose=0, callbacks=[Prepared(), Calling(train_and_look)])
    assert seen == [4.0]
    assert weight(model) == 4.0, "in the second epoch too"
    assert weight_after_a_fit(model) == 2.0


def test_what_is_called_in_the_validation_of_a_fit_leaves_its_plugins_on(model):
    model.layers[0].kernel.assign([[0.0]])
    model.fit(ONES, ONES, epochs=2, validation_data=(ONES, ONES), verbose=0, callbacks=[Twofold()])
    assert weight(model) == -8.0, "from 0 to 4, and from there by 2 * 6"


def test_plugins_added_outside_of_a_fit_stay(model):
    StepHooks.of(model).add(Scaling())
    assert weight_after_a_fit(model) == 4.0
    assert weight_after_a_batch(model) == 4.0
    break_off(model, Twofold())
    assert weight_after_a_fit(model) == 4.0
    StepHooks.of(model).detach()
    assert weight_after_a_fit(model) == 2.0


def test_attached_callbacks_stay_and_those_of_the_fit_go(model):
    with attach(model, Twofold()):
        break_off(model, Twofold())
        assert weight_after_a_batch(model) == 4.0
        break_off(model, Twofold())
        assert weight_after_a_fit(model) == 4.0
    assert weight_after_a_batch(model) == 2.0


def test_attach_does_not_shield_what_a_fit_before_has_left(model):
    break_off(model, Twofold())
    with attach(model):
        assert weight_after_a_batch(model) == 2.0
    assert "train_step" not in vars(model)


def test_callbacks_attached_in_the_middle_of_a_fit_stay_as_long_as_they_are_attached(model):
    with contextlib.ExitStack() as stack:

        def attach_for_long(model):
            stack.enter_context(attach(model, Twofold()))

        model.fit(ONES, ONES, verbose=0, callbacks=[Calling(attach_for_long)])
        assert weight_after_a_fit(model) == 4.0
        assert weight_after_a_batch(model) == 4.0
    assert weight_after_a_fit(model) == 2.0


def test_two_replicas(two_replicas):
    with two_replicas.scope():
        model = line()
    break_off(model, Twofold())
    assert "train_step" in vars(model)
    assert weight_after_a_fit(model) == 2.0
    assert "train_step" not in vars(model)
