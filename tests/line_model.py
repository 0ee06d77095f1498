"""The smallest model that trains, and the smallest plugin whose effect on it can be read off."""

import keras
import numpy as np

from keras_opt.training import StepPlugin

ONES = np.ones((4, 1), "float32")


class Scaling(StepPlugin):
    """Multiplies the gradients, and remembers that it was closed."""

    def __init__(self, factor=2.0):
        self.factor, self.closed = factor, 0

    def clip_gradients(self, gradients, variables):
        return [gradient * self.factor for gradient in gradients]

    def close(self):
        self.closed += 1


def line(optimizer=None, **settings):
    """y = w x with w = 0, so that a batch of ones has the gradient -2 and SGD with rate 1 goes to +2."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")])
    model.compile(optimizer or keras.optimizers.SGD(1.0), "mse", **{"jit_compile": False, **settings})
    return model


def weight(model):
    return float(model.layers[0].kernel.numpy()[0, 0])


def weight_after_a_batch(model):
    """From 0; 2 in plain Keras."""
    model.layers[0].kernel.assign([[0.0]])
    model.train_on_batch(ONES, ONES)
    return weight(model)


def weight_after_a_fit(model, *callbacks):
    """Of one batch, from 0; 2 in plain Keras."""
    model.layers[0].kernel.assign([[0.0]])
    model.fit(ONES, ONES, verbose=0, callbacks=list(callbacks))
    return weight(model)


def names(model):
    """The attributes of model and optimizer."""
    return set(vars(model)), set(vars(model.optimizer))
