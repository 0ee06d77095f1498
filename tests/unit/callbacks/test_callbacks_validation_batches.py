import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_opt.callbacks.validation_batches import validation_batches

X, Y = np.ones((25, 2)), np.ones((25, 1))


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 7

    def __getitem__(self, index):
        return X[:4], Y[:4]


CASES = {
    "no validation": ({}, 0),
    "arrays": ({"validation_data": (X, Y)}, 1),
    "batch_size": ({"validation_data": (X, Y), "batch_size": 10}, 3),
    "validation_batch_size": ({"validation_data": (X, Y, Y[:, 0]), "validation_batch_size": 5, "batch_size": 10}, 5),
    "lists": ({"validation_data": ([X], Y), "batch_size": 10}, 3),
    "tensors": ({"validation_data": (tf.ones((25, 2)), tf.ones((25, 1))), "batch_size": 10}, 3),
    "split": ({"validation_split": 0.4, "batch_size": 5}, 2),
    "steps": ({"validation_data": (X, Y), "validation_steps": 1, "batch_size": 2}, 1),
    "tf.data": ({"validation_data": tf.data.Dataset.from_tensor_slices((X, Y)).batch(4)}, 7),
    "unknown": ({"validation_data": tf.data.Dataset.from_tensor_slices((X, Y)).batch(4).filter(lambda x, y: True)}, 0),
    "PyDataset": ({"validation_data": Batches()}, 7),
}


class Look(keras.callbacks.Callback):
    batches = 0

    def on_train_begin(self, logs=None):
        self.found = validation_batches(self.model)

    def on_test_batch_end(self, batch, logs=None):
        self.batches += 1


@pytest.mark.parametrize(("settings", "expected"), CASES.values(), ids=CASES)
def test_the_arguments_of_fit_tell_it(settings, expected):
    model = keras.Sequential([keras.Input((2,), name="x"), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    look = Look()
    model.fit(X, Y, verbose=0, callbacks=[look], **settings)
    assert look.found == expected
    assert look.batches == expected or expected == 0


def test_without_a_fit_there_are_none():
    assert validation_batches(keras.Sequential()) == 0
