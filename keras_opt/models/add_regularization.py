"""L1 and L2 penalties on the weights of a model that is built already."""

from collections.abc import Sequence

import keras

from keras_opt.core.errors import InputError, argument_error, check_at_least, check_patterns
from keras_opt.models.regularization import Penalty, Regularization
from keras_opt.models.regularized_weights import ALL_TRAINABLE, KERNELS, weights_that_fit, weights_to_regularize

_REPLACED = (Penalty, keras.regularizers.L1, keras.regularizers.L2, keras.regularizers.L1L2)


def add_regularization(
    model: keras.Model,
    l1: float = 0.0,
    l2: float = 0.0,
    include: str | Sequence[str] = KERNELS,
    exclude: Sequence[str] = (),
) -> Regularization:
    """Adds L1 and L2 penalties to the weights of a built or loaded model, at once.

        loss = loss of the data + sum over the chosen weights w that train of  l1 * sum(|w|) + l2 * sum(w^2)

    In Keras a `kernel_regularizer` that is set on a built layer does nothing, and one that is set on its kernel is not
    saved. This sets both, and a compiled model traces its next step anew: give the model that trains, not one inside
    of it. The saved file has the stock `keras.regularizers.L1L2` and opens in plain Keras.

    With Adam an L2 penalty is not weight decay (its gradient is divided by the root of the second moment); there prefer
    AdamW and `exclude_norm_and_bias_from_decay`. L1 makes weights small, not exactly zero; for zeros use
    `PruneLowMagnitude`.

    The History gains `regularization_loss`, the penalty of all regularized weights of the model after the last step of
    the epoch; that of a loaded model lacks it until this is called again. `evaluate` returns what it did, and so does
    `train_on_batch` without `return_dict`; as always their loss has the penalty in it.

    Args:
        model: A built model, compiled or not. The layers of nested models are meant too.
        l1: Float of at least 0.
        l2: Float of at least 0. To match SGD's `weight_decay` give half of it.
        include: `"kernels"`, the weights named `kernel` or `..._kernel`, and no bias, norm or embedding;
            `"all_trainable"`, every weight that trains now; or patterns (as in `fnmatch`) of layers, by name or path,
            whose kernels are meant, or of weights by path, such as `"*/embeddings"`.
        exclude: Patterns of layers or weights to leave alone.

    Returns:
        A `Regularization` with the paths of the `weights`, and with `l1` and `l2`, which can be set at any time. So any
        callback makes a schedule of it, with nothing traced again:

            class Rise(keras.callbacks.Callback):
                def on_epoch_begin(self, epoch, logs=None):
                    penalty.l2 = 1e-5 * epoch

    A second call replaces the L1 and L2 regularizers of the weights that it chooses: it changes their strength. With
    `l1` and `l2` both 0 it takes the penalty off; nothing is penalised then until one of them is set, as where a
    schedule begins. What is frozen costs nothing until it trains.

    Raises:
        ValueError: An argument is out of its range, the model has no weights yet, no weight or not every pattern fits,
            or a weight has a regularizer of another kind.

    Warns:
        UserWarning: Weights whose layer has no setting to save their regularizer in, as in a layer or model of your
            own, or has one for several weights, as in attention: it acts, and is lost when the model is saved.

    Cost: in each step two reductions of every chosen weight, and two more for the logs.

    Source: I. Loshchilov and F. Hutter, 2019, "Decoupled Weight Decay Regularization" (L2 against weight decay).

    Example:
        >>> import keras_opt
        >>> model = keras_opt.models.mlp([8], (4,), 3)
        >>> keras_opt.models.add_regularization(model, l2=1e-4, exclude=["classifier"]).weights
        ['dense1/kernel']
    """
    owner = "add_regularization"
    if not isinstance(model, keras.Model) or not model.weights:
        cure = "Build it: start it with keras.Input, or call it on a batch."
        raise argument_error(owner, "model", model, "a built Keras model", cure)
    for name, value in (("l1", l1), ("l2", l2)):
        check_at_least(owner, name, value, 0, whole=False)
    check_patterns(owner, "exclude", exclude)
    if include not in (KERNELS, ALL_TRAINABLE):
        if isinstance(include, str):
            cure = f"Give [{include!r}] for a pattern."
            raise argument_error(owner, "include", include, f"{KERNELS!r}, {ALL_TRAINABLE!r} or patterns", cure)
        check_patterns(owner, "include", include)
    named = [] if isinstance(include, str) else [("include", pattern) for pattern in include]
    for name, pattern in [*named, *(("exclude", pattern) for pattern in exclude)]:
        if not weights_that_fit(model, [pattern]):
            present = ", ".join(weight.path for weight in model.weights)
            cure = f"The weights are {present}."
            raise argument_error(owner, name, pattern, "patterns that fit layers with weights, or weights", cure)
    chosen = weights_to_regularize(model, include, exclude)
    if not chosen:
        present = ", ".join(weight.path for weight in model.weights)
        raise InputError(f"{owner}: no weight fits include={include!r} and exclude={exclude!r}. There are: {present}.")
    for weight in chosen:
        present = weight.variable.regularizer
        if present is not None and not isinstance(present, _REPLACED):
            kind = type(present).__name__
            raise InputError(f"{owner}: {weight.variable.path!r} has a {kind} already. Leave it out by `exclude`.")
    return Regularization(model, chosen, l1, l2)
