"""Small networks of every builder, and norms that are far from the identity, for the tests of this room."""

import keras
import numpy as np

from keras_opt.models import convnet, mlp, mobilenet, resnet

BUILDERS = {
    "mlp": lambda **settings: mlp([32, 16], (20,), 3, **settings),
    "convnet": lambda **settings: convnet((4, 6), (14, 14, 1), 3, **settings),
    "convnet of windows": lambda **settings: convnet((8, 8), (30, 3), 3, **settings),
    "resnet": lambda **settings: resnet(20, (16, 16, 3), 4, 8, **settings),
    "resnet with bottlenecks": lambda **settings: resnet(50, (32, 32, 3), 4, 4, stem="large", **settings),
    "resnet of windows": lambda **settings: resnet(20, (64, 6), 4, 8, **settings),
    "mobilenet": lambda **settings: mobilenet((16, 16, 3), 4, 0.35, **settings),
}


def with_random_statistics(model, seed=0):
    """Norms that are far from the identity: variances and gamma from 0.5 to 2, means and beta around 0."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            values = {"gamma": rng.uniform(0.5, 2, layer.moving_mean.shape)}
            values["moving_variance"] = rng.uniform(0.5, 2, layer.moving_mean.shape)
            layer.set_weights([values.get(w.name, rng.normal(size=w.shape)) for w in layer.weights])
    return model


def kinds(model):
    return [type(layer).__name__ for layer in model.layers]


def norms(model):
    return [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]


def trainable(model):
    """The number of trainable parameters."""
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


def inputs_of(model, rows):
    return np.random.default_rng(1).normal(size=(rows, *model.input_shape[1:])).astype("float32")
