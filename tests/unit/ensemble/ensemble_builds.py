"""A network that other processes can build."""

import keras


def build():
    layers = [keras.Input((3,)), keras.layers.Dense(4, "tanh"), keras.layers.Dropout(0.2)]
    model = keras.Sequential([*layers, keras.layers.Dense(2, "softmax")])
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", metrics=["accuracy"], run_eagerly=True)
    return model
