"""Multiply-accumulates against counts by hand."""

import keras
import pytest
from keras import layers

from keras_opt.models import convnet, macs, mlp


def model_of(shape, *stack):
    return keras.Sequential([keras.Input(shape), *stack])


@pytest.mark.parametrize(
    ("shape", "layer", "count"),
    [
        ((5,), layers.Dense(3), 5 * 3),
        ((7, 5), layers.Dense(3), 7 * 5 * 3),
        ((8, 8, 3), layers.Conv2D(4, 3), 6 * 6 * 4 * 3 * 3 * 3),
        ((8, 8, 3), layers.Conv2D(4, 3, padding="same", strides=2), 4 * 4 * 4 * 3 * 3 * 3),
        ((8, 8, 4), layers.Conv2D(6, 3, groups=2), 6 * 6 * 6 * 3 * 3 * 2),
        ((8, 8, 4), layers.DepthwiseConv2D(3, depth_multiplier=2), 6 * 6 * 3 * 3 * 4 * 2),
        ((8, 8, 4), layers.SeparableConv2D(5, 3), 6 * 6 * (3 * 3 * 4 + 4 * 5)),
        ((4, 4, 3), layers.Conv2DTranspose(2, 3, strides=2), 4 * 4 * 3 * 3 * 2 * 3),
        ((10, 3), layers.Conv1D(4, 3, strides=2), 4 * 4 * 3 * 3),
        ((10, 3), layers.DepthwiseConv1D(3), 8 * 3 * 3),
        ((4, 4, 4, 2), layers.Conv3D(3, 2), 3**3 * 3 * 2 * 2**3),
        ((5,), layers.Embedding(9, 4), 0),
        ((8, 8, 3), layers.BatchNormalization(), 0),
        ((8, 8, 3), layers.MaxPooling2D(), 0),
        ((6, 3), layers.LSTM(4), 6 * (3 * 16 + 4 * 16)),
        ((6, 3), layers.GRU(4, return_sequences=True), 6 * (3 * 12 + 4 * 12)),
        ((6, 3), layers.SimpleRNN(4), 6 * (3 * 4 + 4 * 4)),
        ((6, 3), layers.Bidirectional(layers.GRU(4)), 2 * 6 * (3 * 12 + 4 * 12)),
        ((6, 3), layers.TimeDistributed(layers.Dense(4)), 6 * 3 * 4),
        ((6, 8, 8, 3), layers.TimeDistributed(layers.Conv2D(4, 3)), 6 * 6 * 6 * 4 * 3 * 3 * 3),
        ((5,), layers.LayerNormalization(), 0),
    ],
    ids=lambda value: value.name if isinstance(value, layers.Layer) else None,
)
def test_layers_by_hand(shape, layer, count):
    assert macs(model_of(shape, layer)) == count


def test_a_frozen_layer_costs_what_it_costs():
    model = model_of((5,), layers.Dense(3))
    model.trainable = False
    assert macs(model) == 15


def test_nested_models_are_followed():
    inner = model_of((4,), layers.Dense(3))
    assert macs(model_of((5,), layers.Dense(4), inner, layers.Dense(2))) == 5 * 4 + 4 * 3 + 3 * 2
    inputs = keras.Input((5,))
    assert macs(keras.Model(inputs, inner(layers.Dense(4)(inputs)))) == 5 * 4 + 4 * 3


def test_attention_of_three_queries_to_five_values():
    query, value = keras.Input((3, 8)), keras.Input((5, 6))
    outputs = layers.MultiHeadAttention(2, key_dim=4, value_dim=7)(query, value)
    projections = 3 * (8 * 2 * 4) + 5 * (6 * 2 * 4) + 5 * (6 * 2 * 7) + 3 * (2 * 7 * 8)
    assert macs(keras.Model([query, value], outputs)) == projections + 3 * 5 * 2 * 4 + 3 * 5 * 2 * 7


def masked_attention(call):
    query, value, mask = keras.Input((4, 16)), keras.Input((10, 16)), keras.Input((4, 10))
    attention = layers.MultiHeadAttention(2, key_dim=8)
    return keras.Model([query, value, mask], call(attention, query, value, mask))


@pytest.mark.parametrize(
    "call",
    [
        lambda attention, query, value, mask: attention(query, attention_mask=mask, value=value),
        lambda attention, query, value, mask: attention(value=value, query=query),
        lambda attention, query, value, mask: attention(query, value, value, attention_mask=mask),
    ],
    ids=["mask first", "value first", "with keys"],
)
def test_attention_takes_its_arguments_by_name(call):
    assert macs(masked_attention(call)) == 4 * 16 * 16 * 2 + 10 * 16 * 16 * 2 + 4 * 10 * 16 * 2


def test_keys_and_values_of_other_widths():
    query, key, value = keras.Input((3, 8)), keras.Input((5, 7)), keras.Input((5, 6))
    outputs = layers.MultiHeadAttention(2, key_dim=4, output_shape=9)(query, key=key, value=value)
    projections = 3 * 8 * 8 + 5 * 7 * 8 + 5 * 6 * 8 + 3 * 8 * 9
    assert macs(keras.Model([query, key, value], outputs)) == projections + 3 * 5 * 8 * 2


def test_states_by_name_before_the_sequence():
    states, sequence = [keras.Input((4,)), keras.Input((4,))], keras.Input((6, 3))
    outputs = layers.LSTM(4)(initial_state=states, sequences=sequence)
    assert macs(keras.Model([*states, sequence], outputs)) == 6 * (3 * 16 + 4 * 16)


def test_a_layer_of_two_models_is_counted_by_its_call_in_the_one_that_is_given():
    shared = layers.Conv2D(8, 3, padding="same")
    inputs = [keras.Input((64, 64, 3)), keras.Input((32, 32, 3))]
    large, small = (keras.Model(each, shared(each)) for each in inputs)
    assert macs(large) == 64 * 64 * 8 * 27
    assert macs(small) == 32 * 32 * 8 * 27


@pytest.mark.parametrize("mode", ["int8", "int4"])
@pytest.mark.parametrize(
    "make",
    [lambda: mlp([16], (8,), 4, norm="none"), lambda: masked_attention(lambda layer, x, y, mask: layer(x, y))],
    ids=["mlp", "attention"],
)
def test_a_quantized_model_counts_as_before(make, mode):
    model = make()
    count = macs(model)
    model.quantize(mode)
    assert macs(model) == count > 0


def test_the_reference_network():
    # Keras's MNIST example: 26x26x(3x3x1x32), 11x11x(3x3x32x64), 1600x10.
    assert macs(convnet((32, 64), (28, 28, 1), 10)) == 26 * 26 * 288 + 11 * 11 * 18432 + 16000


def shared_model():
    dense, inputs = layers.Dense(5, name="twin"), keras.Input((5,))
    return keras.Model(inputs, dense(dense(inputs)))


def frozen_unknown_model():
    model = model_of((6, 6, 3), layers.ConvLSTM1D(4, 3, name="memory"))
    model.trainable = False
    return model


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__(name="free")
        self.dense = layers.Dense(1)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (shared_model, "layer `twin` is called 2 times"),
        (frozen_unknown_model, r"layer `memory` \(ConvLSTM1D\) has weights"),
        (lambda: model_of((None, None, 3), layers.Conv2D(2, 3, name="conv")), "layer `conv` has a tensor of no fixed"),
        (Subclassed, r"model `free` \(Subclassed\) has no graph of layers"),
    ],
)
def test_what_cannot_be_counted_is_refused_by_name(build, message):
    with pytest.raises(ValueError, match=f"macs: {message}"):
        macs(build())
