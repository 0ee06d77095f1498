"""What stateful layers carry from batch to batch."""

import keras

from keras_opt.core.all_layers import all_layers


def layer_states(model: keras.Model) -> list[keras.Variable]:
    """The states of stateful RNNs, once built. Keras leaves them out of the variables of a model."""
    states = [layer.states for layer in all_layers(model) if getattr(layer, "stateful", False)]
    return [state for state in keras.tree.flatten(states) if state is not None]
