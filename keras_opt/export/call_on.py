"""A call of a model on the tensors of its inputs."""

from collections.abc import Sequence
from typing import Any

import keras


def call_on(model: keras.Model, inputs: Sequence[Any]) -> Any:
    """Call `model`, for inference, on one tensor for each of its inputs, in their order."""
    given = inputs[0] if len(inputs) == 1 else keras.tree.pack_sequence_as(model.input, list(inputs))
    return model(given, training=False)
