"""The range test against a loop of its own, and a `fit` after it against the `fit` without it: bit for bit."""

import itertools
import random

import keras
import numpy as np
import oracle_models as om
import pytest
import tensorflow as tf
from full_rows import full

from keras_opt.callbacks import find_learning_rate
from keras_opt.data import arrays

STEPS = 20


def seeded_layers():
    """Everything that has a state: norms, dropout, and noise from Keras's global generator."""
    return [
        keras.layers.Dense(4, name="hidden"),
        keras.layers.BatchNormalization(),
        keras.layers.Dropout(0.3),
        GlobalNoise(),
        keras.layers.Dense(1, name="head"),
    ]


class GlobalNoise(keras.layers.Layer):
    """Noise without a seed of its own."""

    def call(self, x, training=False):
        return x + 0.1 * keras.random.normal(tf.shape(x)) if training else x


class BuiltWithNoise(keras.layers.Layer):
    """Draws a seed from Python's generator as it is built."""

    def build(self, shape):
        self.dropout = keras.layers.Dropout(0.1 + 0.1 * random.random())

    def call(self, x, training=False):
        return self.dropout(x, training=training)


class OwnStep(keras.Model):
    """A network without `call`, and a step of its own."""

    def __init__(self):
        super().__init__()
        self.net = keras.Sequential(seeded_layers())
        self.mean = keras.metrics.Mean(name="loss")

    @property
    def metrics(self):
        return [self.mean]

    def train_step(self, batch):
        x, y = batch
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(self.net(x, training=True) - y))
        self.optimizer.apply(tape.gradient(loss, self.net.trainable_variables), self.net.trainable_variables)
        self.mean.update_state(loss)
        return {"loss": self.mean.result()}


def built():
    return keras.Sequential([keras.Input((3,)), *seeded_layers()])


def small():
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(1), keras.layers.Dropout(0.3)])


def deferred():
    return keras.Sequential([BuiltWithNoise(), *seeded_layers()])


MODELS = {"small": small, "built": built, "deferred": deferred, "own_step": OwnStep}
OPTIMIZERS = {
    "adam": lambda: keras.optimizers.Adam(0.01),
    "momentum_ema": lambda: keras.optimizers.SGD(0.01, momentum=0.9, use_ema=True, clipnorm=1.0),
    "schedule": lambda: keras.optimizers.AdamW(keras.optimizers.schedules.CosineDecay(0.01, 40)),
    "function": lambda: keras.optimizers.SGD(lambda: 0.01),
    "loss_scale": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.01), dynamic_growth_steps=3),
    "accumulation": lambda: keras.optimizers.Adam(0.01, gradient_accumulation_steps=3),
}
SETTINGS = {
    "plain": {},
    "eager": {"run_eagerly": True},
    "jit": {"jit_compile": True},
    "eight_steps": {"steps_per_execution": 8},
}
CASES = [
    ("built", "schedule", "eight_steps", 1),
    ("small", "loss_scale", "jit", 0),
    ("deferred", "momentum_ema", "eager", 0),
    ("own_step", "function", "plain", 0),
]


def trained(model_kind, optimizer, settings, epochs_before, test):
    """Weights, optimizer, history, random numbers after a `fit`, with or without a range test before it."""
    keras.utils.set_random_seed(3)
    model = MODELS[model_kind]()
    metrics = [] if model_kind == "own_step" else ["mae"]
    model.compile(OPTIMIZERS[optimizer](), "mse", metrics=metrics, **SETTINGS[settings])
    x, y = (part.astype("float32") for part in om.data("sequential"))
    if epochs_before:
        model.fit(x, y, batch_size=4, epochs=epochs_before, verbose=0)
    if test:
        find_learning_rate(model, x, y, batch_size=4, steps=STEPS, verbose=0)
    history = model.fit(x, y, batch_size=4, epochs=2, verbose=0)
    return everything(model), history.history, drawn()


def everything(model):
    variables = [*model.variables, *model.optimizer.variables, *model.metrics_variables]
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


def drawn():
    """The next numbers of every generator."""
    values = [random.random(), np.random.random(), float(tf.random.uniform(()))]
    return [*values, float(keras.random.uniform(())), keras.random.SeedGenerator().state.numpy().tolist()]


def assert_bit_equal(ours, theirs):
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, other)


def rows():
    """Four cases, and all 192 with `--full`."""
    for case in itertools.product(MODELS, OPTIMIZERS, SETTINGS, (0, 1)):
        yield case if case in CASES else full(*case)


@pytest.mark.filterwarnings("ignore:find_learning_rate.*no learning rate")
@pytest.mark.parametrize(("model", "optimizer", "settings", "epochs_before"), list(rows()))
def test_a_fit_after_the_range_test_is_bit_equal_to_the_fit_without_it(model, optimizer, settings, epochs_before):
    case = model, optimizer, settings, epochs_before
    with_test, history, numbers = trained(*case, test=True)
    without, plain_history, plain_numbers = trained(*case, test=False)
    assert_bit_equal(with_test, without)
    assert history == plain_history
    assert numbers == plain_numbers


@pytest.mark.filterwarnings("ignore:find_learning_rate.*no learning rate")
@pytest.mark.parametrize("optimizer", ["accumulation", full("adam"), full("schedule")])
def test_everything_is_bit_equal_to_before(optimizer):
    model = built()
    model.compile(OPTIMIZERS[optimizer](), "mse", metrics=["mae"], steps_per_execution=2)
    x, y = om.data("sequential")
    model.fit(x, y, batch_size=4, verbose=0)
    names = ("train_function", "history", "stop_training", "steps_per_execution")
    attributes = {name: getattr(model, name) for name in names}
    source, variables, before = model.optimizer._learning_rate, model.optimizer.variables, everything(model)
    find_learning_rate(model, x, y, batch_size=4, steps=STEPS, verbose=0)
    assert_bit_equal(everything(model), before)
    assert model.optimizer._learning_rate is source
    assert [id(variable) for variable in model.optimizer.variables] == [id(variable) for variable in variables]
    assert {name: getattr(model, name) for name in names} == attributes


@pytest.mark.filterwarnings("ignore:find_learning_rate.*no learning rate")
@pytest.mark.filterwarnings("ignore:.*keras.random.*")
@pytest.mark.parametrize("optimizer", ["schedule", full("adam")])
def test_two_replicas_are_each_as_before(two_replicas, optimizer):
    """BatchNorm's statistics differ from one replica to the other."""
    with two_replicas.scope():
        model = keras.Sequential([keras.Input((3,)), keras.layers.BatchNormalization(), keras.layers.Dense(1)])
        model.compile(OPTIMIZERS[optimizer](), "mse")
    x, y = (part.astype("float32") for part in om.data("sequential"))
    batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(4)
    model.fit(batches, verbose=0)

    def copies():
        variables = [*model.variables, *model.optimizer.variables]
        return [copy.numpy() for each in variables for copy in two_replicas.experimental_local_results(each.value)]

    before = copies()
    found = find_learning_rate(model, batches, steps=STEPS, verbose=0)
    assert len(found.curve.rates) == STEPS
    assert_bit_equal(copies(), before)


def test_the_curve_is_that_of_a_plain_loop_1e10_float64():
    """Each loss is that of its batch before the update, each update made at its rate; micro-batches are averaged."""
    with om.float64():
        x, y = om.data("sequential", samples=STEPS * om.BATCH_SIZE)
        model = om.build("sequential")
        model.compile(keras.optimizers.SGD(0.5, momentum=0.9), "mse", steps_per_execution=4)
        found = find_learning_rate(
            model, om.dataset(x, y), steps=STEPS, min_learning_rate=1e-4, max_learning_rate=1, smoothing=0.7
        )
        loop, losses, average = om.build("sequential"), [], 0.0
        optimizer = keras.optimizers.SGD(0.5, momentum=0.9)
        for step, (inputs, targets) in enumerate(om.dataset(x, y)):
            optimizer.learning_rate = 1e-4 * 1e4 ** (step / (STEPS - 1))
            losses.append(float(tf.reduce_mean(tf.square(loop(inputs) - targets))))
            om.eager_fit(loop, optimizer, [(inputs, targets)])
    np.testing.assert_allclose(found.curve.losses, losses, rtol=1e-10)
    np.testing.assert_allclose(found.curve.rates, 1e-4 * 1e4 ** (np.arange(STEPS) / (STEPS - 1)), rtol=1e-12)
    for step, loss in enumerate(losses):
        average = 0.7 * average + 0.3 * loss
        assert found.curve.smoothed[step] == pytest.approx(average / (1 - 0.7 ** (step + 1)), rel=1e-10)


def test_the_curve_of_accumulated_micro_batches_is_that_of_the_whole_batches_1e10_float64():
    with om.float64():
        x, y = om.data("sequential", samples=STEPS * 8)
        curves = []
        for batch_size, optimizer in ((8, {}), (4, {"gradient_accumulation_steps": 2})):
            model = om.build("sequential")
            model.compile(keras.optimizers.SGD(0.5, **optimizer), "mse")
            data = om.dataset(x, y, batch_size)
            curves.append(find_learning_rate(model, data, steps=STEPS, min_learning_rate=1e-4, max_learning_rate=1))
    np.testing.assert_allclose(curves[1].curve.losses, curves[0].curve.losses, rtol=1e-10)


def orders_of_fit(data, test, **rates):
    """The targets in the order in which a `fit` sees them."""
    seen = []

    class Seen(keras.layers.Layer):
        def call(self, inputs, training=False):
            if training and not isinstance(inputs, keras.KerasTensor):
                seen.append(inputs.numpy()[:, 0].tolist())
            return inputs

    model = keras.Sequential([keras.Input((1,)), Seen(), keras.layers.Dense(1)])
    model.compile("sgd", "mse", run_eagerly=True)
    if test:
        find_learning_rate(model, data, steps=25, verbose=0, **rates)
    seen.clear()
    model.fit(data, epochs=3, verbose=0, shuffle=False)
    return seen


X = np.arange(40, dtype=np.float32)[:, None]


class Batches(keras.utils.PyDataset):
    """Its `on_epoch_end` turns the order round; NumPy's generator adds noise."""

    def __init__(self):
        super().__init__(workers=2)
        self.rows = np.arange(40)

    def __len__(self):
        return 10

    def __getitem__(self, index):
        rows = self.rows[index * 4 : index * 4 + 4]
        return X[rows], X[rows] + np.random.normal(size=(4, 1))

    def on_epoch_end(self):
        self.rows = self.rows[::-1]


DATA = {
    "arrays_with_a_seed": lambda: arrays(X, X, 4, seed=5),
    "arrays_of_the_global_seed": lambda: arrays(X, X, 4),
    "tf_data_in_one_order": lambda: tf.data.Dataset.from_tensor_slices((X, X)).batch(4),
    "py_dataset": Batches,
}


@pytest.mark.filterwarnings("ignore:find_learning_rate.*no learning rate")
@pytest.mark.parametrize("kind", DATA)
def test_the_data_stay_where_they_were(kind):
    orders = []
    for test in (True, False):
        keras.utils.set_random_seed(1)
        orders.append(orders_of_fit(DATA[kind](), test))
    assert orders[0] == orders[1]


@pytest.mark.filterwarnings("ignore:find_learning_rate.*no learning rate")
def test_another_shuffling_set_moves_on_by_the_epochs_that_were_drawn():
    """25 updates of 10 batches an epoch: three epochs."""
    shuffled = lambda: tf.data.Dataset.from_tensor_slices((X, X)).shuffle(40, seed=2).batch(4)  # noqa: E731
    data = shuffled()
    for _ in range(3):
        list(data)
    ours = orders_of_fit(shuffled(), test=True, max_learning_rate=1e-5)  # low enough for all of them
    assert ours == orders_of_fit(data, test=False)
