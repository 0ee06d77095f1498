"""Tells at once which Keras moved what keras_opt hooks."""

import inspect
import re
from pathlib import Path

import keras
import keras_tuner
import numpy as np
import pytest
import tensorflow as tf
from keras.src.backend.tensorflow import trainer

from keras_opt.callbacks.monitors import mode_in_model
from keras_opt.callbacks.siblings import siblings
from keras_opt.callbacks.validation_batches import validation_batches
from keras_opt.core import random_generators, replicas
from keras_opt.core.all_layers import all_layers
from keras_opt.core.errors import InputError
from keras_opt.core.learning_rates import rate_source
from keras_opt.data.dataset_graph import function_of, inputs_of, kind_of
from keras_opt.models import add_regularization, finetune, pretrained_weights, set_dropout
from keras_opt.training import StepHooks
from keras_opt.training.callers import running_fits
from keras_opt.training.hookable import PRIVATE_METHODS

SIGNATURES = {
    "_all_reduce_sum_gradients": ["self", "grads_and_vars"],
    "_clip_gradients": ["self", "grads"],
}
OPTIMIZERS = ["SGD", "Adam", "AdamW", "RMSprop", "Lion", "Nadam", "Adafactor", "LossScaleOptimizer"]
OPTIMIZERS += ["MultiOptimizer"] if hasattr(keras.optimizers, "MultiOptimizer") else []  # not yet in Keras 3.12
VERSION = f"Keras {keras.__version__}"


def line(optimizer):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.compile(optimizer, "mse", jit_compile=False)
    return model


def count_calls(optimizer, *methods):
    """The names of `methods`, in the order in which the optimizer's own code calls them."""
    calls = []

    def wrapped(method):
        original = getattr(optimizer, method)

        def call(*args, **kwargs):
            calls.append((method, [type(argument) for argument in args], list(kwargs)))
            return original(*args, **kwargs)

        return call

    for method in methods:
        vars(optimizer)[method] = wrapped(method)
    return calls


def test_every_hooked_method_has_its_signature_here():
    assert set(SIGNATURES) == set(PRIVATE_METHODS)


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("method", "parameters"), [*SIGNATURES.items(), ("apply", ["self", "grads", "trainable_variables"])]
)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_methods_of_keras_that_are_hooked_are_where_they_were(optimizer, method, parameters):
    found = getattr(getattr(keras.optimizers, optimizer), method, None)
    where = f"{VERSION}: {optimizer}.{method}"
    assert found is not None, f"{where} is gone; see keras_opt/training/step_hooks.py"
    assert list(inspect.signature(found).parameters) == parameters, f"{where} has other parameters"


@pytest.mark.smoke
def test_the_train_step_of_keras_calls_apply_once_with_all_gradients_and_variables():
    model = line(keras.optimizers.SGD(1.0))
    seen = []
    original = model.optimizer.apply

    def apply(grads, trainable_variables=None):
        seen.append((len(grads), [variable.name for variable in trainable_variables]))
        return original(grads, trainable_variables)

    vars(model.optimizer)["apply"] = apply
    model.run_eagerly = True
    model.train_on_batch(np.ones((2, 1)), np.ones((2, 1)))
    assert seen == [(1, ["kernel"])], f"{VERSION}: `train_step` no longer calls `apply` once"


@pytest.mark.smoke
def test_a_loss_scale_optimizer_calls_apply_of_its_inner_optimizer():
    model = line(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(1.0)))
    calls = count_calls(model.optimizer.inner_optimizer, "apply")
    model.train_on_batch(np.ones((2, 1)), np.ones((2, 1)))
    assert calls, f"{VERSION}: LossScaleOptimizer no longer calls `apply` of the inner optimizer"


@pytest.mark.smoke
def test_keras_own_accumulation_clips_once_for_each_real_update():
    optimizer, variable = keras.optimizers.SGD(1.0, gradient_accumulation_steps=3), keras.Variable([0.0], name="w")
    calls, iterations = count_calls(optimizer, "_clip_gradients"), []
    for _ in range(7):
        optimizer.apply([tf.ones((1,))], [variable])
        iterations.append(int(optimizer.iterations))
    where = f"{VERSION}: accumulation within the optimizer has changed"
    assert [name for name, _, _ in calls] == ["_clip_gradients"] * 2, where
    assert iterations == [0, 0, 1, 1, 1, 2, 2], where


@pytest.mark.smoke
def test_every_update_reduces_over_replicas_in_the_hooked_method(two_replicas):
    with two_replicas.scope():
        model = line(keras.optimizers.SGD(1.0))
    calls = count_calls(model.optimizer, "_all_reduce_sum_gradients")
    model.fit(np.ones((4, 1)), np.ones((4, 1)), batch_size=4, verbose=0)
    assert [kinds for _, kinds, _ in calls] == [[list]] * len(calls), VERSION
    assert len(calls) % 2 == 0, f"{VERSION}: the replicas no longer sum their gradients in that method"
    assert calls, f"{VERSION}: gradients are summed elsewhere"


@pytest.mark.smoke
def test_a_choice_that_communicates_still_works_in_a_replica(two_replicas):
    def choose(total):
        return replicas.cond(total > 0, lambda x: replicas.sum_over_replicas([x])[0], lambda x: x, (total,))

    total = tf.function(lambda: two_replicas.run(choose, args=(tf.constant(1.0),)), autograph=False)()
    values = [float(value) for value in two_replicas.experimental_local_results(total)]
    assert values == [2.0, 2.0], f"TensorFlow {tf.__version__}: `merge_call` around `tf.cond`; see core/replicas.py"


@pytest.mark.smoke
def test_a_step_traced_before_is_kept_in_train_function():
    model = line("sgd")
    model.make_train_function()
    first = model.train_function
    model.make_train_function()
    assert model.train_function is first, VERSION
    model.make_train_function(force=True)
    assert model.train_function is not first, VERSION
    model.compile("sgd", "mse")
    assert model.train_function is None, f"{VERSION}: `compile` no longer drops the traced step"


@pytest.mark.smoke
def test_fit_asks_for_its_step_between_set_model_and_on_train_begin():
    calls = []

    class Telling(keras.callbacks.Callback):
        def set_model(self, model):
            calls.append("set_model")

        def on_train_begin(self, logs=None):
            calls.append("on_train_begin")

    def make_train_function(force=False):
        calls.append([frame.f_code.co_name for frame in running_fits(model)])
        return keras.Model.make_train_function(model, force)

    model = line("sgd")
    vars(model)["make_train_function"] = make_train_function
    model.fit(np.ones((2, 1)), np.ones((2, 1)), verbose=0, callbacks=[Telling()])
    model.train_on_batch(np.ones((2, 1)), np.ones((2, 1)))
    where = f"{VERSION} begins a training another way; see keras_opt/training/callers.py and step_hooks.py"
    assert calls == ["set_model", ["fit"], "on_train_begin", []], where


@pytest.mark.parametrize("method", SIGNATURES)
def test_the_error_names_the_keras_version_and_the_method(monkeypatch, method):
    monkeypatch.setattr("keras_opt.training.hookable.PRIVATE_METHODS", (*SIGNATURES, method + "_of_old"))
    message = f"StepHooks: {VERSION} has moved {method}_of_old of its optimizers"
    with pytest.raises(RuntimeError, match=re.escape(message)):
        StepHooks.prepare(line("sgd"))


def test_the_walk_over_all_layers_is_where_it_was():
    inner = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, name="deep")])
    model = keras.Sequential([keras.Input((3, 2)), keras.layers.TimeDistributed(inner, name="wrapper")])
    where = f"{VERSION} has moved Layer._flatten_layers; see keras_opt/core/all_layers.py"
    assert hasattr(keras.Layer, "_flatten_layers"), where
    assert {"deep", "wrapper"} <= {layer.name for layer in all_layers(model)}, where


@pytest.mark.parametrize(("metric", "mode"), [(keras.metrics.AUC, "max"), (keras.metrics.MeanSquaredError, "min")])
def test_the_direction_of_a_compiled_metric_is_where_it_was(metric, mode):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, activation="sigmoid")])
    model.compile("sgd", "mse", metrics=[metric(name="ranking")])
    model.train_on_batch(np.ones((2, 2)), np.ones((2, 1)))
    where = f"Keras {keras.__version__} has moved Metric._direction; see keras_opt/callbacks/monitors.py"
    assert mode_in_model("val_ranking", model) == mode, where


def test_a_model_still_puts_its_results_in_order_where_it_did():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", metrics=["mae"])
    logs = model.train_on_batch(np.ones((2, 1)), np.ones((2, 1)), return_dict=True)
    where = f"{VERSION} orders its results elsewhere; see keras_opt/models/regularization_loss.py"
    assert hasattr(model, "_flatten_metrics_in_order"), where
    assert model._flatten_metrics_in_order({"mae": logs["mae"], "loss": logs["loss"]}) == [logs["loss"], logs["mae"]]


def test_the_list_that_calls_set_model_is_on_the_stack():
    seen = []

    class Curious(keras.callbacks.Callback):
        def set_model(self, model):
            super().set_model(model)
            seen.append(siblings(self))

    curious, other = Curious(), keras.callbacks.Callback()
    keras.callbacks.CallbackList([other, curious], model=keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)]))
    where = f"Keras {keras.__version__} calls set_model another way; see keras_opt/callbacks/siblings.py"
    assert seen == [[other, curious]], where


def test_a_layer_is_called_through_its_own_call():
    norm, seen = keras.layers.BatchNormalization(), []
    model = keras.Sequential([keras.Input((2,)), norm])
    call = norm.call
    vars(norm)["call"] = lambda inputs, training=None, mask=None: seen.append(training) or call(inputs, training, mask)
    model(np.ones((3, 2)), training=True)
    where = f"Keras {keras.__version__} runs a layer another way; see keras_opt/models/reestimate_batch_norm.py"
    assert seen == [True], where


def test_the_arguments_of_fit_are_where_they_were():
    found = []
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    look = keras.callbacks.LambdaCallback(on_train_begin=lambda logs: found.append(validation_batches(model)))
    x, y = np.ones((20, 2)), np.ones((20, 1))
    model.fit(x, y, batch_size=4, validation_split=0.5, verbose=0, callbacks=[look])
    model.fit(x, y, batch_size=4, validation_data=(x, y), validation_steps=1, verbose=0, callbacks=[look])
    model.fit(x, y, validation_data=(x, y), validation_batch_size=2, verbose=0, callbacks=[look])
    where = f"Keras {keras.__version__} has renamed arguments in `fit`; see keras_opt/callbacks/validation_batches.py"
    assert found == [3, 1, 10], where


def test_the_callbacks_of_keras_count_where_they_did(tmp_path):
    """The private attributes of `keras_opt/callbacks/keras_states.py`, as they are in the second epoch of a fit."""
    seen = {}
    checkpoint = keras.callbacks.ModelCheckpoint(tmp_path / "model.keras", save_freq=4)
    averaging = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
    board = keras.callbacks.TensorBoard(tmp_path, update_freq=1)

    def look(epoch, logs):
        if epoch == 1:
            seen["checkpoint"] = checkpoint._batches_seen_since_last_saving, checkpoint._last_batch_seen
            seen["averaging"] = averaging._ema_weights_in_model
            seen["board"] = board._global_train_batch, board._global_test_batch, sorted(board._writers)

    model = line(keras.optimizers.SGD(use_ema=True))
    x = np.ones((6, 1))
    callbacks = [keras.callbacks.LambdaCallback(on_epoch_begin=look), checkpoint, averaging, board]
    model.fit(x, x, batch_size=2, epochs=2, validation_data=(x, x), verbose=0, callbacks=callbacks)
    expected = {"checkpoint": (3, 2), "averaging": True, "board": (3, 3, ["train", "val"])}
    assert seen == expected, f"{VERSION} has moved the state of callbacks; see keras_opt/callbacks/keras_states.py"
    assert {path.parent.name for path in tmp_path.glob("*/*tfevents*.v2")} == {"train", "validation"}


@pytest.mark.parametrize("is_scaled", [False, True])
def test_a_variable_and_its_number_in_the_optimizer_are_where_they_were(is_scaled):
    """The private attributes of `keras_opt/distribute/placed_variables.py`."""
    unscaled = keras.optimizers.Adam()
    optimizer = keras.optimizers.LossScaleOptimizer(unscaled) if is_scaled else unscaled
    model = line(optimizer)
    optimizer.build(model.trainable_variables)
    kernel = model.trainable_variables[0]
    where = f"{VERSION} keeps variables elsewhere; see keras_opt/distribute/placed_variables.py"
    assert kernel._value is kernel.value, where
    assert optimizer._var_key(kernel) == kernel.value._unique_id, where
    assert unscaled._trainable_variables_indices == {optimizer._var_key(kernel): 0}, where
    assert unscaled.variables[-1].name == kernel.path.replace("/", "_") + "_velocity", where


@pytest.mark.parametrize("kind", ["Adam", "AdamW", "RMSprop", "SGD"])
def test_the_source_of_a_rate_is_where_it_was(kind):
    schedule, function = keras.optimizers.schedules.CosineDecay(0.1, 10), lambda: 0.1
    sources = [rate_source(getattr(keras.optimizers, kind)(rate)) for rate in (schedule, function, 0.1)]
    where = f"{VERSION} keeps the rate of {kind} elsewhere; see keras_opt/core/learning_rates.py"
    assert sources == [schedule, function, None], where


@pytest.mark.parametrize(
    ("optimizer", "slots"),
    [
        (keras.optimizers.Adam(amsgrad=True), {"velocity", "velocity_hat"}),
        (keras.optimizers.RMSprop(centered=True), {"velocity", "average_gradient"}),
    ],
    ids=["Adam", "RMSprop"],
)
def test_the_second_moments_have_the_names_they_had(optimizer, slots):
    model = line(optimizer)
    optimizer.build(model.trainable_variables)
    path = model.trainable_variables[0].path.replace("/", "_")
    where = f"{VERSION} names the variables of its optimizers otherwise; see keras_opt/callbacks/effective_rates.py"
    assert {f"{path}_{slot}" for slot in slots} <= {variable.name for variable in optimizer.variables}, where


@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "AdamW", "RMSprop", "Lion", "Nadam", "Adafactor"])
def test_an_optimizer_still_reads_its_count_of_updates_where_it_was(optimizer):
    where = f"{VERSION} has moved what counts the updates of {optimizer}; see keras_opt/training/group_rates.py"
    made = getattr(keras.optimizers, optimizer)()
    assert list(inspect.signature(made.update_step).parameters) == ["gradient", "variable", "learning_rate"], where
    vars(made)["_iterations"] = tf.constant(7, tf.int64)
    assert int(made.iterations) == 7, where


def test_an_optimizer_still_knows_the_variables_it_was_built_for():
    known, unknown = (keras.Variable([0.0], name=name) for name in ("known", "unknown"))
    optimizer = keras.optimizers.Adam()
    optimizer.build([known])
    where = f"{VERSION} checks variables another way; see keras_opt/callbacks/gradual_unfreezing.py"
    assert hasattr(optimizer, "_check_variables_are_known"), where
    optimizer._check_variables_are_known([known])
    with pytest.raises(ValueError, match="Unknown variable"):
        optimizer._check_variables_are_known([known, unknown])
    where = f"{VERSION} keeps the variables of an optimizer elsewhere; see keras_opt/core/optimizers.py"
    assert list(getattr(optimizer, "_trainable_variables", ())) == [known], where


@pytest.mark.smoke
def test_the_applications_ask_for_their_weights_where_they_did(tmp_path, monkeypatch):
    asked = []

    def answers(origin):
        asked.append(origin)
        return False

    monkeypatch.setattr(pretrained_weights, "_answers", answers)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    with pytest.raises(InputError, match="Fetch https://"):
        finetune("MobileNetV2", (96, 96, 3), 2, alpha=0.35)
    assert asked, f"{VERSION}: applications have moved `get_file`; see keras_opt/models/pretrained_weights.py"
    monkeypatch.undo()
    folder = Path(keras.src.backend.config.keras_home(), "models")
    assert pretrained_weights._folder("models") == folder, f"{VERSION} keeps what it fetches elsewhere"


@pytest.mark.smoke
def test_a_built_layer_can_be_given_a_generator_as_it_could():
    where = f"{VERSION} has moved Layer._tracker; see keras_opt/models/set_dropout.py"
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dropout(0.0, name="drop")])
    with pytest.raises(ValueError, match="cannot add new elements of state"):
        model.layers[0].seed_generator = keras.random.SeedGenerator(1)
    set_dropout(model, {"drop": 0.5})
    assert model.layers[0]._tracker.locked, where
    assert any(each is model.layers[0].seed_generator.state for each in model.variables), where


@pytest.mark.smoke
def test_an_attention_layer_saves_its_regularizers_where_it_did():
    inputs = keras.Input((3, 2))
    model = keras.Model(inputs, keras.layers.MultiHeadAttention(1, 2, name="mha")(inputs, inputs))
    add_regularization(model, l2=0.5)  # it warns of what is not saved, and warnings are errors
    saved = model.get_layer("mha").get_config()["kernel_regularizer"] or {"config": {"l2": None}}
    where = f"{VERSION} has moved MultiHeadAttention._kernel_regularizer; see keras_opt/models/saved_regularizers.py"
    assert saved["config"]["l2"] == 0.5, where


@pytest.mark.smoke
def test_the_global_generator_of_keras_is_where_it_was():
    keras.random.uniform(())
    generator = random_generators._keras_generator()
    where = f"{VERSION}: the global seed generator has moved; see keras_opt/core/random_generators.py"
    assert isinstance(generator, keras.random.SeedGenerator), where
    before = generator.state.numpy().tolist()
    keras.random.uniform(())
    assert generator.state.numpy().tolist() != before, where


def test_a_fit_keeps_its_place_in_the_data_where_it_did(tmp_path):
    """What `keras_opt/callbacks/backup/data_position.py` takes hold of, at the second batch of the second epoch."""
    where = f"{VERSION} has moved the place in the data; see keras_opt/callbacks/backup/data_position.py"
    model = line("sgd")
    seen = []

    class Looking(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            assert model._initial_epoch is None, where

        def on_train_batch_begin(self, batch, logs=None):
            fit = next(running_fits(model)).f_locals
            source = fit["epoch_iterator"]
            assert (fit["x"], fit["y"]) == (data, None), where
            assert callable(source._enumerate_iterator), where
            assert source._get_iterator().element_spec == data.element_spec, where
            seen.append((source._steps_seen, source._num_batches, source.steps_per_epoch, source.steps_per_execution))
            next(fit["iterator"])  # another batch than that of the step

    data = tf.data.Dataset.from_tensor_slices((np.ones((8, 1)), np.ones((8, 1)))).batch(2)
    with pytest.warns(UserWarning, match="ran out of data"):
        model.fit(data, epochs=2, verbose=0, shuffle=False, callbacks=[Looking()])
    assert seen[:2] == [(1, 4, None, 1), (2, 4, None, 1)], where
    model._initial_epoch = 1
    assert model.fit(data, epochs=2, verbose=0, shuffle=False).epoch == [1], where


def test_a_dataset_knows_what_it_reads_and_the_functions_it_was_given():
    """`data/dataset_graph.py` asks for `_inputs` and `_functions`, which have no public names."""

    def doubled(x):
        return x * 2

    source = tf.data.Dataset.range(3)
    dataset = tf.data.Dataset.zip(source.map(doubled), source).batch(2)
    where = f"TensorFlow {tf.__version__} has moved Dataset._inputs or _functions; see keras_opt/data/dataset_graph.py"
    zipped = inputs_of(dataset)[0]
    assert [kind_of(part) for part in (dataset, zipped, *inputs_of(zipped))] == ["batch", "zip", "map", "range"], where
    assert function_of(inputs_of(zipped)[0]) == "doubled", where
    assert function_of(dataset) == "", where


MENDED = f"{VERSION} has mended it: delete what stands for it in keras_opt/distribute/keras_repairs.py, namely"
MOVED = f"{VERSION} has moved what keras_opt/distribute/keras_repairs.py stands in for:"


@pytest.mark.smoke
def test_keras_still_needs_its_build_repaired(two_replicas):
    with two_replicas.scope():
        model = line("sgd")
    try:
        model.fit(np.ones((5, 1)), np.ones((5, 1)), batch_size=5, verbose=0)
    except tf.errors.InvalidArgumentError:
        return
    pytest.fail(f"{MENDED} the building in `_build` (not its call of `begin`)")


@pytest.mark.smoke
def test_keras_still_needs_its_step_repaired(two_replicas):
    with two_replicas.scope():
        model = line("sgd")
        several = line("sgd")
        several.steps_per_execution = 2
    data = tf.data.Dataset.from_tensor_slices((np.ones((4, 1)), np.ones((4, 1)))).batch(2).filter(lambda x, y: True)
    with pytest.warns(UserWarning, match="ran out of data"):
        model.fit(data, shuffle=False, verbose=0)
    of_length = int(model.optimizer.iterations.numpy())
    try:
        several.fit(np.ones((4, 1)), np.ones((4, 1)), batch_size=2, verbose=0)
    except tf.errors.InvalidArgumentError:
        return
    assert of_length != 2, f"{MENDED} `_make_function`"


@pytest.mark.smoke
def test_keras_still_needs_the_seeds_of_replicas_repaired(two_replicas):
    with two_replicas.scope():
        generator = keras.random.SeedGenerator(1)
    seeds = two_replicas.run(generator.next)
    first, second = (seed.numpy().tolist() for seed in two_replicas.experimental_local_results(seeds))
    assert first == second, f"{MENDED} `_next`"


@pytest.mark.smoke
def test_keras_still_needs_the_logs_of_workers_repaired():
    axes = []

    class Workers(tf.distribute.MultiWorkerMirroredStrategy):
        extended = type("Extended", (), {"_in_multi_worker_mode": lambda self: True})()

        def __init__(self):
            """Without workers to wait for."""

        def reduce(self, reduce_op, value, axis):
            axes.append(axis)
            return value

    trainer.reduce_per_replica({"loss": tf.constant(1.0)}, Workers(), "auto")
    assert axes == [0], f"{MENDED} `_reduce`"


@pytest.mark.smoke
def test_the_repairs_stand_in_for_what_there_is():
    kinds = trainer.TensorFlowTrainer
    assert kinds in keras.Model.__mro__, MOVED
    arguments = {
        kinds._maybe_symbolic_build: ["self", "iterator", "data_batch"],
        kinds._make_function: ["self", "step_function"],
        kinds._symbolic_build: ["self", "iterator", "data_batch"],
        kinds.predict_on_batch: ["self", "x"],
        trainer.reduce_per_replica: ["values", "strategy", "reduction"],
        trainer.loss_module.reduce_values: ["values", "sample_weight", "reduction"],
        keras.optimizers.LossScaleOptimizer.apply: ["self", "grads", "trainable_variables"],
    }
    for function, names in arguments.items():
        assert list(inspect.signature(function).parameters) == names, f"{MOVED} {function.__name__}"
    strategy = tf.distribute.get_strategy()
    iterator = trainer.TFEpochIterator(x=np.ones((4, 1)), batch_size=2, distribute_strategy=strategy)
    taken, iterator._distributed_dataset = iterator._distributed_dataset, "another"
    assert isinstance(taken, tf.data.Dataset), MOVED
    assert iterator._get_iterator() == "another", MOVED
    assert iterator.data_adapter.num_batches == 2, MOVED


def test_keras_tuner_still_has_the_hooks_of_a_search(tmp_path):
    """Of keras-tuner 1.4.8: where an oracle keeps its files, and what is called before each fit."""
    oracle = keras_tuner.Oracle()
    oracle._set_project_dir(tmp_path, "search")
    assert oracle._project_dir == str(tmp_path / "search")
    hook = inspect.signature(keras_tuner.Tuner._configure_tensorboard_dir)
    assert list(hook.parameters) == ["self", "callbacks", "trial", "execution"]
