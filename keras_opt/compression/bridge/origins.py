"""Which Keras 3 model a tf_keras model was made from."""

import weakref
from typing import Any

import keras

# Beside the models, not in them: tf_keras would take the Keras 3 model for a part of its own and save it.
_ORIGINS: "weakref.WeakKeyDictionary[Any, keras.Model]" = weakref.WeakKeyDictionary()


def remember(model: Any, origin: keras.Model) -> None:
    """Let `origin_of(model)` be `origin`, as long as `model` lives."""
    _ORIGINS[model] = origin


def origin_of(model: Any) -> keras.Model | None:
    """The Keras 3 model that a tf_keras model was made from; `None` if it was not."""
    return _ORIGINS.get(model)
