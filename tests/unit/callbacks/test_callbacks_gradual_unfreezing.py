import json
import re

import keras
import numpy as np
import pytest

from keras_opt.callbacks import GradientMonitor, GradualUnfreezing
from keras_opt.core.errors import InputError
from keras_opt.training import StepHooks

RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 3)).astype("float32")
Y = X.sum(axis=1, keepdims=True)


def network(compiled="sgd", **settings):
    model = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(4, name="block1_a"),
            keras.layers.BatchNormalization(name="block1_norm"),
            keras.layers.Dense(4, name="block2_a"),
            keras.layers.Dense(4, name="block10_a"),
            keras.layers.Dense(1, name="out"),
        ]
    )
    if compiled:
        model.compile(compiled, "mse", **settings)
    return model


class Watch(keras.callbacks.Callback):
    """Notes at each epoch's end which layers train, by their weights."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append(trained(self.model))


def trained(model):
    return sorted({weight.path.split("/")[-2] for weight in model.trainable_weights})


def seen_in_fit(schedule, model=None, epochs=4, **arguments):
    watch = Watch()
    model = model or network()
    model.fit(X, Y, batch_size=4, epochs=epochs, verbose=0, callbacks=[GradualUnfreezing(schedule), watch], **arguments)
    return watch.seen


ALL = ["block10_a", "block1_a", "block1_norm", "block2_a", "out"]


# --- which layers ----------------------------------------------------------------------------------------------------


def test_layers_are_unfrozen_in_their_epochs():
    found = seen_in_fit({0: "head", 1: "block2", 3: "all"})
    assert found == [["out"], ["block2_a", "out"], ["block2_a", "out"], ALL]


def test_the_order_in_the_dict_does_not_matter():
    assert seen_in_fit({2: "all", 0: "head"}, epochs=3) == [["out"], ["out"], ALL]


@pytest.mark.parametrize(
    ("word", "layers"),
    [
        ("out", ["out"]),
        ("head", ["out"]),
        ("block1", ["block1_a", "block1_norm"]),
        ("block1*", ["block10_a", "block1_a", "block1_norm"]),
        ("block?_a", ["block1_a", "block2_a"]),
        (["out", "*norm"], ["block1_norm", "out"]),
        ("all", ALL),
    ],
)
def test_what_a_word_means(word, layers):
    assert seen_in_fit({0: word}, epochs=1) == [layers]


def test_an_exact_name_wins_over_what_it_begins():
    layers = [keras.layers.Dense(2, name=name) for name in ("dense", "dense_1", "head_extra", "out")]
    model = keras.Sequential([keras.Input((3,)), *layers])
    model.compile("sgd", "mse")
    assert seen_in_fit({0: "dense", 1: "head"}, model, epochs=2) == [["dense"], ["dense", "head_extra"]]


def nested():
    base = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(2, name="low"), keras.layers.Dense(2, name="high")], name="base"
    )
    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.layers.Dense(1, name="out")(base(inputs)))
    return model


def test_layers_in_nested_models_are_found_by_their_own_name_and_by_that_of_the_model():
    model = nested()
    model.get_layer("base").trainable = False  # as those who fine-tune by hand do
    model.compile("adam", "mse")
    assert seen_in_fit({0: "head", 1: "high", 2: "base"}, model, epochs=3) == [
        ["out"],
        ["high", "out"],
        ["high", "low", "out"],
    ]


def test_a_wrapper_and_an_attention_layer_train_with_all_that_is_in_them():
    inputs = keras.Input((4, 3))
    x = keras.layers.TimeDistributed(keras.layers.Dense(4), name="timed")(inputs)
    x = keras.layers.MultiHeadAttention(2, 2, name="attention")(x, x)
    model = keras.Model(inputs, keras.layers.Dense(1, name="out")(keras.layers.Flatten()(x)))
    model.compile("sgd", "mse")
    used = GradualUnfreezing({0: "attention", 1: "timed"})
    x, y = np.ones((4, 4, 3)), np.ones((4, 1))
    model.fit(x, y, verbose=0, callbacks=[used])
    assert len(model.trainable_weights) == 8
    model.fit(x, y, verbose=0, epochs=2, initial_epoch=1, callbacks=[used])
    assert len(model.trainable_weights) == 10


class Scaled(keras.layers.Layer):
    """A layer with a weight of its own around another one."""

    def __init__(self, name):
        super().__init__(name=name)
        self.within = keras.layers.Dense(2, name="within")

    def build(self, shape):
        self.within.build(shape)
        self.scale = self.add_weight(shape=(), name="scale", initializer="ones")

    def call(self, x):
        return self.scale * self.within(x)


def test_the_weight_of_a_layer_around_stays_frozen():
    model = keras.Sequential([keras.Input((3,)), Scaled("around"), keras.layers.Dense(1, name="out")])
    model.compile("sgd", "mse")
    seen_in_fit({0: "within", 1: "around"}, model, epochs=1)
    assert [weight.name for weight in model.trainable_weights] == ["kernel", "bias"]
    seen_in_fit({0: "within", 1: "around"}, model, epochs=2)
    assert len(model.trainable_weights) == 3


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.low = keras.layers.Dense(2, name="low")
        self.out = keras.layers.Dense(1, name="out")

    def call(self, x):
        return self.out(self.low(x))


def test_a_subclassed_model_must_be_built():
    model = Subclassed()
    model.compile("sgd", "mse")
    with pytest.raises(InputError, match="has no weights yet to freeze"):
        seen_in_fit({0: "head"}, model)
    model(X)
    assert seen_in_fit({0: "head", 1: "all"}, model, epochs=2) == [["out"], ["low", "out"]]


# --- what the step does ----------------------------------------------------------------------------------------------


def test_frozen_weights_and_statistics_do_not_move():
    model = network("adam")
    before = [layer.get_weights() for layer in model.layers]
    seen_in_fit({0: "head", 2: "block2"}, model, epochs=4)
    moved = [
        layer.name
        for layer, weights in zip(model.layers, before, strict=True)
        if not all(map(np.array_equal, layer.get_weights(), weights))
    ]
    assert moved == ["block2_a", "out"]


def test_norms_can_stay_frozen_to_the_end():
    model = network("adam")
    norm = model.get_layer("block1_norm")
    before = norm.get_weights()
    unfreeze, watch = GradualUnfreezing({0: "head", 1: "all"}, freeze_batch_norm=True), Watch()
    model.fit(X, Y, epochs=3, verbose=0, callbacks=[unfreeze, watch])
    assert watch.seen[-1] == [name for name in ALL if name != "block1_norm"]
    for weight, now in zip(before, norm.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, now)


def test_keras_own_optimizer_does_not_take_a_layer_that_is_unfrozen_later():
    model = network("adam")

    class ByHand(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            for layer in self.model.layers:
                layer.trainable = epoch > 0 or layer.name == "out"
            self.model.make_train_function(force=True)

    with pytest.raises(ValueError, match="Unknown variable"):
        model.fit(X, Y, epochs=2, verbose=0, callbacks=[ByHand()])


def test_the_iterations_and_slots_of_what_trains_go_on():
    model = network("adam")
    seen_in_fit({0: "head", 1: "all"}, model, epochs=3)
    assert int(model.optimizer.iterations) == 9
    assert model.optimizer._iterations is model.optimizer.iterations
    assert len(model.optimizer.variables) == 2 + 2 * len(model.trainable_variables)


def late_step(decay, weight_decay=None):
    """The first step of a layer that comes a million updates late, in units of the rate."""
    model = network(keras.optimizers.Adam(0.01, weight_decay=weight_decay))
    used = GradualUnfreezing({0: "head", 1: "block2"}, decay)
    model.fit(X, Y, batch_size=12, epochs=1, verbose=0, callbacks=[used])
    model.optimizer.iterations.assign(10**6)
    before = model.get_layer("block2_a").get_weights()[0]
    model.fit(X, Y, batch_size=12, epochs=2, initial_epoch=1, verbose=0, callbacks=[used])
    after = model.get_layer("block2_a").get_weights()[0]
    return before, (after - before) / 0.01


def test_a_late_layer_starts_with_one_step_of_its_rate():
    np.testing.assert_allclose(np.abs(late_step(None)[1]), 1, rtol=1e-2)  # 3.16 in Keras's counting
    np.testing.assert_allclose(np.abs(late_step(4.0)[1]), 0.25, rtol=1e-2)


def test_weight_decay_is_in_proportion_to_the_rate():
    before, decayed = late_step(4.0, weight_decay=0.5)
    np.testing.assert_allclose(np.abs(decayed + 0.5 * before / 4), 0.25, rtol=1e-2)


def test_a_model_that_was_fitted_before_does_not_go_on_in_its_old_step():
    model = network()
    model.fit(X, Y, verbose=0)
    before = model.layers[0].get_weights()
    seen_in_fit({0: "head"}, model, epochs=1)
    model.fit(X, Y, verbose=0)
    assert all(map(np.array_equal, model.layers[0].get_weights(), before))
    assert trained(model) == ["out"]


def test_nothing_of_it_is_left_but_the_flags():
    model = network("adam")
    seen_in_fit({0: "head", 1: "block2"}, model, epochs=2)
    assert trained(model) == ["block2_a", "out"]
    assert {"apply", "update_step", "train_step"}.isdisjoint(vars(model.optimizer) | vars(model))
    assert StepHooks.of(model).plugins == ()


def test_an_exception_leaves_nothing_in_the_next_fit():
    model, used = network("adam"), GradualUnfreezing({0: "head", 1: "all"})

    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        model.fit(X, Y, epochs=2, verbose=0, callbacks=[used, Stop()])
    model.fit(X, Y, verbose=0, callbacks=[GradientMonitor()])
    assert "update_step" not in vars(model.optimizer)
    assert model.optimizer.iterations.numpy() == 2


# --- several fits and resuming ---------------------------------------------------------------------------------------


def test_epochs_are_those_of_fit():
    schedule = {0: "head", 1: "block2", 3: "all"}
    assert seen_in_fit(schedule, initial_epoch=2) == [["block2_a", "out"], ALL]


def test_a_second_fit_begins_with_the_head_again():
    model = network()
    schedule = {0: "head", 1: "all"}
    assert seen_in_fit(schedule, model, epochs=2) == seen_in_fit(schedule, model, epochs=2) == [["out"], ALL]


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_resumed_at_any_epoch_it_ends_with_the_same_weights(stop):
    schedule = {0: "head", 1: "block2", 3: "all"}

    def fit(model, used, begin, end, others=()):
        arguments = {"batch_size": 4, "shuffle": False, "verbose": 0, "callbacks": [used, *others]}
        model.fit(X, Y, initial_epoch=begin, epochs=end, **arguments)

    start = network(None).get_weights()
    whole, broken, resumed = (network(keras.optimizers.AdamW(0.01)) for _ in range(3))
    for model in (whole, broken):
        model.set_weights(start)
    fit(whole, GradualUnfreezing(schedule), 0, 5)
    begun = GradualUnfreezing(schedule)
    fit(broken, begun, 0, stop)
    state = begun.state_dict()
    assert json.loads(json.dumps(state)) == state

    class Load(keras.callbacks.Callback):
        """Does what BackupAndRestore does."""

        def load(self):
            again.load_state_dict(state)

        def on_train_begin(self, logs=None):
            for one, other in zip(self.model.variables, broken.variables, strict=True):
                one.assign(other)
            for one, other in zip(self.model.optimizer.variables, broken.optimizer.variables, strict=True):
                one.assign(other)
            self.load()

    again = GradualUnfreezing(schedule)
    fit(resumed, again, stop, 5, [Load()])
    assert all(map(np.array_equal, resumed.get_weights(), whole.get_weights()))


def test_a_state_of_another_schedule_is_refused():
    used = GradualUnfreezing({0: "head"})
    used.set_model(network())
    used.on_train_begin()
    with pytest.raises(InputError, match="must be the one of the saved state"):
        used.load_state_dict({"first_updates": [0, 4]})


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ({}, "must be a dict from epochs, integers of at least 0, to names of layers"),
        (["head"], "must be a dict from epochs, integers of at least 0, to names of layers"),
        ({0: 3}, "must be a dict from epochs, integers of at least 0, to names of layers"),
        ({0: []}, "must be a dict from epochs, integers of at least 0, to names of layers"),
        ({0: ["head", 1]}, "must be a dict from epochs, integers of at least 0, to names of layers"),
        ({1: "head"}, "one of them 0"),
        ({-1: "head", 0: "all"}, "-1 is no epoch"),
        ({0: "head", 1.5: "all"}, "1.5 is no epoch"),
    ],
)
def test_schedules_that_are_none(schedule, message):
    with pytest.raises(InputError, match=re.escape(message)):
        GradualUnfreezing(schedule)


@pytest.mark.parametrize("decay", [0.5, 0, -2.6, float("nan"), "2.6", True])
def test_a_decay_below_one(decay):
    with pytest.raises(InputError, match="argument `lr_decay` must be a number of at least 1, or None"):
        GradualUnfreezing({0: "all"}, lr_decay=decay)


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (
            {0: "head", 1: "blok2_a"},
            "'blok2_a', which none of them fits. Of the . with weights the closest are block2_a",
        ),
        ({0: "all", 1: "block2"}, r"must add weights.*\['block2'\] at epoch 1"),
        ({0: "head", 1: ["out", "head"]}, "must add weights"),
    ],
)
def test_a_schedule_that_does_not_fit_the_model_is_an_error_before_training(schedule, message):
    model = network()
    before = [layer.trainable for layer in model.layers]
    with pytest.raises(InputError, match=message):
        seen_in_fit(schedule, model)
    assert [layer.trainable for layer in model.layers] == before
    assert not model.optimizer.built


def test_the_flags_are_put_back_if_another_callback_refuses_the_fit():
    model = nested()
    model.get_layer("base").get_layer("low").trainable = False
    model.compile("sgd", "mse")

    class Refuse(keras.callbacks.Callback):
        def set_model(self, model):
            raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        model.fit(X, Y, verbose=0, callbacks=[GradualUnfreezing({0: "head", 1: "all"}), Refuse()])
    assert trained(model) == ["high", "out"]
    assert not model.optimizer.built, "for some layers, it could not train the others"


def test_an_optimizer_that_was_built_for_fewer_layers_is_refused():
    model = network(None)
    for layer in model.layers[:-1]:
        layer.trainable = False
    model.compile("adam", "mse")
    model.fit(X, Y, verbose=0)
    with pytest.raises(InputError, match=r"was built for fewer layers than will train.*Compile the model anew"):
        seen_in_fit({0: "head", 1: "all"}, model)
    model.compile("adam", "mse")
    assert seen_in_fit({0: "head", 1: "all"}, model, epochs=2) == [["out"], ALL]


@pytest.mark.skipif(not hasattr(keras.optimizers, "MultiOptimizer"), reason="not yet in this Keras")
def test_a_multi_optimizer_is_refused():
    optimizers = keras.optimizers.OptimizerMap(keras.optimizers.SGD())
    with pytest.raises(InputError, match="Compile with one optimizer"):
        seen_in_fit({0: "head"}, network(keras.optimizers.MultiOptimizer(optimizers)))


def test_an_average_that_the_optimizer_keeps_is_refused():
    """Keras puts the averages of the optimizer's variables, in its order, over those that train."""
    with pytest.raises(InputError, match=r"^GradualUnfreezing: .*use_ema=True.*WeightAveraging"):
        seen_in_fit({0: "head", 1: "all"}, network(keras.optimizers.SGD(0.1, use_ema=True)))


def test_a_saved_model_has_its_slots_when_it_is_opened(tmp_path):
    """Keras opens a file with slots in the order of the model, and not in that of the schedule."""
    model = network("adam")
    seen_in_fit({0: "head", 1: "block2", 2: "all"}, model)
    model.save(tmp_path / "a.keras")
    opened = keras.saving.load_model(tmp_path / "a.keras")
    for saved, slot in zip(model.optimizer.variables, opened.optimizer.variables, strict=True):
        np.testing.assert_array_equal(slot.numpy(), saved.numpy(), err_msg=slot.path)


def test_two_of_them_are_refused_and_nothing_of_either_is_left():
    model = network()
    with pytest.raises(RuntimeError, match=r"^GradualUnfreezing: two of them"):
        model.fit(X, Y, verbose=0, callbacks=[GradualUnfreezing({0: "all"}), GradualUnfreezing({0: "head"})])
    assert not {"apply", "update_step"} & set(vars(model.optimizer))


def test_two_of_them_are_refused_before_any_callback_begins():
    begun = []
    first = keras.callbacks.LambdaCallback(on_train_begin=lambda logs: begun.append(1))
    with pytest.raises(RuntimeError, match=r"^GradualUnfreezing: two of them"):
        network().fit(X, Y, verbose=0, callbacks=[first, *(GradualUnfreezing({0: "all"}) for _ in range(2))])
    assert begun == []


def test_what_lora_keeps_frozen_stays_frozen():
    model = network(None)
    model.get_layer("block1_a").enable_lora(2)
    model.compile("sgd", "mse")
    seen_in_fit({0: "head", 1: "all"}, model)
    names = [weight.name for weight in model.get_layer("block1_a").trainable_weights]
    assert names == ["bias", "lora_kernel_a", "lora_kernel_b"]


def test_an_evaluation_leaves_the_model_alone():
    model = network()
    model.evaluate(X, Y, verbose=0, callbacks=[GradualUnfreezing({0: "head"})])
    assert trained(model) == ALL
    assert not model.optimizer.built
