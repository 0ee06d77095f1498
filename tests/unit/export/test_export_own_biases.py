"""Operators that share a bias, each in its own scale."""

import keras
import numpy as np
import pytest

from keras_opt.core.errors import InputError
from keras_opt.export import converter, to_tflite, verify
from keras_opt.export.model_file import unpack
from keras_opt.export.own_biases import own_biases

RNG = np.random.default_rng(0)
X = [RNG.normal(size=(120, 6)).astype("float32"), 9 * RNG.normal(size=(120, 6)).astype("float32")]


@pytest.fixture(scope="module")
def siamese():
    """One layer with a bias, called on inputs of two ranges."""
    keras.utils.set_random_seed(0)
    inputs = [keras.Input((6,), name=name) for name in ("near", "far")]
    shared = keras.layers.Dense(4, bias_initializer="ones")
    return keras.Model(inputs, keras.layers.Concatenate()([shared(each) for each in inputs]))


def test_a_layer_called_twice_in_int16x8(siamese, tmp_path, monkeypatch):
    """TensorFlow 2.21 writes the bias once, in the scale of the first call: the second is off by its size."""
    path = tmp_path / "m.tflite"
    file = to_tflite(siamese, path, "int16x8", X)
    assert verify(siamese, file.path, X, task="regression").relative_error < 0.01
    path.unlink()
    monkeypatch.setattr(converter, "own_biases", lambda tree: None)
    with pytest.raises(
        InputError, match=r"int16x8 file of model .* does not answer as Keras does: .* error of 0\.[6-9]"
    ):
        to_tflite(siamese, path, "int16x8", X)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["float32", "float16", "dynamic", "int8", "int16x8"])
def test_files_whose_biases_are_right_stay_as_they_are(kind, exports):
    tree = unpack(exports[kind].path.read_bytes())
    before = len(tree.buffers), len(tree.subgraphs[0].tensors)
    own_biases(tree)
    assert (len(tree.buffers), len(tree.subgraphs[0].tensors)) == before


@pytest.mark.parametrize("scale", [0.0, np.inf])
def test_a_channel_without_a_scale_keeps_its_bias(exports, scale):
    tree = unpack(exports["int16x8"].path.read_bytes())
    for tensor in tree.subgraphs[0].tensors:
        if tensor.quantization is not None and tensor.quantization.scale is not None:
            tensor.quantization.scale = np.r_[scale, tensor.quantization.scale[1:]]
    before = len(tree.buffers), len(tree.subgraphs[0].tensors)
    own_biases(tree)
    assert (len(tree.buffers), len(tree.subgraphs[0].tensors)) == before
