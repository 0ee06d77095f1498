"""Dropout rates of a model that is built already."""

from collections.abc import Mapping
from fnmatch import fnmatchcase

import keras

from keras_opt.core.all_layers import all_layers
from keras_opt.core.errors import InputError, argument_error, check_fraction, did_you_mean, is_number, kind_error
from keras_opt.models.batch_norms import trace_anew


def set_dropout(model: keras.Model, rates: Mapping[str, float]) -> None:
    """Sets the rates of the dropout layers of a built or loaded model; its weights stay.

    In Keras a rate that is set on a layer does nothing in a model that was trained before, whose step is traced
    already, and a layer that was made with rate 0 fails with any other, because it has no generator of random numbers.
    Here the rate acts at once, in the middle of `fit` too, and is what the model saves. Give the model that trains, not
    one inside of it: only the steps of `model` are traced anew.

    Meant are all layers with a `rate`: Dropout, SpatialDropout, GaussianDropout and AlphaDropout, also inside of nested
    models and of TimeDistributed, and keras_opt's DropBlock and StochasticDepth. The `dropout` of an RNN or attention
    layer is an argument of that layer, and stays; so does the rate of ScheduledDropout, which follows its schedule.

    Args:
        model: A Keras model, compiled or not.
        rates: From patterns (as in `fnmatch`) of layers by name to rates in [0, 1). Where several fit a layer, the
            last counts.

    Raises:
        ValueError: A rate is out of its range, or a pattern fits no layer whose rate can be set.

    Cost: the next step is traced anew.

    Example:
        >>> import keras_opt
        >>> model = keras_opt.models.mlp([8, 8], (4,), 3, dropout=[0.1, 0.5])
        >>> keras_opt.models.set_dropout(model, {"dropout*": 0.2, "dropout2": 0.3})
        >>> [model.get_layer(name).rate for name in ("dropout1", "dropout2")]
        [0.2, 0.3]
    """
    if not isinstance(model, keras.Layer):
        raise argument_error("set_dropout", "model", model, "a Keras model", "Load or build one with keras.")
    if not isinstance(rates, Mapping) or not rates or not all(isinstance(pattern, str) for pattern in rates):
        raise kind_error("set_dropout", "rates", rates, "a dict from patterns to rates", 'Give {"dropout*": 0.3}.')
    for pattern, rate in rates.items():
        check_fraction("set_dropout", f"rates[{pattern!r}]", rate)
    chosen = {}
    for pattern, rate in rates.items():
        for layer in _layers_with_a_rate(model, pattern):
            chosen[layer] = rate
    for layer, rate in chosen.items():
        layer.rate = float(rate)
        if rate and isinstance(layer, _WITHOUT_GENERATOR_AT_0) and not hasattr(layer, "seed_generator"):
            _give_generator(layer)
    trace_anew(model)


def _layers_with_a_rate(model: keras.Layer, pattern: str) -> list[keras.Layer]:
    layers = all_layers(model)
    inside = {id(each) for layer in layers if isinstance(layer, _WITH_THEIR_OWN) for each in all_layers(layer)}
    present = [layer for layer in layers if _has_rate(layer) and id(layer) not in inside]
    named = [layer for layer in layers if fnmatchcase(layer.name, pattern)]
    fitting = [layer for layer in present if layer in named]
    if fitting:
        return fitting
    of_their_own = [
        layer.name
        for layer in named
        if hasattr(layer, "rate_schedule") or any(id(each) in inside for each in all_layers(layer))
    ]
    if of_their_own:
        raise InputError(
            f"set_dropout: pattern {pattern!r} fits only `{of_their_own[0]}`, which takes its dropout when it is made "
            "and keeps it. Build the model anew with the dropout you want, and give it the weights by set_weights."
        )
    names = [layer.name for layer in present]
    must_be = f"patterns of layers with a rate, which are {', '.join(names) or 'none'}"
    raise argument_error("set_dropout", "rates", pattern, must_be, did_you_mean(pattern, names))


_WITHOUT_GENERATOR_AT_0 = (keras.layers.AlphaDropout, keras.layers.Dropout, keras.layers.GaussianDropout)
_WITH_THEIR_OWN = (keras.layers.RNN, keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention)


def _has_rate(layer):
    return not isinstance(getattr(type(layer), "rate", None), property) and is_number(getattr(layer, "rate", None))


def _give_generator(layer: keras.Layer) -> None:
    """Give `layer` the generator that Keras's dropouts make only for a rate above 0.

    A built layer takes no new state. Keras unlocks its own by `_tracker`, for which it has no public name;
    `tests/contract/test_keras_canary.py` fails, with the Keras version, when it moves.
    """
    layer._tracker.unlock()
    try:
        layer.seed_generator = keras.random.SeedGenerator(layer.seed)
    finally:
        layer._tracker.lock()
