"""The random generators of the process."""

import random
from typing import Any

import keras
import numpy as np

_NAME_IN_KERAS = "global_seed_generator"


def state_of_generators() -> dict[str, Any]:
    """Where Python's, NumPy's and Keras's global generators are, in lists, numbers and arrays.

    Keras's is what `keras.random` draws from where it gets no seed. TensorFlow's own has no state that could be read.
    """
    generator = _keras_generator()
    drawn = None if generator is None else keras.ops.convert_to_tensor(generator.state).numpy().copy()
    return {"python": random.getstate(), "numpy": list(np.random.get_state()), "keras": drawn}


def put_generators_back(state: dict[str, Any]) -> None:
    """Let the generators go on from where `state_of_generators` found them."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    np.random.set_state(tuple(state["numpy"]))
    if state["keras"] is None:
        keras.src.backend.common.global_state.set_global_attribute(_NAME_IN_KERAS, None)
        return
    if _keras_generator() is None:
        generator = keras.random.SeedGenerator(0)
        keras.src.backend.common.global_state.set_global_attribute(_NAME_IN_KERAS, generator)
    _keras_generator().state.assign(state["keras"])


def _keras_generator() -> keras.random.SeedGenerator | None:
    """Keras's global generator, once something has drawn from it.

    Keras has no public name for it; `tests/contract/test_keras_canary.py` fails, with the Keras version, when it moves.
    """
    return keras.src.backend.common.global_state.get_global_attribute(_NAME_IN_KERAS)
