"""A layer made like another one."""

import functools
import tempfile
from typing import Any

import keras


def clone_layer(layer: keras.Operation, **changes: Any) -> keras.Operation:
    """A layer of the config of `layer` but for `changes`, that knows the vocabulary which `layer` has learnt.

    Its weights are new. What was learnt of a text is in no config and not among the weights, and the size of some
    outputs is that of the vocabulary: the clone has it before it is called.
    """
    clone = layer.__class__.from_config(layer.get_config() | changes)
    if hasattr(layer, "save_assets") and hasattr(layer, "load_assets"):
        if not layer.weights:
            variables = {}
            layer.save_own_variables(variables)  # the frequencies of words, which are no weights
            clone.load_own_variables(variables)
        with tempfile.TemporaryDirectory() as folder:
            layer.save_assets(folder)
            clone.load_assets(folder)
    if getattr(layer, "lora_alpha", None) is not None:  # Dense and Embedding (Keras 3.15) enable theirs without it
        clone.enable_lora = functools.partial(clone.enable_lora, lora_alpha=layer.lora_alpha)
    return clone
