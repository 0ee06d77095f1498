"""k micro-batches of b samples against stock `fit` on batches of k*b: in float64 within 1e-10 of the weight change.

44 samples in micro-batches of 4, gathered 4 at a time: every epoch ends with 3 left over. 42 samples: the last of them
is short as well. Measured: at most 2e-15, and 2e-4 in half precision (gate 2e-3).
"""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from full_rows import few, full
from oracle_models import build, data, dataset, deviation, eager_fit, float64, weight_change

from keras_opt.callbacks import GradientAccumulation, GradientClipping

MICRO, STEPS, EPOCHS = 4, 4, 4
EXACT = 1e-10
FAULT = 1e-3


def sgd():
    return keras.optimizers.SGD(0.1, momentum=0.9)


def slow():
    return keras.optimizers.SGD(0.01)


def adam():
    return keras.optimizers.Adam(0.01, epsilon=1e-3)


def decaying():
    return keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.2, decay_steps=2, decay_rate=0.5))


OPTIMIZERS = {
    "sgd": sgd,
    "adam": adam,
    "adamw": lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1, epsilon=1e-3),
    "rmsprop": lambda: keras.optimizers.RMSprop(0.01, epsilon=1e-3),
    "lion": lambda: keras.optimizers.Lion(0.01),
    "clipvalue": lambda: keras.optimizers.SGD(0.1, clipvalue=0.05),
    "clipnorm": lambda: keras.optimizers.SGD(0.1, clipnorm=0.1),
    "global_clipnorm": lambda: keras.optimizers.Adam(0.01, global_clipnorm=0.1, epsilon=1e-3),
    "schedule": decaying,
    "use_ema": lambda: keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5),
    "ema_overwrite": lambda: keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=2),
    "loss_scale_factor": lambda: keras.optimizers.SGD(0.1, loss_scale_factor=8.0),
}
MODES = {
    "plain": {},
    "steps_per_execution 8": {"steps_per_execution": 8},
    "jit": {"jit_compile": True},
    "eager": {"run_eagerly": True},
}


def fit(
    kind, optimizer, batches, callbacks=(), strategy=None, epochs=EPOCHS, loss="mse", fit_settings=None, **compiled
):
    """A fresh model of a kind after `epochs` over `batches`."""
    model = build(kind, strategy)
    with strategy.scope() if strategy is not None else contextlib.nullcontext():
        model.compile(optimizer(), loss, **compiled)
    model.fit(batches, epochs=epochs, verbose=0, callbacks=list(callbacks), **(fit_settings or {}))
    return model


def deviation_from_big_batch(
    kind, optimizer, samples=44, arrays=None, strategy=None, mode=None, steps=STEPS, **settings
):
    """The relative deviation of the weight change, accumulated against stock `fit` on the big batch."""
    arrays = arrays or data(kind, samples)
    micro, big = (tf.data.Dataset.from_tensor_slices(arrays).batch(size) for size in (MICRO, MICRO * STEPS))
    accumulation = [GradientAccumulation(STEPS)]
    ours = fit(kind, optimizer, micro, accumulation, strategy=strategy, **(mode or {}), **settings)
    theirs = fit(kind, optimizer, big, **settings)
    return deviation(weight_change(ours, kind), weight_change(theirs, kind))


def deviation_of_keras(optimizer, samples, **settings):
    """The same of what an optimizer does that is compiled with `gradient_accumulation_steps`."""
    x, y = data("sequential", samples)

    def accumulating():
        kind = optimizer()
        return type(kind).from_config(kind.get_config() | {"gradient_accumulation_steps": STEPS})

    ours = fit("sequential", accumulating, dataset(x, y, MICRO), **settings)
    theirs = fit("sequential", optimizer, dataset(x, y, MICRO * STEPS), **settings)
    return deviation(weight_change(ours, "sequential"), weight_change(theirs, "sequential"))


@pytest.mark.parametrize(
    "optimizer", few(OPTIMIZERS, "sgd", "adam", "clipnorm", "schedule", "ema_overwrite", "loss_scale_factor")
)
def test_every_optimizer_clip_mode_and_schedule(optimizer):
    with float64():
        assert deviation_from_big_batch("sequential", optimizer, 42) < EXACT


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_every_mode_of_fit(mode, request):
    names = OPTIMIZERS if request.config.getoption("full") else ["global_clipnorm"]  # of Adam
    with float64():
        for name in names:
            assert deviation_from_big_batch("sequential", OPTIMIZERS[name], 42, mode=mode) < EXACT, name


@pytest.mark.parametrize(
    "kind", ["deferred", "frozen", "two_outputs", *map(full, ["functional", "subclassed", "shared_layer"])]
)
def test_every_kind_of_model(kind):
    with float64():
        assert deviation_from_big_batch(kind, adam) < EXACT


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
def test_a_variable_without_a_gradient():
    with float64():
        assert deviation_from_big_batch("unused_variable", adam) < EXACT


def test_two_replicas_equal_the_big_batch_of_one_device(two_replicas, request):
    names = [*OPTIMIZERS] if request.config.getoption("full") else ["global_clipnorm", "schedule"]
    names = [name for name in names if name != "ema_overwrite"]  # plain Keras fails with it over replicas
    with float64():
        for name in names:
            assert deviation_from_big_batch("sequential", OPTIMIZERS[name], strategy=two_replicas, epochs=2) < EXACT


def test_two_replicas_that_share_a_batch_of_three(two_replicas):
    with float64():
        assert deviation_from_big_batch("sequential", sgd, 43, strategy=two_replicas, epochs=2) < EXACT


def test_the_sum_of_two_replicas(two_replicas):
    with float64():
        summed = keras.losses.MeanSquaredError(reduction="sum")
        assert deviation_from_big_batch("sequential", slow, 43, strategy=two_replicas, epochs=2, loss=summed) < EXACT


@pytest.mark.parametrize("replicas", [full(1), 2])
def test_an_embedding_with_repeated_ids_and_adam_equals_the_dense_loop(replicas, two_replicas):
    with float64():
        x, y = data("embedding")
        micro, big = dataset(x, y, MICRO), list(dataset(x, y, MICRO * STEPS))
        strategy = two_replicas if replicas == 2 else None
        ours = fit("embedding", adam, micro, [GradientAccumulation(STEPS)], strategy=strategy)
        theirs = eager_fit(build("embedding"), adam(), big * EPOCHS)
        stock = fit("embedding", adam, dataset(x, y, MICRO * STEPS))
    loop = weight_change(theirs, "embedding")
    assert deviation(weight_change(ours, "embedding"), loop) < EXACT
    assert deviation(weight_change(stock, "embedding"), loop) > FAULT  # Keras squares repeated ids apart


def test_several_optimizers_in_one():
    def both():
        return keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(sgd(), {".*head.*": adam()}))

    with float64():
        assert deviation_from_big_batch("sequential", both) < EXACT


# --- losses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "mean", "sum", "mean_with_sample_weight"])
@pytest.mark.parametrize("weighted", few({"unweighted": False, "sample_weight": True}, "sample_weight"))
def test_every_reduction_with_and_without_sample_weights(reduction, weighted):
    with float64():
        x, y = data("sequential", 42)
        arrays = (x, y, np.random.default_rng(1).uniform(0, 3, len(x))) if weighted else (x, y)
        loss = keras.losses.MeanSquaredError(reduction=reduction)
        assert deviation_from_big_batch("sequential", slow, arrays=arrays, loss=loss) < EXACT


@pytest.mark.parametrize("reduction", ["mean_with_sample_weight", full("sum_over_batch_size"), full("sum")])
def test_class_weights(reduction):
    with float64():
        x, y = data("sequential", 42)
        loss = keras.losses.BinaryCrossentropy(from_logits=True, reduction=reduction)
        weights = {"fit_settings": {"class_weight": {0: 1.0, 1: 5.0}}}
        arrays = (x, (y > 0).astype("int32"))
        assert deviation_from_big_batch("sequential", decaying, arrays=arrays, loss=loss, **weights) < EXACT


def test_two_outputs_of_unlike_losses_and_weights():
    with float64():
        losses = [keras.losses.MeanSquaredError(reduction="mean"), "mae"]
        assert deviation_from_big_batch("two_outputs", adam, 42, loss=losses, loss_weights=[1.0, 0.3]) < EXACT


@pytest.mark.parametrize("strategy", [full(None), "two_replicas"])
def test_weight_regularizers_beside_a_mean(strategy, request):
    class Regularized(keras.Model):
        def __init__(self):
            super().__init__()
            self.head = keras.layers.Dense(1, kernel_regularizer=keras.regularizers.L2(0.5), name="head")

        def call(self, inputs):
            return self.head(inputs)

    strategy = strategy and request.getfixturevalue(strategy)
    with float64():
        x, y = data("sequential", 42)
        models = []
        for size, callbacks, where in ((MICRO, [GradientAccumulation(STEPS)], strategy), (MICRO * STEPS, [], None)):
            keras.utils.set_random_seed(0)
            with where.scope() if where else contextlib.nullcontext():
                model = Regularized()
                model.compile(sgd(), "mse")
            model.fit(dataset(x, y, size), epochs=2, verbose=0, callbacks=callbacks)
            models.append(model)
        assert deviation(*(model.get_weights() for model in models)) < EXACT


# --- epochs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [full("plain"), "steps_per_execution 8"])
def test_validation_sees_the_weights_of_the_big_batch(mode):
    histories = []
    with float64():
        x, y = data("sequential", 42)
        for size, callbacks, compiled in ((MICRO, [GradientAccumulation(STEPS)], MODES[mode]), (MICRO * STEPS, [], {})):
            model = build("sequential")
            model.compile(sgd(), "mse", **compiled)
            history = model.fit(
                dataset(x, y, size), validation_data=(x, y), epochs=3, verbose=0, callbacks=callbacks, batch_size=42
            )
            histories.append(history.history)
            assert int(model.optimizer.iterations) == 9
    ours, theirs = histories
    assert np.allclose(ours["val_loss"], theirs["val_loss"], rtol=EXACT, atol=0)


@pytest.mark.parametrize("replicas", [full(1), 2])
def test_a_schedule_of_steps_equals_batches_that_grow(replicas, two_replicas):
    with float64():
        x, y = data("sequential", 44)
        growing = [GradientAccumulation({0: 1, 1: 2, 3: 4})]
        strategy = two_replicas if replicas == 2 else None
        ours = fit("sequential", sgd, dataset(x, y, MICRO), growing, strategy=strategy)
        theirs = fit("sequential", sgd, dataset(x, y, MICRO), epochs=1)
        theirs.fit(dataset(x, y, MICRO * 2), epochs=2, verbose=0)
        theirs.fit(dataset(x, y, MICRO * 4), epochs=1, verbose=0)
        assert deviation(weight_change(ours, "sequential"), weight_change(theirs, "sequential")) < EXACT


def test_two_fits_of_one_callback():
    with float64():
        x, y = data("sequential", 42)
        used = GradientAccumulation(STEPS)
        ours = fit("sequential", adam, dataset(x, y, MICRO), [used], epochs=2)
        ours.fit(dataset(x, y, MICRO), epochs=2, verbose=0, callbacks=[used])
        theirs = fit("sequential", adam, dataset(x, y, MICRO * STEPS), epochs=4)
        assert deviation(weight_change(ours, "sequential"), weight_change(theirs, "sequential")) < EXACT


# --- beside GradientClipping ---------------------------------------------------------------------------------------

CLIPPING = {
    "clipvalue": {"clipvalue": 0.05},
    "clipnorm": {"clipnorm": 0.1},
    "global_clipnorm": {"global_clipnorm": 0.1},
    "adaptive": {"adaptive": 0.05},
    "percentile": {"percentile": 30},
}


@pytest.mark.parametrize("limit", few(CLIPPING, "adaptive", "percentile"))
def test_gradient_clipping_clips_what_was_gathered(limit):
    with float64():
        x, y = data("sequential", 42)
        both = [GradientAccumulation(STEPS), GradientClipping(**limit)]
        both = both[::-1] if "adaptive" in limit else both  # the order does not matter
        ours = fit("sequential", sgd, dataset(x, y, MICRO), both)
        theirs = fit("sequential", sgd, dataset(x, y, MICRO * STEPS), [GradientClipping(**limit)])
        unclipped = fit("sequential", sgd, dataset(x, y, MICRO * STEPS))
    change = weight_change(theirs, "sequential")
    assert deviation(weight_change(ours, "sequential"), change) < EXACT
    assert deviation(weight_change(unclipped, "sequential"), change) > FAULT


# --- LossScaleOptimizer --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("replicas", [full(1), 2])
def test_half_precision_with_a_loss_scale_is_within_2e_3(replicas, two_replicas):
    def scaling():
        return keras.optimizers.LossScaleOptimizer(sgd(), initial_scale=8.0)

    keras.config.set_dtype_policy("mixed_float16")
    try:
        strategy = two_replicas if replicas == 2 else None
        assert deviation_from_big_batch("sequential", scaling, strategy=strategy, epochs=2) < 2e-3
    finally:
        keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize("mode", [full("plain"), "steps_per_execution 8"])
def test_a_micro_batch_that_overflows_is_left_out(mode):
    def scaling():
        return keras.optimizers.LossScaleOptimizer(sgd(), initial_scale=8.0)

    with float64():
        x, y = data("sequential")
        broken = x.copy()
        broken[5] = np.inf  # in the second micro-batch
        kept = [row for row in range(len(x)) if row // MICRO != 1]
        ours = fit("sequential", scaling, dataset(broken, y), [GradientAccumulation(STEPS)], epochs=2, **MODES[mode])
        theirs = fit("sequential", sgd, dataset(x[kept], y[kept], MICRO * STEPS), epochs=2)
        assert float(ours.optimizer.dynamic_scale) == 2.0
        assert deviation(weight_change(ours, "sequential"), weight_change(theirs, "sequential")) < EXACT


@pytest.mark.parametrize("row", few({"first replica": 4, "second replica": 7}, "second replica"))
def test_an_overflow_on_one_replica_leaves_the_micro_batch_out_on_both(row, two_replicas):
    def scaling():
        return keras.optimizers.LossScaleOptimizer(sgd(), initial_scale=8.0)

    with float64():
        x, y = data("sequential")
        broken = x.copy()
        broken[row] = np.inf  # in the second micro-batch
        kept = [row for row in range(len(x)) if row // MICRO != 1]
        accumulation = [GradientAccumulation(STEPS)]
        ours = fit("sequential", scaling, dataset(broken, y), accumulation, strategy=two_replicas, epochs=1)
        theirs = fit("sequential", sgd, dataset(x[kept], y[kept], MICRO * STEPS), epochs=1)
        assert deviation(weight_change(ours, "sequential"), weight_change(theirs, "sequential")) < EXACT


# --- why not Keras's own ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "samples", "optimizer", "reduction"),
    [
        ("left-over micro-batches are neither used nor forgotten", 44, sgd, "sum_over_batch_size"),
        ("a schedule counts micro-batches", 48, decaying, "sum_over_batch_size"),
        full("a sum becomes a mean", 48, slow, "sum"),
        full("a short micro-batch counts like a full one", 46, sgd, "sum_over_batch_size"),
        full("the average decays with micro-batches", 48, OPTIMIZERS["use_ema"], "sum_over_batch_size"),
    ],
)
def test_what_keras_gives_with_gradient_accumulation_steps(fault, samples, optimizer, reduction):
    with float64():
        loss = keras.losses.MeanSquaredError(reduction=reduction)
        assert deviation_of_keras(optimizer, samples, loss=loss) > FAULT, fault
        assert deviation_from_big_batch("sequential", optimizer, samples, loss=loss) < EXACT


def test_batch_norm_sees_micro_batches():
    with float64():
        assert FAULT < deviation_from_big_batch("batch_norm", sgd, 48) < 1
