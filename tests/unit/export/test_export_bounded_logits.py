"""What the int8 file of a classifier does with few huge logits."""

import keras
import numpy as np
import pytest

from keras_opt.export import to_tflite, verify
from keras_opt.export.bounded_logits import with_bounded_logits

RNG = np.random.default_rng(0)
KERNEL = RNG.normal(size=(1024, 4)) / 4
ORDINARY = RNG.uniform(-1, 1, size=(300, 1024)).astype("float32")
SURE = np.sign(KERNEL[:, :1] - KERNEL[:, 1:]).T  # all inputs speak for class 0, against another: logits of +-200
FEATURES = np.concatenate([ORDINARY, SURE]).astype("float32")


def classifier(*head):
    model = keras.Sequential([keras.Input((1024,)), *head])
    model.layers[0].set_weights([KERNEL, np.zeros(4)])
    return model


@pytest.mark.parametrize(
    "head",
    [
        [keras.layers.Dense(4, activation="softmax")],
        [keras.layers.Dense(4), keras.layers.Activation("softmax")],
        [keras.layers.Dense(4), keras.layers.Softmax()],
    ],
    ids=["dense", "activation", "softmax"],
)
def test_few_examples_with_huge_logits_do_not_take_the_steps_of_the_others(head, tmp_path):
    model = classifier(*head)
    file = to_tflite(model, tmp_path / "model.tflite", "int8", FEATURES[::-1], io_dtype="float32")
    assert verify(model, file.path, ORDINARY).max_error < 0.1


def test_a_softmax_layer_of_a_functional_model_and_one_with_a_mask():
    inputs = keras.Input((4,))
    mask = keras.layers.ReLU()(inputs) > 0
    logits = np.concatenate([RNG.normal(size=(50, 4)), [[400, -400, 0, 0]]]).astype("float32")
    plain = keras.Model(inputs, keras.layers.Softmax()(inputs))
    assert with_bounded_logits(plain, [logits]) is not plain
    masked = keras.Model(inputs, keras.layers.Softmax()(inputs, mask=mask))
    assert with_bounded_logits(masked, [logits]) is masked


def test_a_model_that_cannot_be_cloned_is_left_as_it_is():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Softmax()(keras.layers.Lambda(lambda x: x * 2)(inputs)))
    assert with_bounded_logits(model, [np.array([[400, -400, 0, 0], [1, 2, 3, 4]], "float32")]) is model


def test_ordinary_logits_are_left_to_the_converter():
    for model in (
        classifier(keras.layers.Dense(4, activation="softmax")),
        classifier(keras.layers.Dense(4)),
        classifier(keras.layers.Dense(4, activation="sigmoid")),
    ):
        assert with_bounded_logits(model, [ORDINARY]) is model
