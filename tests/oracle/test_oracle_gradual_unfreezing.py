"""`GradualUnfreezing` in one `fit` equals phases made by hand: an eager loop with an optimizer for each variable.

Float64, gate 1e-10 relative to the change of the weights.
"""

import contextlib

import keras
import numpy as np
import oracle_models
import pytest
from full_rows import full

from keras_opt.callbacks import GradientAccumulation, GradientClipping, GradualUnfreezing, WeightAveraging

SCHEDULE = {0: "head", 1: "block2", 2: "all"}
DEPTH = {"head": 0, "block2_a": 1, "block2_b": 1, "block1_a": 2, "block1_norm": 2}
BEGIN = [0, 1, 2]  # epochs, by depth
EPOCHS = 3
SAMPLES = 24
DECAY = 2.6
RATE = 0.05

OPTIMIZERS = {
    "SGD": lambda rate: keras.optimizers.SGD(rate),
    "momentum": lambda rate: keras.optimizers.SGD(rate, momentum=0.9, nesterov=True),
    "SGD with weight decay": lambda rate: keras.optimizers.SGD(rate, momentum=0.9, weight_decay=0.1),
    "Adam": lambda rate: keras.optimizers.Adam(rate),
    "Adam amsgrad": lambda rate: keras.optimizers.Adam(rate, amsgrad=True),
    "AdamW": lambda rate: keras.optimizers.AdamW(rate, weight_decay=0.1),
    "RMSprop": lambda rate: keras.optimizers.RMSprop(rate, momentum=0.5, centered=True),
    "Adamax": lambda rate: keras.optimizers.Adamax(rate),
    "Adafactor": lambda rate: keras.optimizers.Adafactor(rate, relative_step=True),
    "Lamb": lambda rate: keras.optimizers.Lamb(rate),
    "Lion": lambda rate: keras.optimizers.Lion(rate, weight_decay=0.1),
}
OTHERS = ["Adafactor", "Adam amsgrad", "RMSprop", "Adamax", "Lamb", "Lion"]


def network(strategy=None):
    """Two blocks and a head. BatchNorm must not see its batch while it is frozen; a constraint bites in the middle."""
    keras.utils.set_random_seed(0)
    with strategy.scope() if strategy is not None else contextlib.nullcontext():
        return keras.Sequential(
            [
                keras.Input((3,)),
                keras.layers.Dense(4, name="block1_a", use_bias=False),  # its gradient would be rounding noise
                keras.layers.BatchNormalization(momentum=0.9, name="block1_norm", synchronized=True),
                keras.layers.Activation("tanh"),
                keras.layers.Dense(4, activation="tanh", name="block2_a", kernel_constraint="non_neg"),
                keras.layers.Dense(3, activation="tanh", name="block2_b"),
                keras.layers.Dense(1, name="head"),
            ]
        )


def by_hand(make, x, y, batch_size=oracle_models.BATCH_SIZE, decay=DECAY, schedule=lambda step: RATE):
    """The plain loop: flags set by hand, and for each variable an optimizer of its own, made at its first update."""
    model, optimizers, step = network(), {}, 0
    for epoch in range(EPOCHS):
        for layer in model.layers:
            layer.trainable = epoch >= BEGIN[DEPTH.get(layer.name, 2)]
        for batch_x, batch_y in oracle_models.dataset(x, y, batch_size):
            gradients = oracle_models.gradients(model, batch_x, batch_y)
            for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
                depth = DEPTH[variable.path.split("/")[-2]]
                own = optimizers.setdefault(variable.path, make(RATE))
                own.learning_rate = float(schedule(step)) / decay**depth
                own.apply([gradient], [variable])
            step += 1
    return model


def in_fit(optimizer, x, y, callbacks=(), strategy=None, decay=DECAY, **settings):
    model = network(strategy)
    with strategy.scope() if strategy is not None else contextlib.nullcontext():
        model.compile(optimizer(), "mse", **settings)
    listed = [*callbacks, GradualUnfreezing(SCHEDULE, lr_decay=decay)]
    model.fit(oracle_models.dataset(x, y), epochs=EPOCHS, verbose=0, callbacks=listed)
    return model


def change(model):
    """Of every weight, BatchNorm's statistics among them."""
    return [now - start for now, start in zip(model.get_weights(), network().get_weights(), strict=True)]


def deviation(ours, theirs):
    return oracle_models.deviation(change(ours), change(theirs))


@pytest.mark.parametrize("name", ["AdamW", "others", *map(full, ["SGD", "momentum", "SGD with weight decay", "Adam"])])
def test_each_group_trains_as_by_an_optimizer_of_its_own(name, request):
    others = OTHERS if request.config.getoption("full") else OTHERS[:1]
    for each in others if name == "others" else [name]:
        with oracle_models.float64():
            x, y = oracle_models.data("dense", SAMPLES)
            make = OPTIMIZERS[each]
            assert deviation(in_fit(lambda make=make: make(RATE), x, y), by_hand(make, x, y)) < 1e-10, each


@pytest.mark.parametrize(
    "settings",
    [{"steps_per_execution": 8}, {"jit_compile": True}, full({"run_eagerly": True})],
    ids=["steps_per_execution 8", "jit", "eager"],
)
def test_so_it_does_in_every_mode_of_the_step(settings):
    with oracle_models.float64():
        x, y = oracle_models.data("dense")  # eleven batches: the last execution of eight steps is a ragged one
        make = OPTIMIZERS["AdamW"]
        assert deviation(in_fit(lambda: make(RATE), x, y, **settings), by_hand(make, x, y)) < 1e-10


def test_so_it_does_under_a_loss_scale_optimizer():
    with oracle_models.float64():
        x, y = oracle_models.data("dense", SAMPLES)
        make = OPTIMIZERS["AdamW"]
        scaled = in_fit(lambda: keras.optimizers.LossScaleOptimizer(make(RATE), initial_scale=8.0), x, y)
        assert deviation(scaled, by_hand(make, x, y)) < 1e-10


def test_so_it_does_on_two_replicas(two_replicas):
    with oracle_models.float64():
        x, y = oracle_models.data("dense", SAMPLES)
        make = OPTIMIZERS["AdamW"]
        assert deviation(in_fit(lambda: make(RATE), x, y, strategy=two_replicas), by_hand(make, x, y)) < 1e-10


@pytest.mark.parametrize("decay", [None, full(1)])
def test_without_decay_all_groups_have_one_rate(decay):
    with oracle_models.float64():
        x, y = oracle_models.data("dense", SAMPLES)
        make = OPTIMIZERS["AdamW"]
        assert deviation(in_fit(lambda: make(RATE), x, y, decay=decay), by_hand(make, x, y, decay=1)) < 1e-10


def test_a_schedule_of_the_rate_goes_on_over_the_entries():
    with oracle_models.float64():
        x, y = oracle_models.data("dense", SAMPLES)
        schedule = keras.optimizers.schedules.PiecewiseConstantDecay([3, 9, 14], [1 / 8, 1 / 16, 1 / 32, 1 / 64])
        make = OPTIMIZERS["AdamW"]
        ours = in_fit(lambda: make(schedule), x, y)
        assert deviation(ours, by_hand(make, x, y, schedule=schedule)) < 1e-10


def test_micro_batches_are_gathered_in_every_entry():
    with oracle_models.float64():
        x, y = oracle_models.data("dense", SAMPLES)
        # BatchNorm sees micro-batches, so it is not the same as in the big batch: here it never trains.
        bottom = {**SCHEDULE, 2: "block1_a"}
        model = network()
        model.compile(OPTIMIZERS["AdamW"](RATE), "mse")
        listed = [GradientAccumulation(2), GradualUnfreezing(bottom, DECAY)]
        model.fit(oracle_models.dataset(x, y), epochs=EPOCHS, verbose=0, callbacks=listed)

        expected, optimizers = network(), {}
        for epoch in range(EPOCHS):
            for layer in expected.layers:
                layer.trainable = layer.name != "block1_norm" and epoch >= BEGIN[DEPTH.get(layer.name, 2)]
            for batch in oracle_models.dataset(x, y, 2 * oracle_models.BATCH_SIZE):
                gradients = oracle_models.gradients(expected, *batch)
                for variable, gradient in zip(expected.trainable_variables, gradients, strict=True):
                    rate = RATE / DECAY ** DEPTH[variable.path.split("/")[-2]]
                    optimizers.setdefault(variable.path, OPTIMIZERS["AdamW"](rate)).apply([gradient], [variable])
        assert deviation(model, expected) < 1e-10


def test_its_place_among_other_callbacks_does_not_matter():
    with oracle_models.float64():
        x, y = oracle_models.data("dense", SAMPLES)
        ends = []
        for place in range(3):
            others = [GradientClipping(global_clipnorm=0.3), WeightAveraging("ema", ema_momentum=0.5)]
            others.insert(place, GradualUnfreezing(SCHEDULE))
            model = network()
            model.compile(OPTIMIZERS["AdamW"](RATE), "mse")
            model.fit(oracle_models.dataset(x, y), epochs=EPOCHS, verbose=0, callbacks=others)
            ends.append(model)
        assert max(deviation(ends[0], ends[1]), deviation(ends[0], ends[2])) < 1e-10


def test_keras_own_counting_moves_a_late_layer_up_to_6_6_times_too_far():
    """A constant gradient: each step of Adam should be the rate. 12 updates after a late start it is 6.57 times it."""

    def steps(first_update, count):
        weight = keras.Variable(np.zeros(1), name="late")
        optimizer = keras.optimizers.Adam(1.0, epsilon=0)
        optimizer.build([weight])
        optimizer.iterations.assign(first_update)
        ends = []
        for _ in range(count):
            optimizer.apply([np.ones(1)], [weight])
            ends.append(weight.numpy().item())
        return -np.diff([0, *ends])

    with oracle_models.float64():
        np.testing.assert_allclose(steps(0, 20), 1.0, rtol=1e-4)
        late = steps(10**6, 20)
        assert (late.argmax() + 1, round(late.max(), 2)) == (12, 6.57)
