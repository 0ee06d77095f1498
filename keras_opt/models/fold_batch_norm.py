"""BatchNorm folded into the layer before it or behind it: the same outputs, fewer operations."""

from dataclasses import dataclass

import keras
import numpy as np

from keras_opt.core.all_layers import all_layers
from keras_opt.core.clone_layer import clone_layer
from keras_opt.core.errors import InputError, argument_error, check_choice
from keras_opt.core.set_weights import set_weights
from keras_opt.models.affine_folding import (
    AVERAGES,
    CONVOLUTIONS,
    DENSE,
    DEPTHWISE,
    IDENTITIES,
    MAXIMA,
    SEPARABLE,
    TRANSPOSED,
    folded_before,
    folded_behind,
    scale_and_shift,
    weights_with_bias,
)
from keras_opt.models.graph import calls, functional, has_graph, output_names, trained_calls

_BEHIND = (*DENSE, *CONVOLUTIONS, *DEPTHWISE, *SEPARABLE, *TRANSPOSED)
_BEFORE = (*DENSE, *CONVOLUTIONS, *DEPTHWISE, *SEPARABLE)


def fold_batch_norm(model: keras.Model, unproven: str = "raise") -> keras.Model:
    """Returns a new model without BatchNormalization that has the outputs of `model` at inference.

    A norm is at inference a scale and a shift of each channel,

        scale = gamma / sqrt(moving_variance + epsilon)        shift = beta - moving_mean * scale

    which go into the convolution or dense layer before it, or, where an activation stands between the two, into the
    one behind it:

        before the norm:  kernel' = kernel * scale (by output)    bias' = bias * scale + shift
        behind the norm:  kernel' = kernel * scale (by input)     bias' = bias + sum(kernel * shift)

    On the way they pass what they commute with: dropouts and noise, average-pooling, max-pooling as long as no scale
    is negative, and Flatten on the way to a dense layer. Refused is what cannot be proven to give the same outputs: a
    norm with two consumers on its way, one that is called twice or with `training=True`, a subclass of a Keras layer,
    a layer that computes in a lower precision than the norm, and behind the norm a convolution that pads with zeros,
    which the shift would not reach. Nested models are folded inside. Where a norm gave an output of the model, an
    Activation("linear") of its name and dtype gives it now, so the names of the outputs stay.

    A fresh model may fold where the trained one is refused: its `shift` is 0, to which zeros in the padding do no
    harm. With `norm_position="before_activation"` the networks of the builders fold before and after.

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
    if not has_graph(model):
        cure = "Give a functional or Sequential model that starts with keras.Input."
        raise argument_error("fold_batch_norm", "model", model, "a built model with a graph of layers", cure)
    folded, left = _fold_all(model)
    if left and unproven == "raise":
        name, reason = next(iter(left.items()))
        raise InputError(
            f"fold_batch_norm: norm `{name}` cannot be folded: {reason}. Change the model (in the builders by "
            'norm_position="before_activation"), or give unproven="keep".'
        )
    return model if folded is None else folded


def _fold_all(model: keras.Model) -> tuple[keras.Model | None, dict[str, str]]:
    """The folded model, `None` if it is `model` as it was; and the norms that are left in it, each with the reason."""
    model, changed = functional(model), False
    nested, left = {}, {}
    trained = trained_calls(model)
    for layer in model.layers:
        if has_graph(layer) and layer.name not in trained:
            folded, left_inside = _fold_all(layer)
            nested |= {} if folded is None else {layer.name: folded}
            left |= left_inside
        elif not _is_norm(layer):
            inside = [each.name for each in all_layers(layer) if _is_norm(each)]
            call = ", called with training=True" if layer.name in trained else ""
            left |= dict.fromkeys(inside, f"it is inside of `{layer.name}` ({type(layer).__name__}{call})")
    while True:
        search = _Search(model)
        folds = [fold for layer in model.layers if _is_norm(layer) and (fold := search.find(layer))]
        if not folds and not nested:
            return (model if changed else None), left | search.reasons
        # Once more: a norm behind a norm has now a neighbour that takes it in.
        model, nested, changed = _without(model, folds, nested), {}, True


def _is_norm(layer):
    return isinstance(layer, keras.layers.BatchNormalization)


@dataclass(frozen=True)
class _Fold:
    """A norm and the layer that takes it in, which stands behind the norm or before it."""

    norm: keras.layers.BatchNormalization
    layer: keras.Layer
    behind: bool

    def apply(self, weights: list[np.ndarray]) -> list[np.ndarray]:
        """The weights of the layer with the norm in them."""
        formula = folded_before if self.behind else folded_behind
        return formula(self.layer, weights, *scale_and_shift(self.norm))


def _without(model: keras.Model, folds: list[_Fold], nested: dict[str, keras.Model]) -> keras.Model:
    """A copy of `model` without the norms of `folds`, and with the `nested` models in place of those of their name."""
    removed, outputs = {fold.norm.name for fold in folds}, output_names(model)
    weights = {}
    for fold in folds:  # one from each side may go into the same layer
        name = fold.layer.name
        weights[name] = fold.apply(weights.get(name) or weights_with_bias(fold.layer))

    def clone(layer):
        if layer.name in nested:
            return nested[layer.name]
        if layer.name in removed & outputs:
            return keras.layers.Activation("linear", name=layer.name, dtype=layer.compute_dtype)
        bias = {"use_bias": True} if layer.name in weights else {}
        return clone_layer(layer, **bias)

    def call(layer, *inputs, **arguments):
        # Operations such as `x + y` are called here too.
        if getattr(layer, "name", None) in removed:
            x = inputs[0] if inputs else arguments["inputs"]
            return layer(x) if layer.name in outputs else x
        return layer(*inputs, **arguments)

    copy = keras.models.clone_model(model, clone_function=clone, call_function=call)
    for layer in model.layers:
        if layer.weights and layer.name not in removed | nested.keys():
            set_weights(copy.get_layer(layer.name), weights.get(layer.name) or layer.get_weights())
    return copy


class _Search:
    """Looks in a model's graph for the layer that can take in a norm."""

    def __init__(self, model: keras.Model):
        self.layers = {layer.name: layer for layer in model.layers}  # operations such as `x + y` are not among them
        self.sources = calls(model)
        self.outputs = output_names(model)
        self.trained = trained_calls(model)
        self.reasons: dict[str, str] = {}

    def find(self, norm: keras.layers.BatchNormalization) -> _Fold | None:
        """The fold of `norm`; `None` if there is none, and then `reasons` says why."""
        reason = self._unfit(norm)
        if reason is None:
            before = self._target(norm, behind=False)
            if isinstance(before, keras.Layer):
                return _Fold(norm, before, behind=False)
            behind = self._target(norm, behind=True)
            if isinstance(behind, keras.Layer):
                return _Fold(norm, behind, behind=True)
            reason = f"{before}; and {behind}"
        self.reasons[norm.name] = reason
        return None

    def _unfit(self, norm):
        if type(norm) is not keras.layers.BatchNormalization:
            return f"it is a {type(norm).__name__}, a subclass, which may do something else"
        if len(self.sources[norm.name]) != 1:
            return f"it is called {len(self.sources[norm.name])} times"
        if norm.name in self.trained:
            return "it is called with training=True"
        if norm.axis not in (-1, norm.input_spec.ndim - 1):
            return f"it works on axis {norm.axis}, not on the last"
        return None

    def _target(self, norm, behind: bool) -> "keras.Layer | str":
        """The layer before or behind `norm` that can take it in, or why there is none."""
        scale, shift = scale_and_shift(norm)
        step = self._consumer if behind else self._producer
        name = norm.name
        while True:
            name = step(name)
            if name is None:
                if behind:
                    return "its outputs go to several layers, to one that is called twice, or out of the model"
                return "what feeds it is an input or output of the model, feeds another layer too, or is called twice"
            layer = self.layers.get(name)
            passes = self._passes(layer, scale, behind)
            if isinstance(passes, str):
                return passes
            if not passes:
                return _refusal(layer, name, shift, behind) or _loss_of_precision(layer, norm) or layer

    def _passes(self, layer, scale, behind):
        """Whether the norm may change places with `layer`, or why it may not though others may."""
        kind = type(layer)
        if kind in IDENTITIES and layer.name not in self.trained:
            return True
        if getattr(layer, "data_format", "channels_last") != "channels_last":
            return False
        if kind in MAXIMA and np.any(scale < 0):
            return f"it has a negative gamma, with which the max-pooling `{layer.name}` does not commute"
        if kind in AVERAGES:
            return getattr(layer, "padding", "valid") == "valid"
        return kind in MAXIMA or (behind and kind is keras.layers.Flatten)

    def _producer(self, name: str) -> str | None:
        """The only layer that feeds `name`, if it feeds nothing else."""
        sources = self.sources[name][0]
        return sources[0] if len(sources) == 1 and self._consumer(sources[0]) == name else None

    def _consumer(self, name: str) -> str | None:
        """The only layer that `name` feeds, if both are called once."""
        consumers = [user for user, nodes in self.sources.items() for node in nodes for each in node if each == name]
        if len(consumers) != 1 or name in self.outputs or len(self.sources[name]) != 1:
            return None
        return consumers[0] if len(self.sources[consumers[0]]) == 1 else None


def _refusal(layer: keras.Layer | None, name: str, shift: np.ndarray, behind: bool) -> str | None:
    """Why `layer`, which stands behind or before a norm, cannot take it in; `None` if it can."""
    place = "what follows it is" if behind else "what feeds it is"
    if type(layer) not in (_BEFORE if behind else _BEHIND):  # a subclass may do something else with its kernel
        kind = "an operation" if layer is None else type(layer).__name__
        return f"{place} `{name}` ({kind}), no convolution or dense layer"
    if getattr(layer, "data_format", "channels_last") != "channels_last":
        return f"`{name}` has its channels first"
    if len(layer.weights) != (2 if type(layer) in SEPARABLE else 1) + layer.use_bias:
        return f"`{name}` has weights beside its kernel and bias"
    if not behind:
        return None if layer.activation is keras.activations.linear else f"`{name}` has an activation of its own"
    if type(layer) not in DENSE and layer.padding != "valid" and max(layer.kernel_size) > 1 and np.any(shift):
        return f"`{name}` pads its input with zeros, which the shift of the norm does not reach"
    return None


def _loss_of_precision(layer: keras.Layer, norm: keras.layers.BatchNormalization) -> str | None:
    """Why `layer` would compute `norm` in a lower precision; `None` if it would not."""
    if keras.backend.result_type(layer.compute_dtype, norm.compute_dtype) == layer.compute_dtype:
        return None
    return f"`{layer.name}` computes in {layer.compute_dtype}, the norm in {norm.compute_dtype}"
