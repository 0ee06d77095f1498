"""Which weights are kernels, and how many of them are zero."""

import keras
import numpy as np

from keras_opt.core.errors import argument_error

_KERNEL_NAMES = ("kernel", "depthwise_kernel", "pointwise_kernel", "recurrent_kernel")


def sparsity(model: keras.Model) -> dict[str, float]:
    """The share of zeros among the kernel weights, by layer and in all.

    Args:
        model: A built model.

    Returns:
        Layer path to a fraction in [0, 1], for every layer with a kernel, frozen ones too, and the entry `"total"` over
        all of them.

    Raises:
        ValueError: `model` is not built.

    Example:
        >>> import keras, keras_opt
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="head")], name="net")
        >>> keras_opt.compression.sparsity(model)
        {'net/head': 0.0, 'total': 0.0}
    """
    if not isinstance(model, keras.Model) or not model.built:
        raise argument_error(
            "sparsity", "model", model, "a built Keras model", "Build it, or call it on a batch, first."
        )
    zeros: dict[str, int] = {}
    sizes: dict[str, int] = {}
    for kernel in kernels(model):
        layer = kernel.path.rsplit("/", 1)[0]
        zeros[layer] = zeros.get(layer, 0) + int(np.sum(keras.ops.convert_to_numpy(kernel) == 0))
        sizes[layer] = sizes.get(layer, 0) + int(np.prod(kernel.shape))
    shares = {layer: zeros[layer] / sizes[layer] for layer in sizes}
    return {**shares, "total": sum(zeros.values()) / max(sum(sizes.values()), 1)}


def kernels(model: keras.Model) -> list[keras.Variable]:
    """The kernels of a model, trainable or frozen (not biases, norms, embeddings)."""
    return [variable for variable in model.weights if variable.name in _KERNEL_NAMES]
