"""Which layers make the outputs of a model."""

import keras

from keras_opt.models.graph import calls


def output_layers(model: keras.Model) -> list[keras.Layer]:
    """The layers with weights that make a model's outputs.

    In a Sequential or functional model these are, from each output backwards, the first layers that have weights; a
    nested model is looked into. A subclassed model does not say what it does: its last layer with weights is meant.

    Args:
        model: A built model.

    Raises:
        NotImplementedError: A functional model holds a layer without a config, so its graph cannot be read.
    """
    if getattr(model, "outputs", None) and not isinstance(model, keras.Sequential):
        config = model.get_config()
        if "output_layers" in config:
            names = [leaf for leaf in keras.tree.flatten(config["output_layers"]) if isinstance(leaf, str)]
            return _looked_into(_nearest_with_weights(model, names))
    return _looked_into([layer for layer in model.layers if layer.weights][-1:])


def _nearest_with_weights(model: keras.Model, names: list[str]) -> list[keras.Layer]:
    layers = {layer.name: layer for layer in model.layers}
    sources = calls(model)
    found, seen = [], set()
    while names:
        name = names.pop()
        if name in seen:
            continue
        seen.add(name)
        layer = layers.get(name)  # there is none for an operation such as `x + y`
        if layer is not None and layer.weights:
            found.append(layer)
        else:
            names += [source for call in sources[name] for source in call]
    return found


def _looked_into(layers: list[keras.Layer]) -> list[keras.Layer]:
    return [
        inner for layer in layers for inner in (output_layers(layer) if isinstance(layer, keras.Model) else [layer])
    ]
