import inspect

import keras
import numpy as np
import pytest
from tensorflow.keras.preprocessing.image import ImageDataGenerator

from keras_opt.core.errors import InputError
from keras_opt.layers import RandomAffine

from_generator = RandomAffine.from_image_data_generator


def test_the_classic_arguments_are_mapped():
    layer = from_generator(
        rotation_range=20,
        width_shift_range=0.2,
        height_shift_range=5,
        shear_range=10.0,
        zoom_range=[0.8, 1.1],
        horizontal_flip=True,
        vertical_flip=True,
        fill_mode="constant",
        cval=3.0,
        interpolation_order=0,
        rescale=1 / 255,
        seed=7,
    )
    expected = RandomAffine(
        20, 0.2, 5, (0.8 - 1, 1.1 - 1), 10.0, True, True, "constant", 3.0, "nearest", 1 / 255, seed=7
    )
    skip = ("name",)
    ours, theirs = ({k: v for k, v in one.get_config().items() if k not in skip} for one in (layer, expected))
    assert ours == theirs


def test_without_rescale_the_values_are_floats_of_their_own_range():
    images = np.full((2, 4, 4, 1), 200, "uint8")
    assert from_generator(zoom_range=0.2).zoom == 0.2
    seen = from_generator()(images)
    assert seen.dtype == "float32"
    np.testing.assert_array_equal(seen, images)


def test_colour_arguments_give_keras_layers_and_rescale_last():
    affine, shift, brightness, rescaling = from_generator(
        rotation_range=20, brightness_range=(0.8, 1.3), channel_shift_range=51.0, rescale=1 / 255
    )
    assert isinstance(affine, RandomAffine)
    assert affine.rotation_degrees == 20
    assert brightness.factor == (0.8, 1.3)
    np.testing.assert_allclose(shift.factor, (-0.2, 0.2))
    images = np.full((50, 4, 4, 3), 100, "uint8")
    seen = keras.Sequential([affine, brightness, shift, rescaling])(images, training=True).numpy()
    assert 49 * 0.8 / 255 <= seen.min() < seen.max() <= 151 * 1.3 / 255
    assert (np.ptp(seen, axis=(1, 2, 3)) < 1e-6).all()


@pytest.mark.parametrize(
    ("arguments", "cure"),
    [
        ({"featurewise_center": True}, "keras.layers.Normalization"),
        ({"featurewise_std_normalization": True}, "keras_opt.data.arrays"),
        ({"samplewise_center": True}, "per_image_standardization"),
        ({"samplewise_std_normalization": True}, "per_image_standardization"),
        ({"zca_whitening": True}, "PCA"),
        ({"preprocessing_function": np.negative}, "preprocess_input(tf.cast(x"),
        ({"validation_split": 0.2}, "keras_opt.data.image_folder"),
        ({"data_format": "channels_first"}, "channels_last"),
        ({"interpolation_order": 3}, "Choose from 0, 1"),
        ({"dtype": "float64"}, "float32"),
        ({"width_shift_range": [-3, 3]}, "Give the largest"),
        ({"height_shift_range": 3.5}, "Give 3"),
        ({"brightness_range": 0.5}, "(0.8, 1.2)"),
        ({"brightness_range": (-0.5, 1.5)}, "(0.8, 1.2)"),
        ({"channel_shift_range": 300.0}, "grey levels"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_cannot_be_honoured_is_refused_with_its_replacement(arguments, cure):
    with pytest.raises(InputError) as caught:
        from_generator(**arguments)
    (name,) = arguments
    assert f"RandomAffine.from_image_data_generator: argument `{name}` must be" in str(caught.value)
    assert cure in str(caught.value)


def test_brightness_multiplies_as_in_the_generator():
    _, brightness = from_generator(brightness_range=(1.5, 0.5), seed=3)
    values = np.array([0, 50, 100, 250], "float32")
    images = np.broadcast_to(values[:, None], (100, 2, 4, 1))
    seen, labels = brightness((images, np.arange(100)), training=True)
    factors = seen.numpy()[:, 0, 2, 0] / 100
    assert 0.5 <= factors.min() < 0.6 < 1.4 < factors.max() < 1.5
    expected = np.minimum(values * factors[:, None], 255)
    np.testing.assert_allclose(seen[:, 1, :, 0], expected, rtol=1e-6)
    for factor, image in zip(factors[:5], images[:5], strict=True):
        theirs = ImageDataGenerator().apply_transform(image, {"brightness": factor})
        np.testing.assert_allclose(theirs[1, :, 0], np.minimum(values * factor, 255), atol=1)
    np.testing.assert_array_equal(labels, np.arange(100))
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(brightness))
    assert again.get_config() == brightness.get_config()
    np.testing.assert_array_equal(brightness(images, training=False), images)


def test_a_misspelt_argument_names_the_method_and_the_right_one():
    with pytest.raises(TypeError, match=r"RandomAffine\.from_image_data_generator: .*`zoom_rage`.*'zoom_range'"):
        from_generator(zoom_rage=0.2)


def test_whole_float_shifts_are_pixels():
    assert from_generator(width_shift_range=4.0).width_shift == 4


def test_every_argument_of_the_generator_is_taken_at_its_default():
    of_generator = inspect.signature(ImageDataGenerator).parameters
    affine = from_generator(**{name: parameter.default for name, parameter in of_generator.items()})
    assert affine.get_config() | {"name": ""} == from_generator().get_config() | {"name": ""}
