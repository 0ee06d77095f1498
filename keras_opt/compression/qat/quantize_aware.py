"""Training of a Keras 3 model for a device that computes in 8 bits."""

import warnings
from collections.abc import Sequence
from fnmatch import fnmatchcase

import keras

from keras_opt.compression.qat.quantized_graph import quantized
from keras_opt.compression.qat.quantized_range import QuantizedRange
from keras_opt.core.all_layers import all_layers
from keras_opt.core.call_stack import users_stacklevel
from keras_opt.core.errors import NoEffectWarning, argument_error, check_patterns
from keras_opt.models.graph import graph_layers, has_graph


def quantize_aware(model: keras.Model, skip: Sequence[str] = ()) -> keras.Model:
    """Returns a new model that computes as an int8 device will, and learns in `fit` to make up for the rounding.

    Try int8 export of the trained model first: it costs no training and loses little on most networks. Where it loses
    more (depthwise and narrow networks, wide activations), make the trained model quantization-aware, compile and fit
    it for a few more epochs at about a tenth of the learning rate, and export that:

        model = quantize_aware(trained)    model.compile(...)    model.fit(...)    to_tflite(model, path, "int8")

    The file needs no representative data, and `model.predict` says what it will answer: kernels, biases and stored
    tensors are rounded to the values that the file has, and sums of products are brought from whole numbers to the next
    step as LiteRT's XNNPACK kernels do it. So the answers of a network of convolutions, dense layers, norms,
    rectifiers, sums, products and poolings are those of the file to the bit, but for a global average that falls
    half-way between two steps, once in some 100,000 values. LeakyReLU, and a rectifier that is no part of the operation
    before it, are one step aside for one value in 20. The reference kernels, which TFLite Micro has, round twice: one
    stored value in 200 differs by a step, and a deep network makes more of it.

    What is rounded, and how:
      - kernels to -127..127 times a step, which is one for each output channel of a convolution, and one for all of a
        dense or transposed layer; weights keep their float values, and get their gradients straight through;
      - inputs and whatever a device stores to 256 steps of a range that is observed in training (`QuantizedRange`), of
        the logits before a softmax where they change a probability by more than 1e-7; outputs of a softmax or sigmoid
        in inference alone, for the sake of a loss that takes their logarithm;
      - BatchNormalization behind a linear layer, with a max-pooling between them too, is folded into the kernel for its
        rounding; it stays live, and learns its statistics as before (`QuantizedKernel`). Any other is a depthwise
        convolution of one pixel, as is Normalization, and Rescaling unless the kernel behind takes it in, which one
        that pads with zeros does only where the offset is 0;
      - separable convolutions become two layers; tensors that go into a Concatenate, Maximum or Minimum share a range.

    Zeros of a pruned kernel stay exactly zero, with any optimizer that moves no weight without a gradient. Augmentation
    in the model is left as it is, dropout is live. Nested models stay nested. Layers keep their names inside of a
    wrapper (`quantized_NAME`), the inputs and outputs of the model theirs. A model in mixed precision computes in
    float32 here, since float16 has no room for 256 even steps.

    A range that has seen no training batch takes that of each batch it is given; `to_tflite` wants trained ones.
    `keras_opt.load_model` opens the saved model.

    Args:
        model: A built functional or Sequential model, trained or not; it is left as it is.
        skip: Patterns (as in `fnmatch`) of layers to train in float: their outputs are rounded, nothing inside of them
            is. A skipped convolution or dense layer is rounded at export, so that the file is int8 throughout but
            `predict` does not know all of its rounding; one of several operations (LayerNormalization, attention) has
            no ranges inside, and `to_tflite` refuses the float island.

    Returns:
        A functional model, not compiled, with the weights of `model`.

    Raises:
        ValueError: `model` has no graph of layers or is quantization-aware, or a layer has no 8-bit form here; the
            message gives its name. Among them are recurrent layers, embeddings, LayerNormalization, GroupNormalization
            and attention.

    Warns:
        NoEffectWarning: A pattern of `skip` fits no layer.

    Cost: five scalar variables for each stored tensor.

    Source: B. Jacob et al., 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
        Inference", section 3; R. Krishnamoorthi, 2018, "Quantizing deep convolutional networks for efficient
        inference", section 3.

    Example:
        >>> import keras_opt
        >>> model = keras_opt.compression.quantize_aware(keras_opt.models.convnet((8, 16), (28, 28, 1), 10))
    """
    if not has_graph(model):
        cure = "Give a functional or Sequential model that starts with keras.Input."
        raise argument_error("quantize_aware", "model", model, "a built model with a graph of layers", cure)
    if any(isinstance(layer, QuantizedRange) for layer in all_layers(model)):
        raise argument_error("quantize_aware", "model", model.name, "not quantization-aware yet", "Fit it as it is.")
    check_patterns("quantize_aware", "skip", skip)
    names = [layer.name for layer in (*model.layers, *graph_layers(model))]
    for pattern in skip:
        if not any(fnmatchcase(name, pattern) for name in names):
            warnings.warn(
                f"quantize_aware: the pattern {pattern!r} of `skip` fits no layer; there are: {', '.join(names)}.",
                NoEffectWarning,
                stacklevel=users_stacklevel(),
            )
    return quantized(model, skip)
