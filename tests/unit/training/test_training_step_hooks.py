"""The hub: what it hangs on, what it takes off again, and what it refuses."""

import copy
import pickle

import keras
import numpy as np
import oracle_models as models
import pytest
import tensorflow as tf
from line_model import Scaling, line, names, weight_after_a_batch

from keras_opt.callbacks import GradientMonitor
from keras_opt.core.errors import NoEffectWarning
from keras_opt.training import StepHooks, StepPlugin


class Tenfold(keras.constraints.Constraint):
    def __call__(self, w):
        return w * 10


def test_plugins_act_before_the_optimizers_clipping_in_the_order_they_came():
    class Adding(StepPlugin):
        def clip_gradients(self, gradients, variables):
            return [gradient - 1 for gradient in gradients]

    model = line(keras.optimizers.SGD(1.0, clipvalue=4.5))
    hub = StepHooks.of(model)
    hub.add(Scaling())
    hub.add(Adding())
    assert weight_after_a_batch(model) == 4.5  # -2 * 2 - 1, clipped to -4.5
    assert len(StepHooks.of(model).plugins) == 2
    assert StepHooks.of(model) is hub


def test_observers_see_the_gradients_before_any_plugin_changes_them():
    class Observer(StepPlugin):
        def build(self, variables):
            self.seen = tf.Variable(0.0)

        def on_gradients(self, gradients, variables):
            self.seen.assign(tf.reshape(gradients[0], ()))

    model, observer = line(), Observer()
    for plugin in (Scaling(), observer):
        StepHooks.of(model).add(plugin)
    weight_after_a_batch(model)
    assert observer.seen.numpy() == -2.0


def test_the_last_plugin_to_leave_gives_model_and_optimizer_their_own_methods_back():
    model, first, second = line(), Scaling(), Scaling()
    assert weight_after_a_batch(model) == 2.0
    before, function, hub = names(model), model.train_function, StepHooks.of(model)
    hub.add(first)
    hub.add(second)
    assert weight_after_a_batch(model) == 8.0
    hub.remove(first)
    hub.remove(first)  # twice does no harm
    assert weight_after_a_batch(model) == 4.0
    hub.remove(second)
    assert names(model) == before
    assert model.train_function is function, "the step from before was traced already"
    assert weight_after_a_batch(model) == 2.0
    assert (first.closed, second.closed) == (1, 1)


def test_a_step_that_somebody_else_asked_for_meanwhile_is_traced_anew():
    model, plugin = line(), Scaling()
    weight_after_a_batch(model)
    hub, function = StepHooks.of(model), model.train_function
    hub.add(plugin)
    model.layers[0].kernel.constraint = Tenfold()
    model.make_train_function(force=True)  # as PruneLowMagnitude does
    assert weight_after_a_batch(model) == 40.0
    hub.remove(plugin)
    assert model.train_function is not function
    assert weight_after_a_batch(model) == 20.0


def test_a_step_that_was_asked_for_before_the_plugin_came_is_kept():
    model, plugin = line(), Scaling()
    weight_after_a_batch(model)
    model.layers[0].kernel.constraint = Tenfold()
    model.make_train_function(force=True)
    StepHooks.of(model).add(plugin)
    assert weight_after_a_batch(model) == 40.0
    StepHooks.of(model).remove(plugin)
    assert weight_after_a_batch(model) == 20.0


@pytest.mark.parametrize("hooked", [True, False], ids=["while plugins are on", "after they left"])
def test_compile_with_a_layer_frozen_is_never_answered_with_a_step_from_before(hooked):
    model = models.build("sequential")
    model.compile("sgd", "mse", jit_compile=False)
    batch = models.data("sequential", 4)
    model.train_on_batch(*batch)
    StepHooks.of(model).add(Scaling())
    model.train_on_batch(*batch)
    if not hooked:
        StepHooks.of(model).detach()
    model.layers[0].trainable = False
    model.compile("sgd", "mse", jit_compile=False)
    StepHooks.prepare(model)
    kernel = model.layers[0].kernel.numpy()
    model.train_on_batch(*batch)
    np.testing.assert_array_equal(model.layers[0].kernel.numpy(), kernel)


def test_a_model_compiled_anew_frees_the_old_optimizer_and_its_plugins():
    model, plugin = line(), Scaling()
    old = model.optimizer
    StepHooks.of(model).add(plugin)
    model.compile(keras.optimizers.SGD(1.0), "mse", jit_compile=False)
    assert StepHooks.of(model).plugins == ()
    assert plugin.closed == 1
    assert not {"apply", "train_step"} & (set(vars(old)) | set(vars(model)))
    assert weight_after_a_batch(model) == 2.0


def test_plugins_of_a_broken_off_fit_do_nothing_to_a_model_compiled_anew_and_say_so():
    model = line()
    StepHooks.of(model).add(Scaling())
    model.compile(keras.optimizers.SGD(1.0), "mse", jit_compile=False)
    with pytest.warns(NoEffectWarning, match="compiled anew while callbacks of keras_opt were acting"):
        assert weight_after_a_batch(model) == 2.0


def test_a_callback_that_compiles_in_mid_fit_says_so_though_another_one_asks_for_the_hub():
    class Compiling(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                self.model.compile(keras.optimizers.SGD(1.0), "mse", jit_compile=False)
                self.model.make_train_function()
                StepHooks.of(self.model)

        def on_train_begin(self, logs=None):
            StepHooks.of(self.model).add(Scaling())

    x = np.ones((4, 1))
    with pytest.warns(NoEffectWarning, match="compiled anew while callbacks of keras_opt were acting"):
        line().fit(x, x, epochs=2, verbose=0, callbacks=[Compiling()])


def test_compile_with_the_same_optimizer_keeps_the_plugins():
    model, optimizer = line(), keras.optimizers.SGD(1.0)
    model.compile(optimizer, "mse", jit_compile=False)
    StepHooks.of(model).add(Scaling())
    model.compile(optimizer, "mse", jit_compile=False)
    assert weight_after_a_batch(model) == 4.0
    StepHooks.of(model).detach()
    assert weight_after_a_batch(model) == 2.0


def test_prepare_removes_what_a_broken_off_fit_has_left():
    model, plugin = line(), Scaling()
    before = names(model)
    StepHooks.of(model).add(plugin)
    StepHooks.prepare(model)
    assert names(model) == before
    assert plugin.closed == 1


def test_a_plugin_that_fails_to_close_does_not_keep_the_others():
    class Broken(StepPlugin):
        def close(self):
            raise RuntimeError("cannot close")

    model, plugin = line(), Scaling()
    before = names(model)
    for one in (plugin, Broken(), Scaling()):
        StepHooks.of(model).add(one)
    with pytest.raises(RuntimeError, match="cannot close"):
        StepHooks.of(model).detach()
    assert names(model) == before
    assert plugin.closed == 1


def test_a_users_own_train_step_on_the_instance_is_used_and_put_back():
    model, calls = line(), []

    def own_step(data):
        calls.append(1)
        return keras.Model.train_step(model, data)

    model.train_step = own_step
    plugin = Scaling()
    StepHooks.of(model).add(plugin)
    assert weight_after_a_batch(model) == 4.0
    assert calls
    StepHooks.of(model).remove(plugin)
    assert vars(model)["train_step"] is own_step


def test_a_method_that_somebody_replaced_meanwhile_stays_his():
    model = line()
    StepHooks.of(model).add(Scaling())
    hub, theirs = StepHooks.of(model), lambda grads, trainable_variables=None: None
    vars(model.optimizer)["apply"] = theirs
    hub.detach()
    assert vars(model.optimizer)["apply"] is theirs


@pytest.mark.parametrize("stage", ["middle of fit", "before the first step"])
def test_files_and_copies_have_no_trace_of_the_hooks(stage, tmp_path):
    kept = {}

    def collect(model):
        name = "hooked" if "train_step" in vars(model) else "never"
        path = tmp_path / f"{name}.keras"
        model.save(path)
        model.save_weights(tmp_path / f"{name}.weights.h5")
        kept[name] = [
            model.get_config(),
            model.optimizer.get_config(),
            type(keras.models.load_model(path)),
            vars(keras.models.clone_model(model)).keys(),
            [variable.path for variable in copy.deepcopy(model).optimizer.variables],
            [variable.path for variable in pickle.loads(pickle.dumps(model)).variables],
        ]

    class Collecting(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 1:
                collect(self.model)

    for name in ("never", "hooked"):
        keras.backend.clear_session()
        model = models.build("sequential")
        model.compile("adam", "mse", jit_compile=False)
        if name == "hooked":
            StepHooks.of(model).add(Scaling(1.0))
        if stage == "middle of fit":
            model.fit(models.dataset(*models.data("sequential", 12)), verbose=0, callbacks=[Collecting()])
        else:
            model.optimizer.build(model.trainable_variables)
            collect(model)
    assert kept["hooked"] == kept["never"]
    plain, ours = (keras.models.load_model(tmp_path / f"{name}.keras") for name in kept)
    for theirs, mine in zip(plain.variables, ours.variables, strict=True):
        np.testing.assert_array_equal(theirs.numpy(), mine.numpy())
    assert ours.train_on_batch(*models.data("sequential", 4)) == plain.train_on_batch(*models.data("sequential", 4))


@pytest.mark.parametrize("model", [None, "model", keras.Sequential([keras.layers.Dense(1)])])
def test_what_is_no_compiled_model_is_refused(model):
    with pytest.raises(TypeError, match=r"`model` must be a compiled Keras model.*Compile the model before"):
        StepHooks.of(model)


def test_an_evaluation_with_callbacks_in_the_middle_of_a_fit_leaves_the_plugins_on():
    class Evaluating(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.evaluate(np.ones((4, 1)), np.ones((4, 1)), verbose=0, callbacks=[monitor])

    model, monitor = line(), GradientMonitor()
    x = np.ones((4, 1))
    model.fit(x, x, epochs=3, verbose=0, callbacks=[monitor, Evaluating()])
    assert len(monitor.series()["step"]) == 3


def test_a_second_plugin_of_an_owner_who_takes_one_is_refused_and_leaves_nothing():
    class Single(StepPlugin):
        owner, is_single = "Sharpener", True

    model = line()
    before, hub = names(model), StepHooks.of(model)
    for _ in range(2):
        hub.add(Scaling())
    hub.add(Single())
    with pytest.raises(RuntimeError, match=r"Sharpener: two of them would act on this model\. Leave one out"):
        hub.add(Single())
    assert names(model) == before
