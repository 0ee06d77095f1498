"""The settings by which layers save the regularizers of their weights."""

import keras

from keras_opt.core.all_layers import all_layers
from keras_opt.models.graph import graph_layers
from keras_opt.models.regularized_weights import RegularizedWeight

_ATTENTION = (keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention)


def let_layers_save(model: keras.Model, weights: list[RegularizedWeight], regularizer: keras.Regularizer) -> None:
    """Set `regularizer` in the settings of the layers that made `weights`, where they have one for it."""
    chosen = {id(weight.variable) for weight in weights}
    for weight in weights:
        if weight.setting is not None:
            setattr(weight.layer, weight.setting, regularizer)
    for layer in all_layers(model):
        if isinstance(layer, _ATTENTION):
            for name in ("kernel", "bias"):
                of_this_name = [each for each in layer.weights if each.name == name]
                if of_this_name and all(id(each) in chosen for each in of_this_name):
                    setattr(layer, _attention_setting(layer, name), regularizer)


def unsaved(model: keras.Model, weights: list[RegularizedWeight], regularizer: keras.Regularizer) -> list[str]:
    """The paths of those `weights` to which a layer made from the config of theirs would not give `regularizer`."""
    try:
        layers = graph_layers(model)
    except NotImplementedError:  # a layer has no config: the model cannot be saved
        return []
    saved = set()
    for layer in layers:
        of_layer = [weight for weight in weights if any(weight.variable is each for each in layer.weights)]
        if all(weight.layer is layer for weight in of_layer):
            config = layer.get_config() if of_layer else {}
            saved |= {id(weight.variable) for weight in of_layer if weight.setting and config.get(weight.setting)}
        else:
            pairs = zip(layer.weights, _weights_of_a_copy(layer), strict=False)
            saved |= {id(variable) for variable, copy in pairs if _is_alike(copy.regularizer, regularizer)}
    return [weight.variable.path for weight in weights if id(weight.variable) not in saved]


def _is_alike(one: keras.Regularizer | None, other: keras.Regularizer) -> bool:
    return type(one) is type(other) and one.get_config() == other.get_config()


def _weights_of_a_copy(layer: keras.Layer) -> list[keras.Variable]:
    """The weights of a layer made from the config of `layer`, none where that fails: loading would fail too."""
    try:
        copy = type(layer).from_config(layer.get_config())
        copy.build_from_config(layer.get_build_config())
    except (AttributeError, KeyError, NotImplementedError, TypeError, ValueError):
        return []
    return copy.weights


def _attention_setting(layer: keras.Layer, name: str) -> str:
    """MultiHeadAttention has no public name for its setting.

    `tests/contract/test_keras_canary.py` fails, with the Keras version, when it moves.
    """
    public = f"{name}_regularizer"
    return public if hasattr(layer, public) else f"_{public}"
