"""Weight decay for kernels alone."""

import warnings

import keras

from keras_opt.core.all_layers import all_layers
from keras_opt.core.errors import NoEffectWarning, argument_error
from keras_opt.core.optimizers import inner, parts

_NORMS = (
    keras.layers.BatchNormalization,
    keras.layers.GroupNormalization,
    keras.layers.LayerNormalization,
    keras.layers.RMSNormalization,
)
_NAMES = ("bias", "beta", "gamma")
_STATISTICS = ("moving_mean", "moving_variance")


def exclude_norm_and_bias_from_decay(optimizer: keras.optimizers.Optimizer, model: keras.Model) -> list[str]:
    """Tells `optimizer` to decay the kernels of `model`, and neither its norms nor its biases.

    Keras's `weight_decay` shrinks every trainable weight. Kernels are what it is for: a bias or beta that is pulled to
    zero only shifts the outputs, and a gamma that is pulled to zero switches its channel off.

    Excluded are the weights of Batch-, Group-, Layer- and RMSNormalization, and of any layer those named bias, beta or
    gamma; frozen ones too, which may be unfrozen later. Keras takes exclusions before the optimizer is built, that is
    before the first `fit`; this one replaces those made before; and no file stores them. To train a loaded model on,
    load it with `compile=False` and compile it with an optimizer that this was called on.

    Args:
        optimizer: A Keras optimizer that was not used yet, with a `weight_decay`. In a loss-scaling or multi-part
            optimizer the ones within are meant.
        model: A built model, or one that starts with `keras.Input`.

    Returns:
        The paths of the excluded weights.

    Raises:
        ValueError: `optimizer` is no Keras optimizer or is built already, or `model` has no weights yet.

    Warns:
        NoEffectWarning: The optimizer has no weight decay, or the model no norm and no bias.

    Source: T. He et al., 2019, "Bag of Tricks for Image Classification with Convolutional Neural Networks", section
        3.1; P. Goyal et al., 2017, "Accurate, Large Minibatch SGD", section 5.1.

    Example:
        >>> import keras, keras_opt
        >>> model = keras_opt.models.mlp([8], (4,), 3)
        >>> optimizer = keras.optimizers.AdamW(1e-3, weight_decay=0.05)
        >>> keras_opt.models.exclude_norm_and_bias_from_decay(optimizer, model)
        ['norm1/gamma', 'norm1/beta', 'classifier/bias']
        >>> model.compile(optimizer, "sparse_categorical_crossentropy")
    """
    owner = "exclude_norm_and_bias_from_decay"
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        cure = "Give the optimizer object that goes to compile, for example keras.optimizers.AdamW(1e-3)."
        raise argument_error(owner, "optimizer", optimizer, "a Keras optimizer", cure)
    if not isinstance(model, keras.Layer) or not model.weights:
        cure = "Build it: start it with keras.Input, or call it on a batch."
        raise argument_error(owner, "model", model, "a built Keras model", cure)
    optimizers = parts(inner(optimizer)) if hasattr(inner(optimizer), "optimizers") else [inner(optimizer)]
    if not optimizers:
        cure = "Make the MultiOptimizer with an OptimizerMap, not with a function."
        raise argument_error(owner, "optimizer", optimizer, "one that knows its parts before it is built", cure)
    if any(each.built for each in (optimizer, *optimizers)):
        cure = "Call this on a new optimizer, and compile the model with that one."
        raise argument_error(owner, "optimizer", optimizer, "one that was not used yet", cure)
    excluded = _norms_and_biases(model)
    if not excluded:
        _warn(f"model {model.name!r} has no norm and no bias among its {len(model.weights)} weights")
    if not any(each.weight_decay for each in optimizers):
        _warn(f"{type(inner(optimizer)).__name__} has no weight_decay")
    for each in optimizers:
        each.exclude_from_weight_decay(var_list=excluded)
    return [variable.path for variable in excluded]


def _norms_and_biases(model):
    found = {}
    for layer in all_layers(model):
        for variable in layer.weights:
            if variable.name in _NAMES or (isinstance(layer, _NORMS) and variable.name not in _STATISTICS):
                found[id(variable)] = variable
    return list(found.values())


def _warn(what):
    warnings.warn(f"exclude_norm_and_bias_from_decay: {what}; nothing changes.", NoEffectWarning, stacklevel=3)
