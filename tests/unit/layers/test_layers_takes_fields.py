"""Augmentation layers tell their shapes without being called, and take labels as arguments of their own."""

import keras
import numpy as np
import pytest

from keras_opt.core.errors import InputError
from keras_opt.layers import CutMix, MixUp, RandAugment, RandomAffine, RandomCrop
from keras_opt.layers.brightness_factor import RandomBrightnessFactor

LAYERS = {
    "RandomAffine": (RandomAffine(rotation_degrees=10), (8, 8, 3)),
    "RandomAffine of another size": (RandomAffine(zoom=0.1, output_size=(4, 6)), (4, 6, 3)),
    "RandomCrop": (RandomCrop(4, 5), (4, 5, 3)),
    "RandAugment": (RandAugment(), (8, 8, 3)),
    "RandomBrightnessFactor": (RandomBrightnessFactor((0.5, 1.5)), (8, 8, 3)),
}
ALL = pytest.mark.parametrize(("layer", "shape"), LAYERS.values(), ids=LAYERS)


@ALL
def test_time_distributed_takes_the_layer(layer, shape):
    video = keras.Input((3, 8, 8, 3))
    model = keras.Model(video, keras.layers.TimeDistributed(layer)(video))
    assert model.output_shape == (None, 3, *shape)
    assert model(np.zeros((2, 3, 8, 8, 3), "float32"), training=False).shape == (2, 3, *shape)


@ALL
def test_a_functional_model_knows_shape_and_dtype(layer, shape):
    image = keras.Input((8, 8, 3), dtype="uint8")
    model = keras.Model(image, layer(image))
    lines = []
    model.summary(print_fn=lambda line, *_: lines.append(line))
    assert str((None, *shape)) in "\n".join(lines)
    assert model.outputs[0].dtype == model(np.zeros((1, 8, 8, 3), "uint8"), training=False).dtype.name


@ALL
def test_sizes_may_be_unknown(layer, shape):
    known = shape if shape[:2] != (8, 8) else (None, None, 3)
    assert layer.compute_output_shape((None, None, None, 3)) == (None, *known)


def test_each_field_has_its_own_shape_and_dtype():
    layer = RandomAffine(rotation_degrees=10, rescale=1 / 255, output_size=(4, 6))
    assert layer.compute_output_shape(((None, 8, 8, 3), (None, 10))) == ((None, 4, 6, 3), (None, 10))
    shapes = layer.compute_output_shape({"images": (2, 8, 8, 3), "segmentation_masks": (2, 8, 8)})
    assert shapes == {"images": (2, 4, 6, 3), "segmentation_masks": (2, 4, 6)}
    image, number = keras.Input((8, 8, 3), dtype="uint8"), keras.Input((), dtype="int64")
    images, numbers = layer((image, number))
    assert (images.dtype, numbers.dtype) == ("float32", "int64")


@pytest.mark.parametrize("mixer", [MixUp(num_classes=10), CutMix(num_classes=10)], ids=["MixUp", "CutMix"])
def test_class_numbers_get_their_places(mixer):
    assert mixer.compute_output_shape(((None, 8, 8, 3), (None,))) == ((None, 8, 8, 3), (None, 10))
    image, number = keras.Input((8, 8, 3)), keras.Input((), dtype="int32")
    images, labels = mixer(image, number)
    assert (images.shape, labels.shape) == ((None, 8, 8, 3), (None, 10))


@pytest.mark.parametrize("mixer", [MixUp(), CutMix()], ids=["MixUp", "CutMix"])
def test_a_mixer_in_a_model_is_one_line(mixer):
    with pytest.raises(InputError) as error:
        mixer(keras.Input((8, 8, 3)))
    assert "cannot be mixed without their labels" in str(error.value)
    assert "\n" not in str(error.value)
