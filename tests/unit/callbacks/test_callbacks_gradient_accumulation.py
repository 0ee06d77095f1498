import keras
import numpy as np
import pytest
from full_rows import few
from oracle_models import build, data, dataset

import keras_opt
from keras_opt.callbacks import GradientAccumulation
from keras_opt.callbacks.gradient_accumulation import steps_in_epoch
from keras_opt.callbacks.loss_reduction import are_activities_summed
from keras_opt.training.step_hooks import StepHooks


def compiled(optimizer="sgd", loss="mse", kind="sequential", **settings):
    model = build(kind)
    model.compile(optimizer, loss, **settings)
    return model


def fit(model, *callbacks, samples=44, **settings):
    return model.fit(dataset(*data("sequential", samples)), verbose=0, callbacks=list(callbacks), **settings)


def updates(model):
    return int(model.optimizer.iterations)


def assert_nothing_is_attached(model):
    assert "train_step" not in vars(model)
    assert "apply" not in vars(model.optimizer)


# --- the argument --------------------------------------------------------------------------------------------------

BAD = [0, -1, 2.0, "4", None, True, {}, {1: 4}, {0: 0}, {0: 2, 3: 1.5}, {0: 2, -1: 2}, {0: 2, 1.5: 2}, {0: True}]


@pytest.mark.parametrize("value", BAD, ids=repr)
def test_bad_steps_are_one_error(value):
    with pytest.raises(ValueError, match=r"GradientAccumulation: argument `gradient_accumulation_steps` must be"):
        GradientAccumulation(value)


def test_a_schedule_of_steps_by_epoch():
    schedule = {4: 8, 0: 1, 2: 4}
    assert [steps_in_epoch(schedule, epoch) for epoch in range(6)] == [1, 1, 4, 4, 8, 8]


@pytest.mark.parametrize("steps", [np.int64(4), {np.int64(0): np.int32(4)}])
def test_numpy_integers_are_integers(steps):
    model = compiled()
    fit(model, GradientAccumulation(steps))
    assert updates(model) == 3


# --- updates -------------------------------------------------------------------------------------------------------


SETTINGS = {"plain": {}, "steps_per_execution 8": {"steps_per_execution": 8}}


@pytest.mark.parametrize(("steps", "expected"), [(1, 22), (4, 6), (11, 2), (100, 2)])
@pytest.mark.parametrize("settings", few(SETTINGS, "steps_per_execution 8"))
def test_updates_in_two_epochs_of_eleven_micro_batches(steps, expected, settings):
    model = compiled(**settings)
    fit(model, GradientAccumulation(steps), epochs=2)
    assert updates(model) == expected
    assert_nothing_is_attached(model)


def test_an_initial_epoch_takes_its_place_in_the_schedule():
    model = compiled()
    fit(model, GradientAccumulation({0: 1, 1: 4, 3: 11}), initial_epoch=2, epochs=4)
    assert updates(model) == 3 + 1


class Watch(keras.callbacks.Callback):
    """Counts the updates that were made when each event came."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_test_begin(self, logs=None):
        self.seen.append(("test", updates(self.model)))

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append(("epoch", updates(self.model)))


@pytest.mark.parametrize("settings", few(SETTINGS, "steps_per_execution 8"))
def test_callbacks_before_it_see_the_left_over_update(settings):
    model, watch = compiled(**settings), Watch()
    fit(model, watch, GradientAccumulation(4), epochs=2, validation_data=data("sequential"))
    assert watch.seen == [("test", 3), ("epoch", 3), ("test", 6), ("epoch", 6)]


def test_callbacks_after_it_see_the_left_over_update_of_a_generator():
    def batches():
        for x, y in dataset(*data("sequential")):
            yield x.numpy(), y.numpy()

    model, watch = compiled(), Watch()
    model.fit(batches(), verbose=0, callbacks=[GradientAccumulation(4), watch])
    assert watch.seen == [("epoch", 3)]


def test_an_epoch_that_is_stopped_in_the_middle_is_flushed():
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = batch == 5

    model = compiled()
    fit(model, Stop(), GradientAccumulation(4), epochs=2)
    assert updates(model) == 2  # of 4 + 2 micro-batches


def test_evaluation_by_itself_is_left_alone():
    model, used = compiled(), GradientAccumulation(4)
    fit(model, used)
    before = model.get_weights()
    model.evaluate(*data("sequential"), verbose=0, callbacks=[used])
    assert all(map(np.array_equal, before, model.get_weights()))


def test_a_loop_of_ones_own_is_flushed_at_its_end():
    model = compiled()
    with keras_opt.training.attach(model, GradientAccumulation(4)):
        for x, y in dataset(*data("sequential")):
            model.train_on_batch(x, y)
        assert updates(model) == 2
    assert updates(model) == 3
    assert_nothing_is_attached(model)


class Break(keras.callbacks.Callback):
    """Breaks the fit off after two micro-batches."""

    def on_train_batch_end(self, batch, logs=None):
        if batch == 1:
            raise KeyError("broken off")


def test_a_broken_off_fit_drops_its_micro_batches_and_the_next_one_starts_anew():
    model, fresh = compiled("adam"), compiled("adam")
    before = model.get_weights()
    with pytest.raises(KeyError), keras_opt.training.attach(model):
        fit(model, Break(), GradientAccumulation(4))
    assert updates(model) == 0
    assert all(map(np.array_equal, before, model.get_weights()))
    assert_nothing_is_attached(model)
    for either in (model, fresh):
        fit(either, GradientAccumulation(4))
    assert all(map(np.array_equal, model.get_weights(), fresh.get_weights()))


def test_the_next_fit_cleans_up_what_a_broken_off_one_left():
    model, fresh = compiled("adam"), compiled("adam")
    with pytest.raises(KeyError):
        fit(model, Break(), GradientAccumulation(4))
    for either in (model, fresh):
        fit(either, GradientAccumulation(4))
    assert all(map(np.array_equal, model.get_weights(), fresh.get_weights()))
    assert_nothing_is_attached(model)


def test_a_saved_model_has_no_trace_of_it(tmp_path):
    class Save(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 1:
                self.model.save(tmp_path / "model.keras")

    model = compiled("adam")
    fit(model, Save(), GradientAccumulation(4))
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert len(loaded.optimizer.variables) == len(model.optimizer.variables)
    assert_nothing_is_attached(loaded)


# --- what is refused, before training --------------------------------------------------------------------------------


def assert_refused(model, message, kind=ValueError):
    before = model.get_weights()
    with pytest.raises(kind, match=message):
        fit(model, GradientAccumulation(2))
    assert all(map(np.array_equal, before, model.get_weights()))
    assert_nothing_is_attached(model)


@pytest.mark.parametrize("nested", ["plain", "loss scale", "multi"])
def test_accumulation_of_the_optimizer_beside_it(nested):
    optimizer = keras.optimizers.SGD(gradient_accumulation_steps=3)
    if nested == "loss scale":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    if nested == "multi":
        optimizer = keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(optimizer))
    assert_refused(compiled(optimizer), "gradient_accumulation_steps=3")


class OwnStep(keras.Model):
    def train_step(self, data):
        return super().train_step(data)


def test_a_train_step_of_the_class():
    inputs = keras.Input((3,))
    model = OwnStep(inputs, keras.layers.Dense(1)(inputs))
    model.compile("sgd", "mse")
    assert_refused(model, "`train_step` of its own")


def test_a_train_step_of_the_instance():
    model = compiled()
    vars(model)["train_step"] = lambda data: {}
    with pytest.raises(ValueError, match="`train_step` of its own"):
        fit(model, GradientAccumulation(2))


def test_a_second_one():
    model = compiled()
    with pytest.raises(RuntimeError, match="GradientAccumulation: two of them"):
        fit(model, GradientAccumulation(2), GradientAccumulation(2))
    assert_nothing_is_attached(model)


def test_float8_weights():
    model = compiled()
    model.quantize("float8")
    model.compile("sgd", "mse")
    assert_refused(model, "float8")


@pytest.mark.parametrize("reduction", [None, "none"])
def test_no_reduction(reduction):
    assert_refused(compiled(loss=keras.losses.MeanSquaredError(reduction=reduction)), "has reduction None")


def test_unlike_reductions():
    losses = ["mse", keras.losses.MeanSquaredError(reduction="sum")]
    assert_refused(compiled(loss=losses, kind="two_outputs"), "the reductions 'sum', 'sum_over_batch_size'")


def test_a_sum_beside_a_regularizer():
    model = build("sequential")
    model.get_layer("head").kernel.regularizer = keras.regularizers.L2(0.1)
    model.compile("sgd", keras.losses.MeanSquaredError(reduction="sum"))
    assert_refused(model, "has a regularizer")


def test_a_sum_beside_a_regularizer_of_a_model_that_its_first_batch_builds():
    model = keras.Sequential([keras.layers.Dense(1, kernel_regularizer="l2")])
    model.compile("sgd", keras.losses.MeanSquaredError(reduction="sum"))
    with pytest.raises(ValueError, match="has a regularizer"):
        fit(model, GradientAccumulation(2))
    assert updates(model) == 0
    StepHooks.prepare(model)
    assert_nothing_is_attached(model)


def test_an_activity_regularizer_however_deep_that_adds_up_otherwise_than_the_loss():
    def busy(reduction):
        keras.utils.set_random_seed(0)
        penalized = keras.layers.Dense(2, activity_regularizer=keras.regularizers.L2(1.0), name="busy")
        inner = keras.Sequential([keras.Input((3,)), penalized])
        model = keras.Sequential([keras.Input((3,)), inner, keras.layers.Dense(1)])
        model.compile(keras.optimizers.SGD(0.01), keras.losses.MeanSquaredError(reduction=reduction))
        return model

    def moved(reduction, batch_size, *callbacks):
        model = busy(reduction)
        model.fit(*data("sequential"), batch_size=batch_size, shuffle=False, verbose=0, callbacks=list(callbacks))
        return model.get_weights()[0]

    fitting, other = ("sum", "sum_over_batch_size") if are_activities_summed() else ("sum_over_batch_size", "sum")
    assert_refused(busy(other), "activity_regularizer of layer 'busy' Keras takes the")
    np.testing.assert_allclose(moved(fitting, 4, GradientAccumulation(3)), moved(fitting, 12), rtol=1e-4)


# --- when training stops in mid-epoch --------------------------------------------------------------------------------


class StopAt(keras.callbacks.Callback):
    def __init__(self, batch):
        super().__init__()
        self.batch = batch

    def on_train_batch_end(self, batch, logs=None):
        self.model.stop_training = batch == self.batch


class Watcher(keras.callbacks.Callback):
    """How many updates had been made at each event."""

    def __init__(self):
        super().__init__()
        self.seen = {}

    def on_test_begin(self, logs=None):
        self.seen["validation"] = updates(self.model)

    def on_epoch_end(self, epoch, logs=None):
        self.seen["epoch end"] = updates(self.model)


@pytest.mark.parametrize("validates", [False, True])
def test_a_stop_by_a_callback_before_it_flushes_at_once(validates):
    """Six micro-batches in fours, then the stop: two updates, for whatever stands in the list before it too."""
    model, watcher = compiled(), Watcher()
    settings = {"validation_data": dataset(*data("sequential", 8))} if validates else {}
    fit(model, watcher, StopAt(5), GradientAccumulation(4), epochs=3, **settings)
    assert set(watcher.seen.values()) == {2}
    assert updates(model) == 2


def test_a_stop_by_a_callback_after_it_flushes_before_what_is_listed_after_it():
    model, before, after = compiled(), Watcher(), Watcher()
    validation = dataset(*data("sequential", 8))
    fit(model, before, GradientAccumulation(4), StopAt(5), after, epochs=3, validation_data=validation)
    assert before.seen == {"validation": 1, "epoch end": 2}
    assert after.seen == {"validation": 2, "epoch end": 2}


# --- how the compiled losses reduce ----------------------------------------------------------------------------------


class Unregistered(keras.losses.Loss):
    def __init__(self):
        super().__init__(reduction="sum")

    def call(self, y_true, y_pred):
        return keras.ops.mean(keras.ops.square(y_true - y_pred), axis=-1)


@pytest.mark.parametrize(
    ("loss", "kind", "weigh_alike"),
    [
        ("mse", "sequential", True),
        ("MeanSquaredError", "sequential", True),
        (keras.losses.mean_squared_error, "sequential", True),
        (lambda y_true, y_pred: keras.ops.square(y_true - y_pred), "sequential", True),
        (keras.losses.MeanSquaredError, "sequential", True),
        (Unregistered(), "sequential", False),
        (Unregistered, "sequential", False),
        (["mse", None], "two_outputs", True),
        ({"first": "mse", "second": "mae"}, "two_outputs", True),
        ([Unregistered(), None], "two_outputs", False),
    ],
)
def test_the_reduction_is_found_of_every_form_of_a_loss(loss, kind, weigh_alike):
    """Two equal micro-batches in one update give a mean what one alone gives, and a sum twice that."""
    changes = []
    for repeats in (1, 2):
        model = build(kind)
        model.compile(keras.optimizers.SGD(0.01), loss)
        before = model.get_weights()
        x, y = data(kind, 4)
        if isinstance(loss, dict):
            y = dict(zip(loss, y, strict=True))
        batches = dataset(x, y).repeat(repeats)
        model.fit(batches, verbose=0, callbacks=[GradientAccumulation(2)])
        changes.append([after - start for after, start in zip(model.get_weights(), before, strict=True)])
    expected = 1.0 if weigh_alike else 2.0
    for once, twice in zip(*changes, strict=True):
        np.testing.assert_allclose(twice, expected * once, rtol=1e-3, atol=1e-7)
