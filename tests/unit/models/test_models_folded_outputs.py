"""The outputs of a folded model keep their names, their dtype and their precision."""

import keras
import numpy as np
import pytest
from builders import norms, with_random_statistics

from keras_opt.core.errors import InputError
from keras_opt.export import to_tflite, verify
from keras_opt.models import fold_batch_norm

RNG = np.random.default_rng(0)


def with_an_embedding_as_output():
    inputs = keras.Input((6,))
    embedding = keras.layers.BatchNormalization(name="emb")(keras.layers.Dense(5, name="da")(inputs))
    classes = keras.layers.Dense(2, name="cls")(keras.layers.ReLU()(embedding))
    return keras.Model(inputs, [embedding, classes])


def test_an_output_keeps_the_name_of_its_norm():
    model = with_random_statistics(with_an_embedding_as_output())
    folded = fold_batch_norm(model)
    assert norms(folded) == []
    assert folded.output_names == model.output_names == ["emb", "cls"]
    folded.compile("sgd", {"emb": "mse", "cls": "mse"})
    x = RNG.normal(size=(4, 6)).astype("float32")
    for expected, found in zip(model(x), folded(x), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)
    assert fold_batch_norm(folded) is folded


def test_such_a_model_is_exported_in_8_bits(tmp_path):
    model = with_random_statistics(with_an_embedding_as_output())
    x = RNG.normal(size=(100, 6)).astype("float32")
    path = to_tflite(model, tmp_path / "m.tflite", quantize="int8", representative_data=x).path
    report = verify(model, path, x)
    assert report.max_error < 0.1
    assert [each.output for each in report.outputs] == ["emb", "cls"]


def in_mixed_precision(dense_dtype, norm_dtype):
    layers = [keras.layers.Dense(5, dtype=dense_dtype, name="dense")]
    layers.append(keras.layers.BatchNormalization(dtype=norm_dtype, name="norm1"))
    return with_random_statistics(keras.Sequential([keras.Input((6,)), *layers]))


def test_a_norm_in_float32_does_not_go_into_a_layer_in_float16():
    model = in_mixed_precision("mixed_float16", "float32")
    reason = r"`dense` computes in float16, the norm in float32; and its outputs go to several layers"
    with pytest.raises(InputError, match=f"norm `norm1` cannot be folded: {reason}"):
        fold_batch_norm(model)
    assert fold_batch_norm(model, unproven="keep") is model


@pytest.mark.parametrize("dense_dtype", ["float32", "mixed_float16"])
def test_a_norm_in_float16_is_folded_and_leaves_the_dtype_of_the_output(dense_dtype):
    model = in_mixed_precision(dense_dtype, "mixed_float16")
    folded = fold_batch_norm(model)
    assert norms(folded) == []
    x = RNG.normal(size=(4, 6)).astype("float32")
    assert folded(x).dtype == model(x).dtype == "float16"
    np.testing.assert_allclose(folded(x), model(x), atol=1e-2)
