"""The hub: what it hangs on, what it takes off again, and what it refuses."""

import copy
import pickle
import signal

import keras
import numpy as np
import oracle_models as models
import pytest
import tensorflow as tf

from keras_opt.callbacks import GradientMonitor
from keras_opt.core.errors import NoEffectWarning
from keras_opt.training import StepHooks, StepPlugin
from keras_opt.training.step_plugin import MicroBatchMerger


class Scaling(StepPlugin):
    """Multiplies the gradients, and remembers that it was closed."""

    def __init__(self, factor=2.0):
        self.factor, self.closed = factor, 0

    def clip_gradients(self, gradients, variables):
        return [gradient * self.factor for gradient in gradients]

    def close(self):
        self.closed += 1


class Tenfold(keras.constraints.Constraint):
    def __call__(self, w):
        return w * 10


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


@pytest.fixture(autouse=True)
def _give_sigint_back():
    """Plugins that a test leaves attached keep SIGINT too."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


def line(optimizer=None, **settings):
    """y = w x with w = 0, so that a batch of ones has the gradient -2 and SGD with rate 1 goes to +2."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")])
    model.compile(optimizer or keras.optimizers.SGD(1.0), "mse", **{"jit_compile": False, **settings})
    return model


def weight_after_a_batch(model):
    model.layers[0].kernel.assign([[0.0]])
    model.train_on_batch(np.ones((2, 1)), np.ones((2, 1)))
    return float(model.layers[0].kernel.numpy()[0, 0])


def names(model):
    return set(vars(model)), set(vars(model.optimizer))


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
    with pytest.warns(NoEffectWarning, match="compiled anew while plugins were attached"):
        assert weight_after_a_batch(model) == 2.0


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
    with pytest.raises(RuntimeError, match=r"only in the model's own step.*Call `fit` or `train_on_batch`"):
        model.optimizer.apply([tf.ones((1, 1))], model.trainable_variables)


def test_a_second_merger_is_refused_and_leaves_nothing():
    model = line()
    before, hub = names(model), StepHooks.of(model)
    hub.add(Pairs())
    with pytest.raises(RuntimeError, match=r"merged already. Use one GradientAccumulation"):
        hub.add(Pairs())
    assert names(model) == before


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


class OwnApply(keras.optimizers.SGD):
    def apply(self, grads, trainable_variables=None):
        return super().apply(grads, trainable_variables)


class OwnScale(keras.optimizers.LossScaleOptimizer):
    def apply(self, grads, trainable_variables=None):
        return super().apply(grads, trainable_variables)


OVERRIDING = {
    "itself": OwnApply,
    "scaled": lambda: keras.optimizers.LossScaleOptimizer(OwnApply()),
    "scaling": lambda: OwnScale(keras.optimizers.SGD()),
}
HAS_MULTI_OPTIMIZER = hasattr(keras.optimizers, "MultiOptimizer")  # Keras 3.12 has none yet
if HAS_MULTI_OPTIMIZER:
    OVERRIDING["in many"] = lambda: keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(OwnApply()))


@pytest.mark.parametrize("optimizer", OVERRIDING.values(), ids=OVERRIDING)
def test_an_optimizer_that_overrides_apply_is_refused(optimizer):
    model = line(optimizer())
    before = names(model)
    with pytest.raises(RuntimeError, match=r"optimizer Own\w+ overrides `apply`.*Override `update_step` instead"):
        StepHooks.of(model).add(Scaling())
    with pytest.raises(RuntimeError, match="overrides `apply`"):
        StepHooks.prepare(model)
    assert names(model) == before


def test_an_optimizer_that_overrides_update_step_is_welcome():
    class Own(keras.optimizers.SGD):
        def update_step(self, gradient, variable, learning_rate):
            variable.assign_sub(3 * gradient)

    model = line(Own())
    StepHooks.of(model).add(Scaling())
    assert weight_after_a_batch(model) == 12.0


def test_an_optimizer_hooked_for_another_model_is_refused():
    model, other = line(keras.optimizers.SGD(1.0, name="ours")), line()
    StepHooks.of(model).add(Scaling())
    other.compile(model.optimizer, "mse")
    with pytest.raises(RuntimeError, match=r"of the optimizer 'ours' is already replaced by .* of its own"):
        StepHooks.of(other).add(Scaling())
    assert "train_step" not in vars(other)


@pytest.mark.parametrize("multi_optimizer", [keras.optimizers.MultiOptimizer] if HAS_MULTI_OPTIMIZER else [])
def test_accumulation_within_a_multi_optimizer_is_refused_even_if_it_shows_late(multi_optimizer):
    def choose(variable):
        return keras.optimizers.SGD(gradient_accumulation_steps=2)

    model = line(multi_optimizer(choose))
    StepHooks.of(model).add(Scaling())
    with pytest.raises(RuntimeError, match="an optimizer in the MultiOptimizer has gradient_accumulation_steps set"):
        weight_after_a_batch(model)


def test_accumulation_of_keras_over_replicas_is_refused(two_replicas):
    with two_replicas.scope():
        model = line(keras.optimizers.SGD(gradient_accumulation_steps=2))
    with pytest.raises(RuntimeError, match="Keras cannot accumulate gradients over several replicas"):
        StepHooks.of(model).add(Scaling())
    assert "train_step" not in vars(model)


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
