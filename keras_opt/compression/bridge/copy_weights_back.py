"""The weights of a trained tf_keras model, back in the Keras 3 model that it was made from."""

from typing import Any

import keras

from keras_opt.compression.bridge.agreement import check_same_outputs
from keras_opt.compression.bridge.origins import origin_of
from keras_opt.compression.bridge.tf_keras_import import tf_keras
from keras_opt.compression.bridge.tf_keras_models import has_wrapper, without_wrappers
from keras_opt.compression.bridge.tf_keras_weights import copy_back
from keras_opt.core.errors import InputError, kind_error
from keras_opt.models.graph import functional, has_graph


def copy_weights_back(model: Any) -> keras.Model:
    """Puts the weights of a tf_keras model into the Keras 3 model that it was made from, and returns that.

    For a model of `to_tf_keras`, `tfmot_prune`, `tfmot_cluster` or `tfmot_quantize` after its training: the wrappers of
    TF-MOT are taken off on the way, so pruned weights arrive as zeros, and clustered ones as few values. Then the
    outputs of both are compared. After quantization-aware training the float weights come back without their ranges,
    and no outputs are compared: to ship that model, export the wrapped one.

    Args:
        model: A tf_keras model that one of those functions has returned in this process; it is left as it is.

    Returns:
        The Keras 3 model that was given to that function, with the new weights.

    Raises:
        ValueError: `model` was not made from a Keras 3 model; or TF-MOT has split a layer, which is named.
        TypeError: `model` is no tf_keras model.

    Example:
        >>> import keras
        >>> from keras_opt.compression import copy_weights_back, to_tf_keras
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        >>> copy_weights_back(to_tf_keras(model)) is model
        True
    """
    if not isinstance(model, tf_keras().Model):
        cure = "Give what to_tf_keras, tfmot_prune, tfmot_cluster or tfmot_quantize has returned."
        raise kind_error("copy_weights_back", "model", model, "a tf_keras model", cure)
    origin = origin_of(model)
    if origin is None:
        raise InputError(
            f"copy_weights_back: {model.name!r} was not made from a Keras 3 model in this process. Give what "
            "to_tf_keras, tfmot_prune, tfmot_cluster or tfmot_quantize has returned; a file that was loaded has lost "
            "its origin."
        )
    stripped = without_wrappers(model)
    _copy(origin, stripped)
    if not has_wrapper(stripped, "QuantizeWrapperV2"):
        check_same_outputs("copy_weights_back", origin, stripped)
    return origin


def _copy(origin: keras.Model, trained: Any) -> None:
    """Copy by the names of layers, into nested models too."""
    twins = {_name(layer): layer for layer in trained.layers}
    for layer in functional(origin).layers:
        twin = twins.get(layer.name)
        if twin is None and layer.weights:
            raise InputError(
                f"copy_weights_back: TF-MOT has put other layers in the place of `{layer.name}` "
                f"({type(layer).__name__}). Export the wrapped model instead."
            )
        if has_graph(layer):
            _copy(layer, twin)
        elif layer.weights:
            copy_back(layer, _variables(twin))


def _name(layer: Any) -> str:
    return layer.layer.name if type(layer).__name__ == "QuantizeWrapperV2" else layer.name


def _variables(twin: Any) -> list[Any]:
    """Those of the layer itself, not those of a wrapper: the variables of a layer bear its name."""
    if type(twin).__name__ != "QuantizeWrapperV2":
        return twin.weights
    return [variable for variable in twin.weights if variable.name.startswith(f"{twin.layer.name}/")]
