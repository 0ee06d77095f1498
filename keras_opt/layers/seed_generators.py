"""A layer's generator of seeds, and its state in the model's file: Keras leaves that out."""

import zlib
from collections.abc import Mapping, MutableMapping
from typing import Any

import keras

from keras_opt.core.errors import check_at_least

_ENTRY = "seed_generator_state"


def seed_generator(owner: str, seed: int | None) -> keras.random.SeedGenerator:
    """The generator of a layer of the class `owner`; raises its error unless `seed` is an int of at least 0 or None.

    Layers of two classes draw independently from one `seed`, else the place of a crop would tell the rotation after it.
    """
    if seed is not None:
        check_at_least(owner, "seed", seed, 0)
    return keras.random.SeedGenerator(seed if seed is None else int(seed) + zlib.crc32(owner.encode()))


def save_seed(generator: keras.random.SeedGenerator, store: MutableMapping[str, Any]) -> None:
    """Add the generator's state to what a layer saves."""
    store[_ENTRY] = generator.state


def load_seed(generator: keras.random.SeedGenerator, store: Mapping[str, Any]) -> dict[str, Any]:
    """Give the generator its saved state, if there is one; return what else the layer has saved, for Keras to load.

    The weights of a model that had another layer in this place have no such state: the generator stays where it is.
    """
    others = {name: store[name] for name in store.keys() if name != _ENTRY}  # noqa: SIM118 (Keras's entry is no dict)
    if _ENTRY in store.keys():  # noqa: SIM118
        generator.state.assign(store[_ENTRY])
    return others


def saves_its_seed(layer_class: type[keras.layers.Layer]) -> type[keras.layers.Layer]:
    """Let the layers of a class save the state of their `seed_generator` with their own variables."""

    def save_own_variables(self, store: MutableMapping[str, Any]) -> None:
        super(layer_class, self).save_own_variables(store)
        save_seed(self.seed_generator, store)

    def load_own_variables(self, store: Mapping[str, Any]) -> None:
        super(layer_class, self).load_own_variables(load_seed(self.seed_generator, store))

    layer_class.save_own_variables = save_own_variables
    layer_class.load_own_variables = load_own_variables
    return layer_class
