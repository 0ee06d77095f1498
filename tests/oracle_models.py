"""Models of every kind, their data, and the eager loop that a compiled `fit` must equal."""

import contextlib

import keras
import numpy as np
import tensorflow as tf

BATCH_SIZE = 4
STEPS = 11  # with steps_per_execution=8 the last execution is a ragged one
SAMPLES = BATCH_SIZE * STEPS


@contextlib.contextmanager
def float64():
    """Layers, optimizers and data in float64, where a fault stands 1e6 above rounding."""
    floatx, policy = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    try:
        yield
    finally:
        keras.config.set_floatx(floatx)
        keras.config.set_dtype_policy(policy)


def dense():
    """A Sequential with its input, and weights of many sizes."""
    return keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(4, activation="tanh", name="hidden"),
            keras.layers.Dense(1, name="head"),
        ],
        name="net",
    )


def deferred():
    """A Sequential that is built by its first batch."""
    return keras.Sequential([keras.layers.Dense(4, activation="tanh"), keras.layers.Dense(1)])


def functional():
    """A functional model with a branch."""
    inputs = keras.Input((3,))
    x = keras.layers.Dense(4, activation="tanh", name="hidden")(inputs)
    return keras.Model(inputs, keras.layers.Dense(1, name="head")(keras.layers.Concatenate()([x, inputs])))


class Subclassed(keras.Model):
    """A subclassed model, built by its first batch."""

    def __init__(self):
        super().__init__()
        self.hidden = keras.layers.Dense(4, activation="tanh")
        self.head = keras.layers.Dense(1)

    def call(self, inputs):
        return self.head(self.hidden(inputs))


def frozen():
    """The first layer is not trained."""
    model = dense()
    model.layers[0].trainable = False
    return model


class Idle(keras.layers.Layer):
    """A layer with a trainable variable that no gradient reaches."""

    def build(self, shape):
        self.unused = self.add_weight(shape=(2,), name="unused")

    def call(self, x):
        return x


def unused_variable():
    """One variable never gets a gradient."""
    inputs = keras.Input((3,))
    return keras.Model(inputs, keras.layers.Dense(1, name="head")(Idle(name="idle")(inputs)))


def shared_layer():
    """One layer is used twice."""
    inputs = keras.Input((3,))
    twice = keras.layers.Dense(3, activation="tanh", name="twice")
    return keras.Model(inputs, keras.layers.Dense(1, name="head")(twice(twice(inputs))))


class Temperature(keras.layers.Layer):
    """A trainable number."""

    def build(self, shape):
        self.temperature = self.add_weight(shape=(), initializer="ones", name="temperature")

    def call(self, x):
        return x * self.temperature


def scalar_weight():
    """A weight without axes."""
    inputs = keras.Input((3,))
    return keras.Model(inputs, Temperature(name="scale")(keras.layers.Dense(1, name="head")(inputs)))


def embedding():
    """An embedding whose ids repeat within the batch."""
    inputs = keras.Input((5,), dtype="int32")
    x = keras.layers.Flatten()(keras.layers.Embedding(7, 2, name="table")(inputs))
    return keras.Model(inputs, keras.layers.Dense(1, name="head")(x))


def two_outputs():
    """A model with two outputs and so two losses."""
    inputs = keras.Input((3,))
    x = keras.layers.Dense(4, activation="tanh", name="hidden")(inputs)
    return keras.Model(inputs, [keras.layers.Dense(1, name="first")(x), keras.layers.Dense(1, name="second")(x)])


def batch_norm():
    """A model with BatchNorm statistics."""
    return keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(4, name="hidden", use_bias=False),
            keras.layers.BatchNormalization(momentum=0.9, name="norm", synchronized=True),
            keras.layers.Activation("tanh"),
            keras.layers.Dense(1, name="head"),
        ]
    )


MODELS = {
    "sequential": dense,
    "deferred": deferred,
    "functional": functional,
    "subclassed": Subclassed,
    "frozen": frozen,
    "unused_variable": unused_variable,
    "shared_layer": shared_layer,
    "scalar_weight": scalar_weight,
    "embedding": embedding,
    "two_outputs": two_outputs,
    "batch_norm": batch_norm,
}


def data(kind, samples=SAMPLES):
    """Arrays x and y for a kind of model, in floatx; an embedding gets ids of which each is repeated."""
    rng = np.random.default_rng(0)
    y = rng.normal(size=(samples, 1)).astype(keras.config.floatx())
    x = rng.normal(size=(samples, 3)).astype(keras.config.floatx())
    if kind == "embedding":
        x = rng.integers(0, 4, size=(samples, 5))
    return (x, (y, -y)) if kind == "two_outputs" else (x, y)


def dataset(x, y, batch_size=BATCH_SIZE):
    """The batches in their order: stock `fit` on arrays would shuffle."""
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(batch_size)


def build(kind, strategy=None):
    """A fresh model of a kind with seeded weights, in the strategy's scope if there is one."""
    keras.utils.set_random_seed(0)
    with strategy.scope() if strategy is not None else contextlib.nullcontext():
        return MODELS[kind]()


def gradients(model, x, y):
    """The dense gradients of the mean squared error, by a GradientTape; `None` where there is none."""
    variables = model.trainable_variables
    with tf.GradientTape() as tape:
        outputs = model(x, training=True)
        pairs = zip(y, outputs, strict=True) if isinstance(y, tuple) else [(y, outputs)]
        loss = tf.add_n([tf.reduce_mean(tf.square(target - output)) for target, output in pairs])
    found = tape.gradient(loss, [variable.value for variable in variables])
    return [None if gradient is None else tf.convert_to_tensor(gradient) for gradient in found]


def eager_fit(model, optimizer, batches, change=lambda gradients: gradients):
    """The plain loop: `change` is applied to each batch's gradients before the optimizer gets them."""
    for x, y in batches:
        if not model.built:
            model(x)
        optimizer.apply(change(gradients(model, x, y)), model.trainable_variables)
    return model


def deviation(ours, theirs):
    """The largest relative deviation of two lists of arrays, against the norm of the second."""
    pairs = [(np.asarray(a, "float64"), np.asarray(b, "float64")) for a, b in zip(ours, theirs, strict=True)]
    scale = np.sqrt(sum(np.sum(b**2) for _, b in pairs))
    return np.sqrt(sum(np.sum((a - b) ** 2) for a, b in pairs)) / scale


def weight_change(model, kind):
    """How far each trainable weight of `model` is from where `build` starts it."""
    start = build(kind)
    if not start.built:
        start(data(kind, 1)[0])
    pairs = zip(model.trainable_variables, start.trainable_variables, strict=True)
    return [keras.ops.convert_to_numpy(a) - keras.ops.convert_to_numpy(b) for a, b in pairs]
