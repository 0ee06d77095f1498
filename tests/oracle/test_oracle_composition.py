"""Everything together: accumulation, clipping, SAM, averaging and the monitor equal ONE eager loop that does it all.

Float64, relative deviation of the weight change below 1e-10, that of the logged norms too. Singles are tested in files
of their own; here are all five in three list orders, and every pair of a feature with a feature, an optimizer, a mode
and a kind of model; with `--full` the pairs of the latter among themselves as well.
"""

import contextlib
import itertools
import warnings

import keras
import numpy as np
import oracle_models as models
import pytest
import tensorflow as tf
from full_rows import full as full_row

from keras_opt.callbacks import (
    EarlyStopping,
    GradientAccumulation,
    GradientClipping,
    GradientMonitor,
    SharpnessAwareMinimization,
    SparseGradientFix,
    WeightAveraging,
)
from keras_opt.training import StepHooks, StepPlugin

EPOCHS, STEPS, LIMIT, RHO, MOMENTUM = 2, 3, 0.6, 0.1, 0.7
CALLBACKS = {
    "accumulation": lambda: GradientAccumulation(STEPS),
    "clipping": lambda: GradientClipping(global_clipnorm=LIMIT),
    "sharpness": lambda: SharpnessAwareMinimization(RHO),
    "averaging": lambda: WeightAveraging("ema", ema_momentum=MOMENTUM),
    "monitor": lambda: GradientMonitor(warn=False),
    "sparse": SparseGradientFix,
}
FEATURES = tuple(CALLBACKS)


def adam(**settings):
    return keras.optimizers.Adam(0.01, epsilon=1e-3, **settings)


def multi_optimizer():
    return keras.optimizers.MultiOptimizer(
        keras.optimizers.OptimizerMap(keras.optimizers.SGD(0.05), {"(hidden|twice|table).*": adam()})
    )


OPTIMIZERS = {
    "sgd": lambda: keras.optimizers.SGD(0.05, momentum=0.9),
    "adam": adam,
    "loss_scale": lambda: keras.optimizers.LossScaleOptimizer(adam()),
    **({"multi": multi_optimizer} if hasattr(keras.optimizers, "MultiOptimizer") else {}),  # not yet in Keras 3.12
    "clips": lambda: adam(global_clipnorm=0.3),
    "use_ema": lambda: adam(use_ema=True),
    "adamw": lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1, epsilon=1e-3),
    "rmsprop": lambda: keras.optimizers.RMSprop(0.01, epsilon=1e-3),
    "lion": lambda: keras.optimizers.Lion(0.01),
}
# What is asked in `compile` and in a callback is done by neither.
CONFLICTS = {("clips", "clipping"): "clip", ("use_ema", "averaging"): "use_ema"}
MODES = {
    "plain": {},
    "steps_per_execution": {"steps_per_execution": 8},
    "jit": {"jit_compile": True},
    "eager": {"run_eagerly": True},
    "two_replicas": {},
}
KINDS = ["embedding", "sequential", "batch_norm", "shared_layer", "unused_variable"]
MORE_KINDS = ["two_outputs", "frozen", "functional", "subclassed"]


# --- the eager loop --------------------------------------------------------------------------------------------------


class Loop:
    """Two epochs, with no part of keras_opt."""

    def __init__(self, kind, optimizer, features):
        self.features, self.kind = features, kind
        self.model, self.optimizer = models.build(kind), optimizer()
        self.optimizer = getattr(self.optimizer, "inner_optimizer", self.optimizer)
        self.norms, self.logs = [], {"grad_norm": [], "grad_norm_max": [], "clipped_fraction": []}
        if not self.model.built:
            self.model(models.data(kind, 1)[0])
        self.averages = [tf.identity(variable.value) for variable in self.model.weights]

    def run(self):
        for _ in range(EPOCHS):
            self.norms, sums, count = [], None, 0
            for x, y in models.dataset(*models.data(self.kind)):
                gradients = self.micro_batch_gradients(x, y)
                sums = gradients if sums is None else [_plus(a, b) for a, b in zip(sums, gradients, strict=True)]
                count += 1
                if "accumulation" not in self.features or count == STEPS:
                    self.update(sums, count)
                    sums, count = None, 0
            if count:
                self.update(sums, count)
            self.logs["grad_norm"].append(np.mean(self.norms))
            self.logs["grad_norm_max"].append(np.max(self.norms))
            self.logs["clipped_fraction"].append(np.mean(np.array(self.norms) > LIMIT))
        self.optimizer.finalize_variable_values(self.model.trainable_variables)  # as `fit` does, for use_ema
        if "averaging" in self.features:
            for variable, average in zip(self.model.weights, self.averages, strict=True):
                variable.assign(average)
        return self

    def micro_batch_gradients(self, x, y):
        gradients = models.gradients(self.model, x, y)
        if "sharpness" not in self.features:
            return gradients
        state = [tf.identity(variable.value) for variable in self.model.weights]
        norm = tf.linalg.global_norm([gradient for gradient in gradients if gradient is not None])
        for variable, gradient in zip(self.model.trainable_variables, gradients, strict=True):
            if gradient is not None:
                variable.assign_add(RHO * gradient / norm)
        gradients = models.gradients(self.model, x, y)
        for variable, value in zip(self.model.weights, state, strict=True):
            variable.assign(value)
        return gradients

    def update(self, sums, count):
        gradients = [None if total is None else total / count for total in sums]
        present = [gradient for gradient in gradients if gradient is not None]
        norm = tf.linalg.global_norm(present).numpy()
        self.norms.append(norm)
        if "clipping" in self.features and norm > LIMIT:
            gradients = [None if gradient is None else gradient * LIMIT / norm for gradient in gradients]
        self.optimizer.apply(gradients, self.model.trainable_variables)
        pairs = zip(self.averages, self.model.weights, strict=True)
        self.averages = [MOMENTUM * average + (1 - MOMENTUM) * weight.value for average, weight in pairs]


def _plus(a, b):
    return None if b is None else a + b


# --- ours ------------------------------------------------------------------------------------------------------------


def fit(kind, optimizer, callbacks, strategy, settings):
    model = models.build(kind, strategy)
    with strategy.scope() if strategy is not None else contextlib.nullcontext():
        model.compile(optimizer(), "mse", **{"jit_compile": False, **settings})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SparseGradientFix says where it has nothing to do
        history = model.fit(
            models.dataset(*models.data(kind)), epochs=EPOCHS, shuffle=False, verbose=0, callbacks=callbacks
        )
    return model, history.history


def assert_equal_to_the_loop(kind, optimizer, features, mode, two_replicas):
    """One fit with the callbacks of `features`, in their order, and one eager loop."""
    strategy = two_replicas if mode == "two_replicas" else None
    with models.float64():
        callbacks = [CALLBACKS[feature]() for feature in features]
        model, history = fit(kind, optimizer, callbacks, strategy, MODES[mode])
        loop = Loop(kind, optimizer, features).run()
        changes = [models.weight_change(one, kind) for one in (model, loop.model)]
        assert models.deviation(*changes) < 1e-10
        statistics = [[v.numpy() for v in one.non_trainable_variables] for one in (model, loop.model)]
    if kind == "batch_norm":
        assert models.deviation(*statistics) < 1e-10
    for key, values in loop.logs.items():
        if key in history:
            np.testing.assert_allclose(history[key], values, rtol=1e-10, err_msg=key)
    assert ("grad_norm" in history) == ("monitor" in features)
    assert ("clipped_fraction" in history) == ("clipping" in features)
    assert not {"train_step", "apply"} & (set(vars(model)) | set(vars(model.optimizer)))
    return loop


FIVE = ("accumulation", "clipping", "sharpness", "averaging", "monitor")
ORDERS = {
    "in the order of the step": FIVE,
    "in reverse": FIVE[::-1],
    "mixed": ("sharpness", "monitor", "accumulation", "averaging", "clipping"),
}


def orders_and_modes():
    """The order is of Python, the mode of the graph: `--full` has all pairs."""
    for order in ORDERS:
        for mode in ("plain", "steps_per_execution", "jit", "two_replicas"):
            yield (order, mode) if order == "mixed" or mode == "plain" else full_row(order, mode)


@pytest.mark.parametrize(("order", "mode"), list(orders_and_modes()))
def test_all_five_equal_one_eager_loop_in_any_order(order, mode, two_replicas):
    loop = assert_equal_to_the_loop("sequential", OPTIMIZERS["adam"], ORDERS[order], mode, two_replicas)
    assert 0 < np.mean(loop.logs["clipped_fraction"]) < 1, "some updates are clipped, and some are not"


@pytest.mark.parametrize("wrong", [EarlyStopping, keras.callbacks.EarlyStopping])
def test_a_wrong_order_says_the_right_one_and_leaves_nothing(wrong):
    callbacks = [wrong("loss"), *(CALLBACKS[feature]() for feature in FIVE)]
    model = models.build("sequential")
    model.compile("adam", "mse")
    with pytest.raises(ValueError, match=r"WeightAveraging: .*EarlyStopping"):
        model.fit(models.dataset(*models.data("sequential")), verbose=0, callbacks=callbacks)
    assert not {"train_step", "apply"} & (set(vars(model)) | set(vars(model.optimizer)))


class CountsTraces(StepPlugin, keras.callbacks.Callback):
    """Listed first, so its `run_step` is the outermost."""

    traces = 0

    def on_train_begin(self, logs=None):
        self.hooks = StepHooks.of(self.model)
        self.hooks.add(self)

    def on_train_end(self, logs=None):
        self.hooks.remove(self)

    def run_step(self, train_step, data):
        self.traces += 1
        return train_step(data)


@pytest.mark.parametrize("mode", ["plain", "steps_per_execution", "jit"])
def test_all_five_cost_no_more_traces_than_none(mode):
    traces = []
    for features in ((), FIVE):
        counter = CountsTraces()
        callbacks = [counter, *(CALLBACKS[feature]() for feature in features)]
        fit("sequential", OPTIMIZERS["adam"], callbacks, None, MODES[mode])
        traces.append(counter.traces)
    assert traces[0] == traces[1]


# --- pairs -----------------------------------------------------------------------------------------------------------


def covering_design(factors, full):
    """Rows of one level for each factor, such that every pair of levels of two factors is in a row; greedy.

    Unless `full`, one of the two is a feature.
    """
    names = list(factors)
    pairs = [(a, b) for a, b in itertools.combinations(names, 2) if full or a in FEATURES]
    missing = {((a, x), (b, y)) for a, b in pairs for x in factors[a] for y in factors[b]}
    rows = []
    while missing:
        row = dict(min(missing, key=str))
        for name in names:
            if name not in row:
                row[name] = max(factors[name], key=lambda level: _covered(row | {name: level}, names, missing))
        missing -= _pairs(row, names)
        rows.append(tuple(row[name] for name in names))
    return rows


def _pairs(row, names):
    pairs = set(itertools.combinations([(name, row[name]) for name in names if name in row], 2))
    conflicts = pairs & {((feature, True), ("optimizer", optimizer)) for optimizer, feature in CONFLICTS}
    return conflicts or pairs  # a row that ends in an error tests nothing else


def _covered(row, names, missing):
    return len(_pairs(row, names) & missing)


def factors(full):
    optimizers = list(OPTIMIZERS) if full else list(OPTIMIZERS)[:6]
    kinds = [*KINDS, *MORE_KINDS] if full else KINDS
    return {feature: [True, False] for feature in FEATURES} | {
        "optimizer": optimizers,
        "mode": list(MODES),
        "kind": kinds,
    }


def pytest_generate_tests(metafunc):
    if "row" in metafunc.fixturenames:
        full = metafunc.config.getoption("full")
        rows = covering_design(factors(full), full)
        ids = ["-".join([*itertools.compress(FEATURES, row), *row[-3:]]) for row in rows]
        metafunc.parametrize("row", rows, ids=ids)


def test_a_row_of_the_pairwise_table_equals_the_loop_or_is_the_documented_error(row, two_replicas):
    features, (optimizer, mode, kind) = tuple(itertools.compress(FEATURES, row)), row[-3:]
    conflict = next(
        (text for (name, feature), text in CONFLICTS.items() if name == optimizer and feature in features), None
    )
    if conflict is not None:
        with pytest.raises((ValueError, RuntimeError), match=conflict):
            assert_equal_to_the_loop(kind, OPTIMIZERS[optimizer], features, mode, two_replicas)
        return
    assert_equal_to_the_loop(kind, OPTIMIZERS[optimizer], features, mode, two_replicas)


@pytest.mark.parametrize(("full", "most"), [(False, 20), (True, 40)])
def test_the_design_covers_every_pair(full, most):
    levels = factors(full=False)
    rows = covering_design(levels, full)
    for (i, a), (j, b) in itertools.combinations(enumerate(levels.values()), 2):
        if full or i < len(FEATURES):
            assert {(row[i], row[j]) for row in rows} == set(itertools.product(a, b))
    assert len(rows) <= most
