"""The plain convolutional network."""

import json

import keras
import numpy as np
import pytest

from keras_opt.models import convnet


def kinds(model):
    return [type(layer).__name__ for layer in model.layers]


@pytest.mark.parametrize(
    ("settings", "stage"),
    [
        ({}, ["Conv2D", "MaxPooling2D", "BatchNormalization", "Activation"]),
        ({"norm_position": "after_activation"}, ["Conv2D", "MaxPooling2D", "Activation", "BatchNormalization"]),
        ({"norm": "none"}, ["Conv2D", "MaxPooling2D", "Activation"]),
    ],
    ids=["norm before", "norm after", "no norm"],
)
def test_the_order_of_the_layers(settings, stage):
    model = convnet((4, 8), (12, 12, 1), 3, **settings)
    assert kinds(model) == ["InputLayer", *stage, *stage, "Flatten", "Dense"]
    assert model.output_shape == (None, 3)


def test_a_convolution_before_a_norm_has_no_bias():
    assert not convnet((4,), (8, 8, 1), 2).get_layer("conv1").use_bias
    assert convnet((4,), (8, 8, 1), 2, norm="none").get_layer("conv1").use_bias


def test_a_bias_behind_which_an_activation_stands_is_kept():
    assert convnet((4,), (8, 8, 1), 2, norm_position="after_activation").get_layer("conv1").use_bias


def test_sensor_windows_have_one_dimensional_layers():
    model = convnet((4, 8), (30, 6), 3, pooling="avg", dropout=[0.1, 0.2])
    stage = ["Conv1D", "MaxPooling1D", "BatchNormalization", "Activation"]
    head = ["GlobalAveragePooling1D", "Dropout", "Dense"]
    assert kinds(model) == ["InputLayer", *stage, "Dropout", *stage, *head]
    assert [layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)] == [0.1, 0.2]
    # Kernels of 3 x 6 x 4 and 3 x 4 x 8, four values a channel in each norm, and the classifier.
    assert model.count_params() == 72 + 16 + 96 + 32 + 8 * 3 + 3


def test_settings_reach_their_layers():
    model = convnet(
        (4,), (8, 8, 1), 2, bn_momentum=0.8, bn_epsilon=1e-2, activation="gelu", pooling="avg", dropout=0.3,
        classifier_activation=None, preprocessing=[keras.layers.Rescaling(1 / 255), keras.layers.ZeroPadding2D()],
        name="mine",
    )  # fmt: skip
    assert kinds(model)[1:3] == ["Rescaling", "ZeroPadding2D"]
    assert (model.get_layer("norm1").momentum, model.get_layer("norm1").epsilon) == (0.8, 1e-2)
    assert model.get_layer("activation1").activation is keras.activations.gelu
    assert kinds(model)[-3:] == ["GlobalAveragePooling2D", "Dropout", "Dense"]
    assert model.get_layer("dropout").rate == 0.3
    assert model.get_layer("classifier").activation is keras.activations.linear
    assert model.name == "mine"
    assert kinds(convnet((4,), (8, 8, 1), 2, pooling="max"))[-2] == "GlobalMaxPooling2D"


def test_the_file_opens_in_plain_keras(tmp_path):
    model = convnet((4,), (8, 8, 1), 2, preprocessing=keras.layers.Rescaling(1 / 255))
    assert "keras_opt" not in json.dumps(model.get_config(), default=str)
    model.save(tmp_path / "model.keras")
    x = np.random.default_rng(0).uniform(0, 255, (3, 8, 8, 1))
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.predict(x, verbose=0), model.predict(x, verbose=0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"filters": ()}, "`filters` must be a sequence of at least one int"),
        ({"filters": (4, 0)}, "`filters.1.` must be an integer of at least 1"),
        (
            {"input_shape": (8,)},
            r"must be \(height, width, channels\) or \(length, channels\).*without an order take mlp",
        ),
        ({"input_shape": 8}, r"`input_shape` must be \(height, width, channels\) or \(length, channels\)"),
        ({"input_shape": (None, None, 3)}, "`input_shape.0.` must be an integer of at least 1"),
        ({"input_shape": (9, 28, 1), "filters": (4, 4, 4)}, "`input_shape` must be large enough for 3 stages"),
        ({"classes": 1}, "`classes` must be at least 2 under a softmax"),
        ({"norm": "layer"}, "`norm` must be one of 'batch', 'sync', 'group', 'none'"),
        ({"norm_position": "before_activations"}, "Did you mean 'before_activation'"),
        ({"bn_momentum": 1.0}, "`bn_momentum` must be a fraction"),
        ({"bn_epsilon": 0}, "`bn_epsilon` must be a finite number above 0"),
        ({"pooling": "average"}, "`pooling` must be one of None, 'avg', 'max'"),
        ({"dropout": 50}, "`dropout` must be a fraction"),
        ({"dropout": [0.1, 0.2]}, "`dropout` must be 1 rates, one a stage"),
        ({"dropout": [1.0]}, "`dropout` must be a fraction"),
        ({"weight_decay": -1e-4}, "`weight_decay` must be a finite number of at least 0"),
        ({"activation": "rellu"}, "`activation` must be the name of a Keras activation"),
        ({"classifier_activation": "softmx"}, "`classifier_activation` must be the name of a Keras activation"),
    ],
)
def test_bad_arguments(change, message):
    with pytest.raises(ValueError, match=message):
        convnet(**{"filters": (4,), "input_shape": (8, 8, 1), "classes": 2, **change})


def test_the_smallest_input_of_each_depth_is_accepted():
    assert convnet((2, 2, 2), (22, 22, 1), 2).output_shape == (None, 2)
    with pytest.raises(ValueError, match="large enough"):
        convnet((2, 2, 2), (21, 22, 1), 2)
