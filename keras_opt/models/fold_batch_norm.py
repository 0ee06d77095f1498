"""BatchNorm folded into the convolution or dense layer before it: the same outputs, fewer operations."""

from dataclasses import dataclass

import keras
import numpy as np

from keras_opt.core.errors import InputError, argument_error, check_choice
from keras_opt.models.graph import calls, functional

_FOLDABLE = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D, keras.layers.Dense)
_MAX_POOLING = (keras.layers.MaxPooling1D, keras.layers.MaxPooling2D, keras.layers.MaxPooling3D)


def fold_batch_norm(model: keras.Model, unproven: str = "raise") -> keras.Model:
    """Returns a new model without BatchNormalization that has the outputs of `model` at inference.

    A norm is folded into the convolution or dense layer before it, also through a max-pooling between the two, with
    which it commutes as long as no gamma is negative:

        kernel' = kernel * gamma / sqrt(variance + epsilon)
        bias'   = beta + (bias - mean) * gamma / sqrt(variance + epsilon)

    `to_tflite` does this by itself.

    Args:
        model: A built functional or Sequential model; it is left as it is.
        unproven: What to do about a norm that cannot be folded: `"raise"`, or `"keep"` it as it is.

    Returns:
        A model with the same inputs and outputs for inference; `model` itself where nothing can be folded.

    Raises:
        ValueError: A norm cannot be folded, with the reason.

    Source: B. Jacob et al., 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
        Inference", section 3.2.

    Example:
        >>> import keras_opt
        >>> folded = keras_opt.models.fold_batch_norm(keras_opt.models.convnet((8, 16), (28, 28, 1), 10))
    """
    check_choice("fold_batch_norm", "unproven", unproven, ("raise", "keep"))
    if not getattr(model, "inputs", None):
        cure = "Give a functional or Sequential model that starts with keras.Input."
        raise argument_error("fold_batch_norm", "model", model, "a built model with a graph of layers", cure)
    model = functional(model)
    graph = calls(model)
    folds = []
    for norm in model.layers:
        if not isinstance(norm, keras.layers.BatchNormalization):
            continue
        found = _find(model, norm, graph)
        if isinstance(found, _Fold):
            folds.append(found)
        elif unproven == "raise":
            raise InputError(
                f"fold_batch_norm: norm `{norm.name}` cannot be folded: {found}. Change the model, or give "
                'unproven="keep".'
            )
    if not folds:
        return model
    targets = {fold.layer.name for fold in folds}
    removed = {fold.norm.name for fold in folds}

    def clone(layer):
        bias = {"use_bias": True} if layer.name in targets else {}
        return layer.__class__.from_config({**layer.get_config(), **bias})

    def call(layer, *inputs, **arguments):
        # Operations such as `x + y` are called here too.
        return inputs[0] if getattr(layer, "name", None) in removed else layer(*inputs, **arguments)

    folded = keras.models.clone_model(model, clone_function=clone, call_function=call)
    for layer in model.layers:
        if layer.weights and layer.name not in targets | removed:
            folded.get_layer(layer.name).set_weights(layer.get_weights())
    for fold in folds:
        folded.get_layer(fold.layer.name).set_weights(fold.weights())
    return folded


@dataclass(frozen=True)
class _Fold:
    """A norm and the layer that takes it in."""

    norm: keras.layers.BatchNormalization
    layer: keras.layers.Layer

    def weights(self) -> list[np.ndarray]:
        """The kernel and bias of the folded layer."""
        norm, layer = self.norm, self.layer
        mean, variance = (_array(value) for value in (norm.moving_mean, norm.moving_variance))
        scale = (_array(norm.gamma) if norm.scale else 1.0) / np.sqrt(variance + norm.epsilon)
        shift = _array(norm.beta) if norm.center else 0.0
        bias = _array(layer.bias) if layer.use_bias else 0.0
        return [_array(layer.kernel) * scale, shift + (bias - mean) * scale]


def _find(model: keras.Model, norm: keras.layers.BatchNormalization, graph: dict) -> "_Fold | str":
    """The fold of `norm`, or why there is none."""
    if len(graph[norm.name]) != 1:
        return f"it is called {len(graph[norm.name])} times"
    if norm.axis not in (-1, len(norm.input.shape) - 1):
        return f"it works on axis {norm.axis}, not on the last"
    layer = _only_producer(model, norm, graph)
    if isinstance(layer, _MAX_POOLING):
        if norm.scale and np.any(_array(norm.gamma) < 0):
            return f"it has a negative gamma, with which the max-pooling `{layer.name}` does not commute"
        layer = _only_producer(model, layer, graph)
    if layer is None:
        return "what feeds it also feeds another layer, is called twice, or is an output of the model"
    if type(layer) not in _FOLDABLE:  # a subclass may do something else with its kernel
        return f"what feeds it is `{layer.name}` ({type(layer).__name__}), no convolution or dense layer"
    if layer.activation is not keras.activations.linear:
        return f"`{layer.name}` has an activation of its own"
    if getattr(layer, "data_format", "channels_last") != "channels_last":
        return f"`{layer.name}` has its channels first"
    return _Fold(norm, layer)


def _only_producer(model: keras.Model, layer: keras.layers.Layer, graph: dict) -> keras.layers.Layer | None:
    """The layer that feeds `layer` and nothing else; `None` where that does not hold."""
    sources = graph[layer.name][0]
    if len(sources) != 1:
        return None
    name = sources[0]
    consumers = sum(sources.count(name) for nodes in graph.values() for sources in nodes)
    producer = model.get_layer(name)
    is_output = any(tensor is layer.input for tensor in model.outputs)
    return producer if consumers == 1 and len(graph[name]) == 1 and not is_output else None


def _array(variable: keras.Variable) -> np.ndarray:
    return keras.ops.convert_to_numpy(variable).astype(np.float64)
