"""Recurrent layers step by step: TensorFlow's int8 calibration crashes its process on a loop."""

from typing import Any

import keras

from keras_opt.core.all_layers import all_layers
from keras_opt.core.clone_layer import clone_layer
from keras_opt.core.errors import argument_error
from keras_opt.core.set_weights import set_weights


def unrolled(owner: str, model: keras.Model) -> keras.Model:
    """`model`, or where it has a recurrent layer a copy whose steps follow one another in the graph, without a loop.

    The file then holds the operations of the layer once for each step, and its weights once.

    Raises:
        InputError: A recurrent layer has no such form (ConvLSTM, a subclass), named.
    """
    recurrent = [layer for layer in all_layers(model) if isinstance(layer, keras.layers.RNN)]
    for layer in recurrent:
        if not layer.unroll and type(layer) not in (*_STEPWISE, keras.layers.SimpleRNN, keras.layers.RNN):
            must_be = f"free of loops that cannot be unrolled for this kind, but {layer.name!r} is one"
            raise argument_error(owner, "model", model, must_be, "Use quantize='dynamic' or 'float16'.")
    if not recurrent:
        return model
    with keras.saving.custom_object_scope({kind.__name__: kind for kind in _STEPWISE.values()}):
        copy = keras.models.clone_model(model, clone_function=_without_loop, recursive=True)
    set_weights(copy, model.get_weights())
    return copy


def _without_loop(layer):
    if isinstance(layer, keras.layers.Bidirectional):
        config = {name: value for name, value in layer.get_config().items() if name not in ("layer", "backward_layer")}
        there, back = _without_loop(layer.forward_layer), _without_loop(layer.backward_layer)
        return keras.layers.Bidirectional(there, backward_layer=back, **config)
    if not isinstance(layer, keras.layers.RNN):
        return clone_layer(layer)
    return _STEPWISE.get(type(layer), type(layer)).from_config({**layer.get_config(), "unroll": True})


class _StepwiseLSTM(keras.layers.LSTM):
    """The same function of the same weights. Each gate has its own products, and the first step has no state:

    Keras's own unrolling splits the gates of a state of zeros, which the converter leaves in float.
    """

    def call(self, sequences: Any, initial_state: Any = None, mask: Any = None, training: bool = False) -> Any:
        if initial_state is not None or mask is not None:
            return super().call(sequences, initial_state, mask, training)
        gate, squash, units = self.recurrent_activation, self.activation, self.units
        recurrent = _by_gate(self.cell.recurrent_kernel, units)
        biases = _by_gate(self.cell.bias, units) if self.use_bias else [None] * 4
        i, f, g, o = _by_gate(self.cell.kernel, units)
        terms = [
            _terms(sequences, part, bias, self.go_backwards, first_too=part is not f)
            for part, bias in zip((i, f, g, o), biases, strict=True)
        ]
        hidden = memory = None
        outputs = []
        for given in zip(*terms, strict=True):
            i, f, g, o = given if hidden is None else _plus_products(given, hidden, recurrent)
            new = gate(i) * squash(g)
            memory = new if memory is None else gate(f) * memory + new
            hidden = gate(o) * squash(memory)
            outputs.append(hidden)
        return _returned(self, outputs, [hidden, memory])


class _StepwiseGRU(keras.layers.GRU):
    """As `_StepwiseLSTM`."""

    def call(self, sequences: Any, initial_state: Any = None, mask: Any = None, training: bool = False) -> Any:
        if initial_state is not None or mask is not None or not self.reset_after or not self.use_bias:
            return super().call(sequences, initial_state, mask, training)
        gate, squash, units = self.recurrent_activation, self.activation, self.units
        recurrent = _by_gate(self.cell.recurrent_kernel, units)
        outer, inner = (_by_gate(self.cell.bias[position], units) for position in (0, 1))
        biases = [outer[0] + inner[0], outer[1] + inner[1], outer[2]]
        terms = [
            _terms(sequences, part, bias, self.go_backwards)
            for part, bias in zip(_by_gate(self.cell.kernel, units), biases, strict=True)
        ]
        hidden = None
        outputs = []
        for z, r, g in zip(*terms, strict=True):
            if hidden is None:
                hidden = (1.0 - gate(z)) * squash(g + gate(r) * inner[2])
            else:
                z, r, from_state = _plus_products([z, r, inner[2]], hidden, recurrent)
                update = gate(z)
                hidden = update * hidden + (1.0 - update) * squash(g + gate(r) * from_state)
            outputs.append(hidden)
        return _returned(self, outputs, [hidden])


_STEPWISE = {keras.layers.LSTM: _StepwiseLSTM, keras.layers.GRU: _StepwiseGRU}


def _by_gate(weights, units):
    return [weights[..., start : start + units] for start in range(0, weights.shape[-1], units)]


def _terms(sequences, kernel, bias, go_backwards, first_too=True):
    """What the input adds to a gate at each step, in their order; the products of all steps are taken at once.

    Without the first step its term is `None`: nothing that no one reads may be in the graph, it would stay in float.
    """
    if not first_too:
        sequences = sequences[:, :-1] if go_backwards else sequences[:, 1:]
    steps = []
    if sequences.shape[1]:
        terms = keras.ops.matmul(sequences, kernel)
        steps = keras.ops.unstack(terms if bias is None else terms + bias, axis=1)
    steps = steps[::-1] if go_backwards else steps
    return steps if first_too else [None, *steps]


def _plus_products(given, hidden, recurrent):
    return [term + keras.ops.matmul(hidden, part) for term, part in zip(given, recurrent, strict=True)]


def _returned(layer, outputs, states):
    output = keras.ops.stack(outputs, axis=1) if layer.return_sequences else outputs[-1]
    return [output, *states] if layer.return_state else output
