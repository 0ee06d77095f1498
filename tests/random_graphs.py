"""Small random functional graphs: what a pass over any model is tried on."""

import itertools

import keras
import numpy as np

ACTIVATIONS = ("relu", "relu6", "leaky_relu", "sigmoid", "tanh", "hard_sigmoid", "swish", "elu", "gelu", "hard_swish")
HEADS = ("softmax", "sigmoid", "linear")


def random_model(seed: int) -> keras.Model:
    """A functional model of 5 to 20 layers; the same seed gives the same graph, layer names and weights.

    One to three inputs (images of raw pixels behind a Rescaling, sequences, vectors), one or two outputs; ordinary,
    depthwise, separable and recurrent layers, norms with moved statistics, pools, residuals, concatenations, operators
    (`x + y`), and layers that are called twice.
    """
    graph = _Graph(seed)
    model = graph.build()
    _draw_weights(model, graph.rng)
    return model


def random_inputs(model: keras.Model, rows: int, seed: int = 0) -> list[np.ndarray]:
    """Float32 rows for each input of a random model: pixels 0..255 for images, else standard normal numbers."""
    rng = np.random.default_rng(seed)
    arrays = []
    for tensor in model.inputs:
        shape = (rows, *tensor.shape[1:])
        values = rng.integers(0, 256, shape) if len(shape) == 4 else rng.normal(size=shape)
        arrays.append(values.astype(np.float32))
    return arrays


class _Graph:
    """Grows tensors ("leaves") by random layers until all of them end in the outputs."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.numbers = itertools.count()
        self.name = f"random_{seed}"
        self.by_rank = {
            4: [
                self.block,
                self.block,
                self.conv,
                self.depthwise,
                self.separable,
                self.pool,
                self.pad,
                *self.any_shape(),
            ],
            3: [self.block, self.conv, self.depthwise, self.separable, self.pool, self.recurrent, *self.any_shape()],
            2: [self.block, self.dense, self.scale, *self.any_shape()],
        }

    def any_shape(self):
        return [self.norm, self.activation, self.residual, self.branches, self.twice, self.dropout]

    def build(self):
        kinds = [self.image, self.image, self.sequence, self.vector]
        inputs = [self.pick(kinds)(index) for index in range(self.pick([1, 1, 1, 2, 3]))]
        leaves = [self.rescaled(tensor) for tensor in inputs]
        for _ in range(self.rng.integers(2, 8)):
            at = self.rng.integers(len(leaves))
            leaves[at] = self.grown(leaves[at])
        outputs = []
        if len(leaves[0].shape) == 4 and self.chance(0.15):
            outputs = [self.layer(keras.layers.Conv2D, 3, 1, activation="softmax", name="mask")(leaves[0])]
        vector = self.merged([self.flat(leaf) for leaf in leaves])
        for index in range(self.pick([1, 1, 2]) if not outputs else 1):
            units = self.pick([1, 3, 10])
            activation = self.pick(HEADS if units > 1 else HEADS[1:])
            outputs.append(self.layer(keras.layers.Dense, units, activation=activation, name=f"y{index}")(vector))
        inputs, outputs = (part if len(part) > 1 else part[0] for part in (inputs, outputs))
        return keras.Model(inputs, outputs, name=self.name)

    def layer(self, kind, *args, name=None, **kwargs):
        return kind(*args, name=name or f"layer{next(self.numbers)}_{kind.__name__.lower()}", **kwargs)

    def pick(self, choices):
        return choices[self.rng.integers(len(choices))]

    def chance(self, probability):
        return self.rng.random() < probability

    def grown(self, x):
        return self.pick(self.by_rank[len(x.shape)])(x)

    # Inputs.

    def image(self, index):
        size = self.pick([8, 9, 12])
        return keras.Input((size, size, self.pick([1, 3])), name=f"x{index}")

    def sequence(self, index):
        return keras.Input((self.pick([8, 12]), self.pick([1, 4])), name=f"x{index}")

    def vector(self, index):
        return keras.Input((self.pick([4, 10]),), name=f"x{index}")

    def rescaled(self, x):
        return self.layer(keras.layers.Rescaling, 1 / 127.5, offset=-1.0)(x) if len(x.shape) == 4 else x

    # Layers for images and sequences: 2-D and 1-D kinds of the same idea.

    def conv(self, x):
        kind = keras.layers.Conv2D if len(x.shape) == 4 else keras.layers.Conv1D
        settings = {"strides": self.strides(x), "padding": self.pick(["same", "valid"]) if x.shape[1] > 4 else "same"}
        if len(x.shape) == 4 and settings["strides"] == 1 and self.chance(0.2):
            return self.layer(keras.layers.Conv2DTranspose, 4, 3, strides=2, padding="same")(x)
        return self.layer(kind, self.channels(), 3, **settings, **self.bias_and_activation())(x)

    def depthwise(self, x):
        kind = keras.layers.DepthwiseConv2D if len(x.shape) == 4 else keras.layers.DepthwiseConv1D
        return self.layer(
            kind, 3, strides=self.strides(x), padding="same", depth_multiplier=self.pick([1, 1, 2]),
            **self.bias_and_activation(),
        )(x)  # fmt: skip

    def separable(self, x):
        kind = keras.layers.SeparableConv2D if len(x.shape) == 4 else keras.layers.SeparableConv1D
        return self.layer(kind, self.channels(), 3, padding="same", **self.bias_and_activation())(x)

    def pool(self, x):
        if min(x.shape[1:-1]) < 3:
            return self.activation(x)
        images = (keras.layers.MaxPooling2D, keras.layers.AveragePooling2D)
        sequences = (keras.layers.MaxPooling1D, keras.layers.AveragePooling1D)
        return self.layer(
            self.pick(images if len(x.shape) == 4 else sequences), 2, padding=self.pick(["same", "valid"])
        )(x)

    def pad(self, x):
        return self.layer(keras.layers.ZeroPadding2D, 1)(x) if x.shape[1] < 10 else self.depthwise(x)

    def recurrent(self, x):
        kind = self.pick([keras.layers.LSTM, keras.layers.GRU, keras.layers.SimpleRNN])
        return self.layer(kind, self.channels(), return_sequences=True)(x)

    def strides(self, x):
        return self.pick([1, 1, 2]) if min(x.shape[1:-1]) > 4 else 1

    def channels(self):
        return int(self.pick([4, 6, 8]))

    def bias_and_activation(self):
        return {"use_bias": self.chance(0.6), "activation": self.pick([None, None, "relu"])}

    # Layers for vectors.

    def dense(self, x):
        return self.layer(keras.layers.Dense, self.channels(), **self.bias_and_activation())(x)

    def scale(self, x):
        return x * 0.5 if self.chance(0.5) else 1.0 - x

    # Layers for any shape.

    def block(self, x):
        """The common group of three: weights, a norm, an activation."""
        x = self.dense(x) if len(x.shape) == 2 else self.pick([self.conv, self.depthwise])(x)
        x = self.layer(keras.layers.BatchNormalization)(x)
        return self.layer(keras.layers.ReLU, 6.0 if self.chance(0.5) else None)(x)

    def norm(self, x):
        if self.chance(0.2):
            return self.layer(keras.layers.LayerNormalization)(x)
        return self.layer(keras.layers.BatchNormalization)(x)

    def activation(self, x):
        if self.chance(0.3):
            return self.pick([keras.ops.relu, keras.ops.tanh, keras.ops.sigmoid])(x)
        return self.layer(keras.layers.Activation, self.pick(ACTIVATIONS))(x)

    def dropout(self, x):
        return self.layer(keras.layers.Dropout, 0.3)(x)

    def residual(self, x):
        body = self.same_shape(self.layer(keras.layers.Activation, "relu")(x), x.shape[-1])
        merge = [lambda a, b: a + b, lambda a, b: a * b, lambda a, b: self.layer(keras.layers.Add)([a, b]),
                 lambda a, b: self.layer(keras.layers.Maximum)([a, b])]  # fmt: skip
        return self.pick(merge)(x, body)

    def branches(self, x):
        parts = [self.same_shape(x, self.channels()), self.same_shape(x, self.channels())]
        if self.chance(0.3):
            return keras.ops.concatenate(parts, axis=-1)
        return self.layer(keras.layers.Concatenate)(parts)

    def twice(self, x):
        """One layer called on two tensors: its weights are shared."""
        shared = self.same_shape_layer(x, x.shape[-1])
        return self.layer(keras.layers.Subtract)([shared(x), shared(shared(x))])

    def same_shape(self, x, channels):
        return self.same_shape_layer(x, channels)(x)

    def same_shape_layer(self, x, channels):
        if len(x.shape) == 2:
            return self.layer(keras.layers.Dense, channels)
        kind = keras.layers.Conv2D if len(x.shape) == 4 else keras.layers.Conv1D
        return self.layer(kind, channels, self.pick([1, 3]), padding="same")

    # To the outputs.

    def flat(self, x):
        if len(x.shape) == 4 and self.chance(0.2):
            x = self.layer(keras.layers.Reshape, (x.shape[1] * x.shape[2], x.shape[3]))(x)
        if len(x.shape) == 3 and self.chance(0.3):
            return self.layer(self.pick([keras.layers.LSTM, keras.layers.GRU]), 4)(x)
        if len(x.shape) == 2:
            return x
        if self.chance(0.4):
            return self.layer(keras.layers.Flatten)(x)
        images = (keras.layers.GlobalAveragePooling2D, keras.layers.GlobalMaxPooling2D)
        sequences = (keras.layers.GlobalAveragePooling1D, keras.layers.GlobalMaxPooling1D)
        return self.layer(self.pick(images if len(x.shape) == 4 else sequences))(x)

    def merged(self, vectors):
        return vectors[0] if len(vectors) == 1 else self.layer(keras.layers.Concatenate)(vectors)


def _draw_weights(model, rng):
    """Values of the size that training leaves, and moved statistics, so that no norm is the identity."""
    for variable in model.variables:
        shape, name = tuple(variable.shape), variable.path.rsplit("/", 1)[-1]
        if name in ("gamma", "moving_variance"):
            value = rng.uniform(0.5, 1.5, shape)
        elif "kernel" in name:
            value = rng.normal(size=shape) * np.sqrt(1.5 / _fan_in(shape, name))
        elif variable.dtype == "float32":
            value = rng.normal(size=shape) * 0.1
        else:
            continue  # the state of a seed generator
        variable.assign(value.astype(np.float32))


def _fan_in(shape, name):
    return np.prod(shape[:-2] if "depthwise" in name else shape[:-1])
