"""What LiteRT does in 8 bits, and how: which layers and operations of Keras have which rule."""

from typing import Any

import keras
import numpy as np

from keras_opt.layers.rand_augment import RandAugment
from keras_opt.layers.random_affine import RandomAffine
from keras_opt.layers.random_crop import RandomCrop
from keras_opt.models.affine_folding import AVERAGES, IDENTITIES, MAXIMA, SEPARABLE
from keras_opt.models.softmax import is_softmax

# What only moves values, or drops some: the outputs have the range of the inputs, and nothing is rounded.
SAME_VALUES = (
    *IDENTITIES,
    *MAXIMA,
    *(getattr(keras.layers, f"{kind}{rank}D") for kind in ("Cropping", "ZeroPadding") for rank in (1, 2)),
    keras.layers.Flatten,
    keras.layers.Permute,
    keras.layers.RepeatVector,
    keras.layers.Reshape,
)
LOCAL_AVERAGES = tuple(kind for kind in AVERAGES if not kind.__name__.startswith("Global"))
OWN_RANGE = (
    *(kind for kind in AVERAGES if kind.__name__.startswith("Global")),
    keras.layers.LeakyReLU,
)
# Keras's own have no common public class. They do nothing at inference.
AUGMENTATIONS = (
    *(kind for name, kind in vars(keras.layers).items() if name.startswith("Random") and isinstance(kind, type)),
    RandAugment,
    RandomAffine,
    RandomCrop,
)
POOLINGS = MAXIMA

RECTIFIERS = ("relu", "relu6")
CURVES = (*RECTIFIERS, "gelu", "hard_silu", "leaky_relu", "linear", "sigmoid", "silu", "softmax", "tanh")
# The ranges that LiteRT prescribes.
LIMITS = {"sigmoid": (0.0, 255 / 256), "softmax": (0.0, 255 / 256), "tanh": (-1.0, 127 / 128)}

_ELEMENTWISE = ("Add", "Multiply", "Subtract")


@keras.saving.register_keras_serializable("keras_opt")
def hard_silu(x: Any) -> Any:
    """Keras's `hard_silu` in the form that the converter knows as one operation: x * relu6(x + 3) / 6."""
    return x * keras.ops.relu6(x + 3.0) * (1 / 6)


def is_elementwise(operation: Any) -> bool:
    """Whether `operation`, a layer or what an expression such as `x + y` makes, combines two tensors value by value."""
    return _is_kerass(operation) and type(operation).__name__ in _ELEMENTWISE


def shares_a_range(operation: Any) -> bool:
    """Whether the inputs of `operation` must have one range, which its outputs then have too."""
    if type(operation) in (keras.layers.Maximum, keras.layers.Minimum):
        return True
    return _is_kerass(operation) and type(operation).__name__ == "Concatenate"


def function_of(operation: Any) -> str | None:
    """The name of the activation function that `operation` is; `None` if it is none that LiteRT has in 8 bits."""
    if type(operation) is keras.layers.ReLU and not operation.negative_slope and not operation.threshold:
        return {None: "relu", 6: "relu6"}.get(operation.max_value)
    if type(operation) is keras.layers.Softmax and is_softmax(operation):
        return "softmax"
    if type(operation) is keras.layers.Activation:
        return function_name(operation.activation)
    return None


def function_name(function: Any) -> str | None:
    """The name of an activation function of Keras; `None` if LiteRT does not have it in 8 bits."""
    name = getattr(function, "__name__", None)
    return name if name in CURVES and keras.activations.get(name) is function else None


def is_plain(layer: keras.Layer) -> bool:
    """Whether `layer` has nothing beside its kernels and bias (LoRA, say)."""
    kernels = 2 if type(layer) in SEPARABLE else 1
    return len(layer.weights) == kernels + layer.use_bias


def parts(layer: keras.Layer) -> list[tuple[keras.Layer, list[np.ndarray]]]:
    """The linear layers that `layer` consists of, with their weights: two for a separable convolution."""
    config = {**layer.get_config(), "activation": "linear", "dtype": "float32"}
    if type(layer) not in SEPARABLE:
        return [(type(layer).from_config(config), layer.get_weights())]
    rank = len(layer.kernel_size)
    shared = ("data_format", "dilation_rate", "kernel_size", "padding", "strides", "trainable", "depth_multiplier")
    depthwise = getattr(keras.layers, f"DepthwiseConv{rank}D")(
        name=f"{layer.name}_depthwise",
        use_bias=False,
        dtype="float32",
        **{name: config[name] for name in shared},
        **{f"depthwise_{name}": config[f"depthwise_{name}"] for name in ("constraint", "initializer", "regularizer")},
    )
    pointwise = getattr(keras.layers, f"Conv{rank}D")(
        config["filters"],
        1,
        name=f"{layer.name}_pointwise",
        dtype="float32",
        **{name: config[name] for name in ("trainable", "use_bias")},
        **{f"bias_{name}": config[f"bias_{name}"] for name in ("constraint", "initializer", "regularizer")},
        **{f"kernel_{name}": config[f"pointwise_{name}"] for name in ("constraint", "initializer", "regularizer")},
    )
    first, *others = layer.get_weights()
    return [(depthwise, [first]), (pointwise, others)]


def _is_kerass(operation):
    # The classes of `x + y` and its like have no public name.
    return type(operation).__module__.startswith("keras.src.")
