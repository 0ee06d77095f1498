"""MobileNetV2 against keras.applications."""

import keras
import numpy as np
import pytest
from builders import trainable
from full_rows import full

from keras_opt.models import mobilenet


@pytest.mark.parametrize("alpha", [0.35, 1.3, *map(full, [0.5, 0.75, 1.0, 1.4])])
def test_parameters_are_those_of_keras_applications(alpha):
    ours = mobilenet((96, 96, 3), 1000, alpha)
    theirs = keras.applications.MobileNetV2(weights=None, input_shape=(96, 96, 3), alpha=alpha)
    assert (ours.count_params(), trainable(ours)) == (theirs.count_params(), trainable(theirs))


def test_the_published_size():
    assert mobilenet((224, 224, 3), 1000).count_params() == 3_538_984


def test_weights_of_keras_applications_fit_and_give_the_same_outputs():
    """At an odd size, for which Keras's explicit padding and "same" are one."""
    theirs = keras.applications.MobileNetV2(weights=None, input_shape=(65, 65, 3), alpha=0.35)
    ours = mobilenet((65, 65, 3), 1000, 0.35)
    ours.set_weights(theirs.get_weights())
    x = np.random.default_rng(0).normal(size=(2, 65, 65, 3))
    np.testing.assert_allclose(ours(x, training=False), theirs(x, training=False), rtol=1e-4)


@pytest.mark.parametrize(
    ("side", "stem", "map_side"), [(64, "auto", 8), (96, "auto", 3), (32, "large", 1), (96, "small", 12)]
)
def test_the_stem_by_input(side, stem, map_side):
    model = mobilenet((side, side, 3), 4, 0.35, stem=stem)
    assert model.get_layer("top_activation").output.shape[1:] == (map_side, map_side, 1280)


@pytest.mark.parametrize("norm", ["batch", "group", "none"])
def test_a_block_with_a_shortcut_starts_as_the_identity(norm):
    model = mobilenet((16, 16, 3), 4, 0.35, norm=norm)
    end = "norm" if norm != "none" else "conv"
    outputs = [model.get_layer(name).output for name in (f"stage3_block1_project_{end}", "stage3_block3_add")]
    first, last = keras.Model(model.input, outputs)(np.random.default_rng(0).normal(size=(4, 16, 16, 3)))
    assert np.abs(first).max() > 0
    np.testing.assert_array_equal(first, last)


def test_no_bias_before_a_norm():
    def biased(**settings):
        model = mobilenet((16, 16, 3), 4, 0.35, **settings)
        return [layer.name for layer in model.layers if getattr(layer, "use_bias", False)]

    assert biased() == ["classifier"]
    assert len(biased(norm="none")) == 1 + 52


def test_without_norm_the_signal_arrives():
    """Keras's own initializer counts all channels as inputs of a depthwise filter, which reads one."""
    model = mobilenet((32, 32, 3), 4, 0.35, norm="none", zero_init_last=False)
    top = keras.Model(model.input, model.get_layer("top_activation").output)
    assert np.std(top(np.random.default_rng(0).normal(size=(4, 32, 32, 3)))) > 0.01


def test_depthwise_kernels_do_not_decay():
    model = mobilenet((16, 16, 3), 4, 0.35, weight_decay=4e-5)
    assert model.get_layer("stage2_block1_depthwise_conv").depthwise_regularizer is None
    assert len(model.losses) == 35 + 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"input_shape": (96, 3)},
            r"`input_shape` must be \(height, width, channels\).*convnet or resnet for \(leng",
        ),
        ({"input_shape": (None, 96, 96, 3)}, "`input_shape` must be .* Leave out the batch"),
        ({"input_shape": (7, 7, 3)}, "`input_shape` must be at least 8 along each side"),
        ({"input_shape": (16, 80, 3), "stem": "large"}, "`input_shape` must be at least 32 along each side"),
        ({"alpha": 0}, "`alpha` must be a finite number above 0"),
        ({"classes": 1}, "`classes` must be at least 2 under a softmax"),
        ({"dropout": [0.1] * 6}, "`dropout` must be 7 rates, one a stage"),
    ],
)
def test_bad_arguments(change, message):
    with pytest.raises(ValueError, match=f"mobilenet: argument {message}"):
        mobilenet(**{"input_shape": (16, 16, 3), "classes": 2, **change})
