"""Residual networks against the published figures."""

import keras
import numpy as np
import pytest
from builders import kinds, trainable
from full_rows import full

from keras_opt.models import resnet


@pytest.mark.parametrize(("depth", "parameters"), [(18, 11_689_512), full(34, 21_797_672), full(50, 25_557_032)])
def test_parameters_of_the_imagenet_networks(depth, parameters):
    """The figures of torchvision, which has no bias before a norm."""
    assert trainable(resnet(depth, (224, 224, 3), 1000)) == parameters


def test_resnet50_has_the_parameters_of_keras_applications_but_for_the_biases_before_norms():
    theirs = keras.applications.ResNet50(weights=None)
    biases = sum(layer.filters for layer in theirs.layers if isinstance(layer, keras.layers.Conv2D))
    assert resnet(50, (224, 224, 3), 1000).count_params() == theirs.count_params() - biases


def test_resnet20_by_hand():
    def pairs(before, filters, blocks):  # 3x3 kernels, and gamma and beta behind each
        first = 9 * before * filters + 9 * filters**2 + 4 * filters
        shortcut = before * filters + 2 * filters if before != filters else 0
        return first + shortcut + (blocks - 1) * (18 * filters**2 + 4 * filters)

    expected = 27 * 16 + 32 + pairs(16, 16, 3) + pairs(16, 32, 3) + pairs(32, 64, 3) + 650
    assert trainable(resnet(20, (32, 32, 3), 10, width=16)) == expected == 272_474


@pytest.mark.parametrize(
    ("input_shape", "stem", "before_the_head"),
    [
        ((64, 64, 3), "auto", (8, 8, 32)),
        ((65, 96, 3), "auto", (3, 3, 32)),
        ((32, 32, 3), "large", (1, 1, 32)),
        ((128, 128, 3), "small", (16, 16, 32)),
        ((128, 6), "auto", (4, 32)),
        ((64, 6), "auto", (8, 32)),
    ],
)
def test_the_stem_by_input(input_shape, stem, before_the_head):
    model = resnet(18, input_shape, 3, 4, stem=stem)
    assert model.get_layer("stage4_block2_activation").output.shape[1:] == before_the_head


def block(**settings):
    model = resnet(20, (16, 16, 3), 3, 8, **settings)
    return model, [layer.name.removeprefix("stage1_block2_") for layer in model.layers if "stage1_block2" in layer.name]


def test_the_order_of_the_layers_in_a_block():
    last = ["2_conv", "2_norm", "add", "activation"]
    assert block()[1] == ["1_conv", "1_norm", "1_activation", *last]
    assert block(norm_position="after_activation")[1] == ["1_conv", "1_activation", "1_norm", *last]
    assert block(norm="none")[1] == ["1_conv", "1_activation", "2_conv", "add", "activation"]


def test_no_bias_before_a_norm():
    def biased(**settings):
        model, _ = block(**settings)
        return {layer.name for layer in model.layers if getattr(layer, "use_bias", False)}

    everywhere = biased(norm="none")
    assert biased() == biased(norm="group") == biased(norm="sync") == {"classifier"}
    assert len(everywhere) == 1 + 18 + 2 + 1
    # With the activation between them, but not where a branch ends.
    assert "stage1_block2_1_conv" in biased(norm_position="after_activation")
    assert "stage1_block2_2_conv" not in biased(norm_position="after_activation")


@pytest.mark.parametrize("norm", ["batch", "sync", "group", "none"])
@pytest.mark.parametrize("training", [False, True])
def test_a_block_starts_as_the_identity(norm, training):
    model = resnet(20, (16, 16, 3), 3, 8, norm=norm)
    ends = [model.get_layer(f"stage2_block{number}_activation").output for number in (1, 2, 3)]
    x = np.random.default_rng(0).normal(size=(4, 16, 16, 3))
    first, second, third = keras.Model(model.input, ends)(x, training=training)
    assert np.max(first) > 0
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first, third)


def test_the_gamma_that_starts_at_0_is_the_last_of_its_branch():
    model, _ = block()
    assert set(np.array(model.get_layer("stage1_block2_1_norm").gamma)) == {1.0}
    assert set(np.array(model.get_layer("stage1_block2_2_norm").gamma)) == {0.0}


def test_without_zero_init_a_block_starts_as_something_else():
    model, _ = block(zero_init_last=False)
    assert float(model.get_layer("stage1_block2_2_norm").gamma[0]) == 1.0


def test_one_step_moves_what_starts_at_zero():
    model = resnet(20, (8, 8, 1), 2, 4)
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.train_on_batch(np.random.default_rng(0).normal(size=(4, 8, 8, 1)), np.arange(4) % 2)
    assert np.abs(model.get_layer("stage1_block1_2_norm").gamma).max() > 0


def test_settings_reach_their_layers():
    model = resnet(
        20, (16, 16, 3), 3, 8, norm="sync", bn_momentum=0.8, bn_epsilon=1e-2, activation="gelu", weight_decay=1e-4,
        dropout=[0.1, 0.2, 0.3], classifier_activation=None, preprocessing=keras.layers.Rescaling(1 / 255), name="mine",
    )  # fmt: skip
    norm = model.get_layer("stem_norm")
    assert (norm.synchronized, norm.momentum, norm.epsilon) == (True, 0.8, 1e-2)
    assert model.get_layer("stem_activation").activation is keras.activations.gelu
    assert [layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)] == [0.1, 0.2, 0.3]
    assert model.get_layer("stem_conv").kernel_regularizer.l2 == pytest.approx(5e-5)
    assert model.get_layer("classifier").activation is keras.activations.linear
    assert kinds(model)[1] == "Rescaling"
    assert (model.name, resnet(20, (16, 16, 3), 3, 8).name) == ("mine", "resnet20")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth": 19}, "`depth` must be one of 18, 34, 50, 101, 152, 20, 32, 44, 56, 110"),
        ({"input_shape": (32,)}, r"`input_shape` must be \(height, width, channels\) or \(length, channels\)"),
        ({"input_shape": (7, 32, 3)}, "`input_shape` must be at least 8 along each side"),
        ({"input_shape": (31, 64, 3), "stem": "large"}, "`input_shape` must be at least 32 along each side"),
        ({"classes": 1}, "`classes` must be at least 2 under a softmax"),
        ({"width": 0}, "`width` must be an integer of at least 1"),
        ({"stem": "tiny"}, "`stem` must be one of 'auto', 'small', 'large'"),
        ({"dropout": [0.1]}, "`dropout` must be 4 rates, one a stage"),
        ({"norm_position": "before_activations"}, "`norm_position` must be one of"),
    ],
)
def test_bad_arguments(change, message):
    with pytest.raises(ValueError, match=f"resnet: argument {message}"):
        resnet(**{"depth": 18, "input_shape": (32, 32, 3), "classes": 2, **change})
