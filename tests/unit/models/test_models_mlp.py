"""The plain dense network."""

import keras
import pytest
from builders import kinds

from keras_opt.models import mlp


@pytest.mark.parametrize(
    ("settings", "stage"),
    [
        ({}, ["Dense", "BatchNormalization", "Activation"]),
        ({"norm_position": "after_activation"}, ["Dense", "Activation", "BatchNormalization"]),
        ({"norm": "group"}, ["Dense", "GroupNormalization", "Activation"]),
        ({"norm": "none"}, ["Dense", "Activation"]),
    ],
    ids=["norm before", "norm after", "group norm", "no norm"],
)
def test_the_order_of_the_layers(settings, stage):
    assert kinds(mlp([128, 64], (20,), 3, **settings)) == ["InputLayer", *stage, *stage, "Dense"]


def test_dense_relu_batch_norm_layer_by_layer():
    model = mlp([128, 64], (20,), 3, norm_position="after_activation")
    assert [layer.name for layer in model.layers[1:]] == [
        "dense1", "activation1", "norm1", "dense2", "activation2", "norm2", "classifier",
    ]  # fmt: skip
    assert model.get_layer("activation1").activation is keras.activations.relu
    assert model.get_layer("dense1").use_bias  # what the activation takes in has no other shift


def test_parameters_by_hand():
    assert mlp([128, 64], (20,), 3).count_params() == 20 * 128 + 4 * 128 + 128 * 64 + 4 * 64 + 64 * 3 + 3
    assert mlp([128, 64], (20,), 3, norm="none").count_params() == 21 * 128 + 129 * 64 + 65 * 3


def test_dropout_is_one_rate_before_the_classifier_or_one_a_stage():
    one, each = mlp([8, 8], (4,), 2, dropout=0.5), mlp([8, 8], (4,), 2, dropout=[0.1, 0.2])
    assert kinds(one).count("Dropout") == 1
    assert kinds(one)[-2] == "Dropout"
    assert [layer.rate for layer in each.layers if isinstance(layer, keras.layers.Dropout)] == [0.1, 0.2]


def test_weight_decay_is_half_the_sum_of_squared_kernels():
    model = mlp([8], (4,), 2, weight_decay=0.1)
    kernels = [weight for weight in model.trainable_weights if weight.name == "kernel"]
    expected = sum(0.05 * float(keras.ops.sum(kernel**2)) for kernel in kernels)
    assert len(kernels) == 2
    assert sum(float(loss) for loss in model.losses) == pytest.approx(expected, rel=1e-6)


def test_images_are_flattened_after_their_preprocessing():
    model = mlp([8], (4, 4, 1), 2, preprocessing=keras.layers.Rescaling(1 / 255))
    assert kinds(model)[:4] == ["InputLayer", "Rescaling", "Flatten", "Dense"]


def test_groups_have_16_channels_or_the_next_number_that_divides():
    def group_size(units):
        return units // mlp([units], (4,), 2, norm="group").get_layer("norm1").groups

    assert [group_size(units) for units in (8, 16, 64, 24, 40, 17)] == [8, 16, 16, 24, 20, 17]


def test_one_output_for_two_classes_or_a_regression():
    assert mlp([8], (4,), 1, classifier_activation="sigmoid").output_shape == (None, 1)
    assert mlp([8], (4,), 1, classifier_activation=None).output_shape == (None, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"units": []}, "`units` must be a sequence of at least one int"),
        ({"units": [8, 0]}, "`units.1.` must be an integer of at least 1"),
        ({"units": 8}, "`units` must be a sequence of ints"),
        ({"units": [1], "norm": "group"}, "`units` must be an integer of at least 2"),
        ({"input_shape": 20}, "`input_shape` must be a sequence of ints"),
        ({"preprocessing": "rescale"}, "`preprocessing` must be a Keras layer or a list of them"),
        ({"classes": 0}, "`classes` must be an integer of at least 1"),
        ({"classes": 1}, "`classes` must be at least 2 under a softmax, which makes 1.0 of any one output"),
        ({"norm": "layer"}, "`norm` must be one of 'batch', 'sync', 'group', 'none'"),
        ({"dropout": (0.1, 0.2, 0.3)}, "`dropout` must be 1 rates, one a stage"),
        ({"dropout": "0.5"}, "`dropout` must be a fraction"),
    ],
)
def test_bad_arguments(change, message):
    with pytest.raises((TypeError, ValueError), match=f"mlp: argument {message}"):
        mlp(**{"units": [8], "input_shape": (4,), "classes": 2, **change})
