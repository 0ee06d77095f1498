"""A kernel as a matrix (in, out): what a column and a row do, seen at the outputs of the layer."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_opt.compression.pruning.matrix import KernelMatrix, kernel_matrices

RNG = np.random.default_rng(0)

# Each with an input, and rows, columns, run and parts of its kernels.
KINDS = {
    "dense": (layers.Dense(5), (3,), [(3, 5, 3, 1)]),
    "conv_1d": (layers.Conv1D(5, 2), (4, 3), [(6, 5, 3, 1)]),
    "conv_2d": (layers.Conv2D(5, (2, 3)), (4, 4, 3), [(18, 5, 3, 1)]),
    "grouped": (layers.Conv2D(6, 2, groups=2), (3, 3, 4), [(8, 6, 2, 2)]),
    "conv_3d": (layers.Conv3D(2, 2), (3, 3, 3, 4), [(32, 2, 4, 1)]),
    "transposed_1d": (layers.Conv1DTranspose(5, 2), (4, 3), [(6, 5, 3, 1)]),
    "transposed_2d": (layers.Conv2DTranspose(5, (2, 3)), (4, 4, 3), [(18, 5, 3, 1)]),
    "depthwise_1d": (layers.DepthwiseConv1D(2, depth_multiplier=2), (4, 3), [(2, 6, 2, 1)]),
    "depthwise_2d": (layers.DepthwiseConv2D(2, depth_multiplier=2), (4, 4, 3), [(4, 6, 4, 1)]),
    "separable": (layers.SeparableConv2D(5, 2, depth_multiplier=2), (4, 4, 3), [(4, 6, 4, 1), (6, 5, 6, 1)]),
    "lstm": (layers.LSTM(5), (4, 3), [(3, 20, 3, 4), (5, 20, 5, 4)]),
    "gru": (layers.GRU(5), (4, 3), [(3, 15, 3, 3), (5, 15, 5, 3)]),
    "simple_rnn": (layers.SimpleRNN(5), (4, 3), [(3, 5, 3, 1), (5, 5, 5, 1)]),
    "conv_lstm": (layers.ConvLSTM1D(5, 2), (4, 4, 3), [(6, 20, 3, 4), (10, 20, 5, 4)]),
    "einsum": (layers.EinsumDense("abc,cd->abd", (None, 5)), (4, 3), [(3, 5, 3, 1)]),
    "einsum_dots": (layers.EinsumDense("...x,xy->...y", 5), (3,), [(3, 5, 3, 1)]),
    "einsum_shared": (layers.EinsumDense("abc,bcd->abd", (4, 5)), (4, 3), [(3, 20, 3, 4)]),
}
ONE_OUTPUT_A_COLUMN = [
    *("dense", "conv_1d", "conv_2d", "grouped", "conv_3d", "transposed_1d", "transposed_2d", "depthwise_1d"),
    *("depthwise_2d", "einsum", "einsum_dots"),
]


def model_of(name):
    layer, shape, expected = KINDS[name]
    layer = type(layer).from_config(layer.get_config())
    model = keras.Sequential([keras.Input(shape), layer])
    kernels = [weight for weight in model.weights if "kernel" in weight.name]
    return model, kernels, kernel_matrices(model, kernels), expected


@pytest.mark.parametrize("name", KINDS)
def test_shapes_and_the_way_back(name):
    _, kernels, matrices, expected = model_of(name)
    assert [(each.rows, each.columns, each.run, each.parts) for each in matrices] == expected
    for kernel, matrix in zip(kernels, matrices, strict=True):
        values = RNG.normal(size=kernel.shape)
        assert matrix.of(values).shape == (matrix.rows, matrix.columns)
        np.testing.assert_array_equal(matrix.back(matrix.of(values)), values)


@pytest.mark.parametrize("name", ONE_OUTPUT_A_COLUMN)
def test_a_column_makes_one_output_channel(name):
    model, [kernel], [matrix], _ = model_of(name)
    x = RNG.normal(size=(2, *model.input_shape[1:])).astype("float32")
    for column in range(matrix.columns):
        values = np.zeros((matrix.rows, matrix.columns), "float32")
        values[:, column] = 1
        kernel.assign(matrix.back(values))
        channels = np.any(model(x).numpy().reshape(-1, matrix.columns) != 0, axis=0)
        assert np.flatnonzero(channels).tolist() == [column]


@pytest.mark.parametrize("name", ["dense", "conv_1d", "conv_2d", "conv_3d", "transposed_1d", "transposed_2d", "einsum"])
def test_a_row_of_each_run_is_multiplied_with_one_input_channel(name):
    model, [kernel], [matrix], _ = model_of(name)
    for channel in range(matrix.run):
        values = np.zeros((matrix.rows, matrix.columns), "float32")
        values[channel :: matrix.run] = RNG.normal(size=values[channel :: matrix.run].shape)
        kernel.assign(matrix.back(values))
        x = RNG.normal(size=(2, *model.input_shape[1:])).astype("float32")
        x[..., channel] = 0
        assert not np.any(model(x).numpy())


def test_attention():
    inputs = keras.Input((4, 6))
    model = keras.Model(inputs, layers.MultiHeadAttention(2, 3)(inputs, inputs))
    kernels = [weight for weight in model.weights if weight.name == "kernel"]
    matrices = kernel_matrices(model, kernels)
    assert [(each.rows, each.columns) for each in matrices] == [(6, 6)] * 4  # 3 times (in, heads x key), and its end
    assert matrices[3].row_axes == (0, 1)


def test_a_kernel_that_no_layer_is_known_of_is_read_as_a_convolution():
    model, [kernel], _, _ = model_of("conv_2d")
    assert kernel_matrices(keras.Sequential([keras.Input((1,))]), [kernel]) == kernel_matrices(model, [kernel])


def test_all_weights_in_one_column():
    _, [kernel], _, _ = model_of("transposed_2d")
    values = RNG.normal(size=kernel.shape)
    column = KernelMatrix.column(kernel)
    np.testing.assert_array_equal(column.of(values), values.reshape(-1, 1))
    np.testing.assert_array_equal(column.back(column.of(values)), values)
