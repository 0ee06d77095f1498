"""What the functions around TF-MOT share: the model they take, and the callbacks of the one they give."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import keras

from keras_opt.compression.bridge.for_tf_keras import for_tf_keras
from keras_opt.compression.bridge.origins import origin_of, remember
from keras_opt.compression.bridge.tf_keras_import import tf_keras, tfmot
from keras_opt.compression.bridge.to_tf_keras import to_tf_keras
from keras_opt.core.errors import InputError, kind_error

_KERNELS = ("kernel", "depthwise_kernel", "pointwise_kernel", "recurrent_kernel")


def as_tf_keras(owner: str, model: Any) -> Any:
    """A tf_keras model of one's own with the layers and weights of `model`, which is of either kind of Keras.

    Wrappers of TF-MOT are taken off.
    """
    if isinstance(model, keras.Model):
        return to_tf_keras(model)
    if not isinstance(model, tf_keras().Model):
        cure = "Give a functional or Sequential model of Keras 3 or of tf_keras."
        raise kind_error(owner, "model", model, "a model of Keras 3 or of tf_keras", cure)
    stripped = without_wrappers(model)
    try:
        copy = tf_keras().models.clone_model(stripped)
        copy.set_weights(stripped.get_weights())
    except (ValueError, TypeError, NotImplementedError) as error:
        raise InputError(
            f"{owner}: the tf_keras model {model.name!r} cannot be cloned ({str(error).splitlines()[0]}). Give a "
            "functional or Sequential model without classes of your own."
        ) from error
    if origin_of(model) is not None:
        remember(copy, origin_of(model))
    return copy


def without_wrappers(model: Any) -> Any:
    """`model` without what TF-MOT put around its layers to prune or to cluster; itself if there is nothing."""
    if has_wrapper(model, "PruneLowMagnitude"):
        return tfmot().sparsity.keras.strip_pruning(model)
    if any(has_wrapper(model, kind) for kind in ("ClusterWeights", "ClusterWeightsRNN", "ClusterWeightsMHA")):
        return tfmot().clustering.keras.strip_clustering(model)
    return model


def has_wrapper(model: Any, kind: str) -> bool:
    """Whether a layer of a tf_keras model, or of one nested in it, is TF-MOT's wrapper of this name."""
    return any(
        type(layer).__name__ == kind or (isinstance(layer, tf_keras().Model) and has_wrapper(layer, kind))
        for layer in model.layers
    )


def wrap_layers(model: Any, wrap: Callable[[Any], Any]) -> tuple[Any, list[str]]:
    """A clone of `model` with `wrap(layer)` in place of each layer that has a kernel, in nested models too.

    `wrap` gives `None` for a layer that it must leave alone; the names of those are returned with the model.
    """
    left: list[str] = []

    def clone(layer: Any) -> Any:
        if isinstance(layer, tf_keras().Model):
            return tf_keras().models.clone_model(layer, clone_function=clone)
        if not any(variable.name.split("/")[-1].split(":")[0] in _KERNELS for variable in layer.weights):
            return layer
        wrapped = wrap(layer)
        if wrapped is None:
            left.append(layer.name)
        return layer if wrapped is None else wrapped

    return tf_keras().models.clone_model(model, clone_function=clone), left


def ready_for_fit(model: Any, source: Any, own: Callable[[], list[Any]] = list) -> Any:
    """Let `model.fit` bring the callbacks of `own`, and take those of Keras 3 and keras_opt; remember its origin."""
    fit = model.fit
    signature = inspect.signature(fit)

    @functools.wraps(fit)
    def fit_with_callbacks(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs)
        callbacks = given.arguments.get("callbacks") or []
        callbacks = callbacks if isinstance(callbacks, list | tuple) else [callbacks]
        given.arguments["callbacks"] = [*own(), *for_tf_keras(callbacks)]
        return fit(*given.args, **given.kwargs)

    vars(model)["fit"] = fit_with_callbacks  # past tf_keras's `__setattr__`, which would track it
    if origin_of(source) is not None:
        remember(model, origin_of(source))
    return model
