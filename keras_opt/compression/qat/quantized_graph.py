"""The graph of a model, call by call, with 8-bit kernels and a range wherever a device stores a tensor."""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import keras
import numpy as np

from keras_opt.compression.qat import quantized_affine, quantized_kernel
from keras_opt.compression.qat.quantizable_layers import (
    AUGMENTATIONS,
    LIMITS,
    LOCAL_AVERAGES,
    OWN_RANGE,
    POOLINGS,
    RECTIFIERS,
    SAME_VALUES,
    SEPARABLE,
    function_name,
    function_of,
    hard_silu,
    is_elementwise,
    is_plain,
    parts,
    shares_a_range,
)
from keras_opt.compression.qat.quantized_affine import QuantizedAffine
from keras_opt.compression.qat.quantized_kernel import QuantizedKernel
from keras_opt.compression.qat.quantized_range import QuantizedRange
from keras_opt.core.errors import InputError
from keras_opt.core.set_weights import set_weights
from keras_opt.models.affine_folding import AVERAGES, IDENTITIES
from keras_opt.models.graph import calls, functional, has_graph, output_names


def quantized(model: keras.Model, skip: Sequence[str], nested: bool = False, shared: bool = False) -> keras.Model:
    """The copy of `model` with ranges and 8-bit kernels; a `nested` one gets inputs that are rounded already.

    A `shared` one is called more than once.
    """
    model = functional(model)
    # The new model takes the graph and the weights, not the compiled state.
    plain = keras.Model(model.input, model.output, name=model.name)
    return _Rewriting(plain, skip, nested, shared).model


@dataclass(frozen=True)
class _Stored:
    """A tensor of the new graph, the layer that rounded it, and its step; `None` where they are not known."""

    tensor: Any
    range: QuantizedRange | None = None
    step: Any = None
    rounded: bool = True


@dataclass
class _Chain:
    """The last layer that a device runs in one operation with the one before it, and what these layers are."""

    last: str
    norm: keras.Layer | None = None
    pooling: keras.Layer | None = None
    activation: str | None = None
    goes_on: bool = False  # a rectifier follows, behind a dropout that stands in the way in training alone


class _Rewriting:
    """One pass over a graph; `model` is its result."""

    def __init__(self, model: keras.Model, skip: Sequence[str], nested: bool, shared: bool):
        self._skip, self._nested, self._shared = skip, nested, shared
        self._operations = {operation.name: operation for operation in model.operations}
        self._sources = calls(model)
        self._outputs = output_names(model)
        self._stored: dict[int, _Stored] = {}
        self._addends: dict[int, list] = {}
        self._absorbed: set[str] = set()
        self._rescalings: dict[str, keras.layers.Rescaling] = {}
        self._made: dict[str, Any] = {}
        self._ranges: dict[str, int] = {}
        self._weights: list[tuple[keras.Layer, list[np.ndarray]]] = []
        self.model = keras.models.clone_model(
            model, clone_function=lambda operation: functools.partial(self._emit, operation)
        )
        for layer, weights in self._weights:
            set_weights(layer, weights)

    def _emit(self, operation, *args, **kwargs):
        """Call what stands for `operation` in the new graph."""
        if operation.name in self._absorbed:
            return keras.tree.flatten((args, kwargs))[0]
        args, kwargs = keras.tree.map_structure(self._input, (args, kwargs))
        inputs = [self._stored[id(part)] for part in keras.tree.flatten((args, kwargs)) if id(part) in self._stored]
        if self._is_skipped(operation):
            outputs = self._copy(operation)(*args, **kwargs)
            return keras.tree.map_structure(lambda tensor: self._store(tensor, operation.name), outputs)
        if has_graph(operation):
            shared = self._is_shared(operation.name)
            made = self._once(operation.name, lambda: quantized(operation, self._skip, nested=True, shared=shared))
            return keras.tree.map_structure(lambda tensor: self._note(_Stored(tensor)), made(*args, **kwargs))
        # Keras's augmentation says training=True by default.
        trained = kwargs.get("training") is True and type(operation) not in AUGMENTATIONS
        rule = None if trained else self._rule(operation)
        if rule is None:
            raise InputError(
                f"quantize_aware: layer {operation.name!r} ({type(operation).__name__}) has no 8-bit form here. "
                f"Replace it, or give skip=[{operation.name!r}] to train it in float."
            )
        return rule(operation, inputs, lambda copy: copy(*args, **kwargs))

    def _rule(self, operation) -> Callable | None:
        """How `operation` is written; `None` if it is not known."""
        kind = type(operation)
        if getattr(operation, "data_format", None) == "channels_first":
            return None
        if getattr(operation, "activity_regularizer", None) is not None and kind not in SAME_VALUES:
            return None  # what stands for the layer would add no loss
        if kind in quantized_kernel.KINDS or kind in SEPARABLE:
            # Of a transposed convolution that is called twice the converter would round the kernel again.
            is_rounded_again = kind is keras.layers.Conv2DTranspose and self._is_shared(operation.name)
            is_known = function_name(operation.activation) and is_plain(operation) and not is_rounded_again
            return self._kernel if is_known else None
        if kind in quantized_affine.KINDS:
            return self._affine if quantized_affine.fits(operation) else None
        if function_of(operation):
            return self._function
        if kind in AUGMENTATIONS or kind in SAME_VALUES:
            return self._same_values
        if kind in OWN_RANGE:
            return self._own_range
        if kind in LOCAL_AVERAGES:
            return self._average
        if is_elementwise(operation):
            return self._elementwise
        return self._one_range if shares_a_range(operation) else None

    # The rules. Each takes the operation, its inputs, and a function that calls a layer with the call's arguments.

    def _kernel(self, layer, inputs, call):
        name, function = layer.name, function_name(layer.activation)
        chain = self._chain(name, pooling=True) if function == "linear" else _Chain(name)
        if function in RECTIFIERS:
            chain.activation = function
        *firsts, unit = self._once(name, lambda: self._units(layer, chain))
        value = inputs[0]
        for first in firsts:
            value = self._round(self._linear(first, value), f"{first.layer.name}_range")
        outputs = self._linear(unit, value)
        if function in (*RECTIFIERS, "linear"):
            return self._store(outputs, chain.last, goes_on=chain.goes_on)
        rounded = self._round(outputs, f"{name}_linear_range", before_softmax=function == "softmax")
        return self._curve(function, rounded, name)

    def _units(self, layer, chain):
        """The 8-bit forms of the linear layers in `layer`, the last with the chain."""
        *firsts, last = parts(layer)
        taken = (chain.norm, chain.pooling, self._rescalings.get(layer.name))
        norm, pooling, rescaling = (None if each is None else _copy(each) for each in taken)
        units = []
        for part, weights in (*firsts, last):
            rest = {"norm": norm, "pooling": pooling, "activation": chain.activation} if part is last[0] else {}
            # A kernel of zeros alone was initialised so and is not a pruned one.
            rest["keep_zeros"] = bool(0 < np.mean(weights[0] == 0) < 1)
            rest |= {"rescaling": rescaling, "shared": self._is_shared(layer.name)}
            units.append(QuantizedKernel(part, **rest, name=f"quantized_{part.name}"))
            self._weights.append((part, weights))
        if norm is not None:
            self._weights.append((norm, chain.norm.get_weights()))
        return units

    def _affine(self, layer, inputs, call):
        value, following = inputs[0], self._next(layer.name)
        if following is not None and value.rounded and quantized_kernel.takes_in(following, layer):
            self._rescalings[following.name] = layer
            return value.tensor
        chain = self._chain(layer.name)

        def make():
            copy = _copy(layer)
            self._weights.append((copy, layer.get_weights()))
            return QuantizedAffine(copy, chain.activation, name=f"quantized_{layer.name}")

        return self._store(self._linear(self._once(layer.name, make), value), chain.last, goes_on=chain.goes_on)

    def _function(self, operation, inputs, call):
        function = function_of(operation)
        if function == "linear":
            return self._same_values(operation, inputs, call)
        return self._curve(function, inputs[0], operation.name)

    def _curve(self, function, value, name):
        if function != "silu":
            return self._store(self._activation(function, value.tensor, name), name, LIMITS.get(function))
        gate = self._round(self._activation("sigmoid", value.tensor, name), f"{name}_gate", LIMITS["sigmoid"])
        product = self._once(f"{name}_silu", lambda: keras.layers.Multiply(dtype="float32", name=f"{name}_silu"))
        outputs = self._made_of(product([value.tensor, gate.tensor]), product, (value, gate))
        return self._rectified(outputs, self._chain(name), name)

    def _own_range(self, operation, inputs, call):
        outputs, value = call(self._copy(operation)), inputs[0]
        sizes = value.tensor.shape[1:-1]
        if type(operation) in AVERAGES and value.step is not None and None not in sizes:
            self._addends[id(outputs)] = [[outputs, self._times(1 / math.prod(sizes), value.step, operation.name)]]
        return self._store(outputs, operation.name)

    def _same_values(self, operation, inputs, call):
        outputs = call(self._copy(operation, rounded=False))
        return self._note(_Stored(outputs, inputs[0].range, inputs[0].step, inputs[0].rounded))

    def _average(self, operation, inputs, call):
        value, chain = inputs[0], self._chain(operation.name)
        outputs = call(self._copy(operation))
        if chain.activation:
            outputs = self._activation(chain.activation, outputs, operation.name)
        if value.range is None:
            return self._store(outputs, chain.last)
        outputs, step = value.range(outputs, means=True)
        return self._note(_Stored(outputs, value.range, step))

    def _elementwise(self, operation, inputs, call):
        name, chain = operation.name, self._chain(operation.name)
        if len(inputs) <= 2:
            outputs = self._made_of(call(self._copy(operation)), operation, inputs)
        else:  # a device takes two tensors at a time, and stores what it makes of them
            value = inputs[0]
            for number, other in enumerate(inputs[1:], start=2):
                copy = self._once(f"{name}_{number}", functools.partial(_copy, operation, f"{name}_{number}"))
                outputs = self._made_of(copy([value.tensor, other.tensor]), operation, (value, other))
                if number < len(inputs):
                    value = self._round(outputs, f"{name}_{number}_range")
        return self._rectified(outputs, chain, name)

    def _one_range(self, operation, inputs, call):
        shared = self._new_range(f"{operation.name}_range")
        tensors = [self._free(value, f"{operation.name}_{number}") for number, value in enumerate(inputs)]
        rounded, step = shared(tensors, addends=[self._addends.get(id(tensor)) for tensor in tensors])
        outputs = self._copy(operation, rounded=False)(rounded)
        return self._note(_Stored(outputs, shared, step))

    # What the rules have in common.

    def _free(self, value, name):
        """The tensor of `value`, ready for another range: a device needs an operation between two."""
        if not value.rounded:
            return value.tensor
        identity = keras.layers.Rescaling(1.0, dtype="float32", name=f"{name}_identity")
        return self._linear(self._once(name, lambda: QuantizedAffine(identity, name=f"{name}_rescaled")), value)

    def _linear(self, layer, value):
        """Call an 8-bit layer."""
        if value.step is None:
            return layer(value.tensor)
        outputs, unit = layer(value.tensor, value.step)
        self._addends[id(outputs)] = [[outputs, unit]]
        return outputs

    def _made_of(self, outputs, operation, inputs):
        """`outputs`, of which is noted how `operation` makes them, unless one of two inputs is a constant."""
        if len(inputs) == 2 and all(value.step is not None for value in inputs):
            (one, step), (other, other_step) = ((value.tensor, value.step) for value in inputs)
            if type(operation).__name__ == "Multiply":
                self._addends[id(outputs)] = [[outputs, step, other_step]]
            else:
                subtracts = type(operation).__name__ == "Subtract"
                unit = self._times(-1.0, other_step, operation.name) if subtracts else other_step
                self._addends[id(outputs)] = [[one, step], [other, unit]]
        return outputs

    def _rectified(self, outputs, chain, name):
        """Store `outputs` with the rectifier of the chain, whose 0 is an end of their range if they have their own."""
        addends = self._addends.get(id(outputs))
        if chain.activation:
            outputs = self._activation(chain.activation, outputs, name)
            if addends and not shares_a_range(self._next(chain.last)):
                self._addends[id(outputs)] = addends
        return self._store(outputs, chain.last, goes_on=chain.goes_on)

    def _chain(self, name, pooling=False):
        """What follows the layer and goes into the same operation: a norm, with `pooling` behind one, a rectifier."""
        chain = _Chain(name)
        operation = self._next(name)
        if pooling and type(operation) in POOLINGS:
            behind = self._next(operation.name)
            if _is_norm(behind) or function_of(behind) in RECTIFIERS:
                chain.pooling, operation = operation, behind
        if pooling and _is_norm(operation):
            chain.norm, chain.last = operation, operation.name
            operation = self._next(operation.name)
        if function_of(operation) in RECTIFIERS:
            chain.activation, chain.last = function_of(operation), operation.name
        behind = self._next(chain.last)
        while type(behind) in IDENTITIES:
            behind = self._next(behind.name)
        chain.goes_on = not chain.activation and function_of(behind) in RECTIFIERS
        taken = [chain.pooling, chain.norm, operation if chain.activation else None]
        self._absorbed |= {each.name for each in taken if each is not None}
        return chain

    def _next(self, name):
        """The only operation that takes the outputs of `name`, if both are called once and not skipped."""
        consumers = self._consumers(name)
        if len(consumers) != 1 or name in self._outputs:
            return None
        if len(self._sources[name]) != 1 or len(self._sources[consumers[0]]) != 1:
            return None
        operation = self._operations[consumers[0]]
        known = not self._is_skipped(operation) and not has_graph(operation) and self._rule(operation)
        return operation if known else None

    def _is_shared(self, name):
        return self._shared or len(self._sources[name]) > 1

    def _consumers(self, name):
        return [user for user, nodes in self._sources.items() for node in nodes for each in node if each == name]

    def _input(self, tensor):
        """What stands for `tensor` as an argument: an input of the model is rounded before its first use."""
        if not isinstance(tensor, keras.KerasTensor) or id(tensor) in self._stored:
            return tensor
        if self._nested:
            return self._note(_Stored(tensor))
        rounded = self._made.get(tensor.name)
        if rounded is None:
            rounded = self._made[tensor.name] = self._round(tensor, f"{tensor.name}_range").tensor
        return rounded

    def _store(self, tensor, name, limits=None, goes_on=False):
        """Round what a device stores as the outputs of layer `name`."""
        following = self._next(name)
        if goes_on or (limits is None and following is not None and shares_a_range(following)):
            return self._note(_Stored(tensor, rounded=False))  # but later
        before_softmax = limits is None and function_of(following) == "softmax"
        return self._round(tensor, name if name in self._outputs else f"{name}_range", limits, before_softmax).tensor

    def _round(self, tensor, name, limits=None, before_softmax=False):
        before_softmax = before_softmax and tensor.shape[-1] > 1
        layer = self._new_range(name, limits, before_softmax)
        addends = self._addends.get(id(tensor))
        rounded, step = layer(tensor) if addends is None else layer(tensor, addends=[addends])
        self._note(_Stored(rounded, layer, step))
        return self._stored[id(rounded)]

    def _new_range(self, name, limits=None, before_softmax=False):
        count = self._ranges[name] = self._ranges.get(name, 0) + 1
        is_probability = limits is not None and name in self._outputs
        full_name = name if count == 1 else f"{name}_{count}"
        return QuantizedRange(
            limits=limits, inference_only=is_probability, before_softmax=before_softmax, name=full_name
        )

    def _note(self, stored):
        self._stored[id(stored.tensor)] = stored
        return stored.tensor

    def _copy(self, operation, rounded=True):
        """The copy of an operation; the name of an output goes to the rounding, if its outputs are `rounded`."""

        def make():
            renamed = rounded and operation.name in self._outputs
            copy = _copy(operation, f"{operation.name}_float" if renamed else None)
            if isinstance(operation, keras.Layer):
                self._weights.append((copy, operation.get_weights()))
            return copy

        return self._once(operation.name, make)

    def _times(self, factor, step, name):
        name = f"{name}_unit"
        return self._once(name, lambda: keras.layers.Rescaling(factor, dtype="float32", name=name))(step)

    def _activation(self, function, x, name):
        name = f"{name}_{function}"
        form = hard_silu if function == "hard_silu" else function
        return self._once(name, lambda: keras.layers.Activation(form, dtype="float32", name=name))(x)

    def _once(self, name, make):
        """What `make` made for the layer `name`, also when it is called again."""
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]

    def _is_skipped(self, operation):
        return any(fnmatchcase(operation.name, pattern) for pattern in self._skip)


def _is_norm(operation):
    return type(operation) is keras.layers.BatchNormalization and quantized_affine.fits(operation)


def _copy(operation, name=None):
    """A new layer or operation with the config of `operation`, which computes in float32."""
    config = operation.get_config()
    if isinstance(operation, keras.Layer):
        config["dtype"] = "float32"
    return type(operation).from_config({**config, "name": name or operation.name})
