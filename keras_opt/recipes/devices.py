"""What a run trains on: the device that its recipe names, or those of a strategy."""

import contextlib
from collections.abc import Iterator

import keras
import tensorflow as tf

from keras_opt.core.errors import InputError, argument_error
from keras_opt.distribute.cluster import find_cluster
from keras_opt.distribute.strategy import strategy
from keras_opt.recipes.recipe import Recipe


def check_devices(recipe: Recipe) -> None:
    """Raise unless the recipe's device, or those of its strategy, are there, before anything is read.

    Raises:
        InputError: They are not, or the strategy would be of several workers.
    """
    if recipe.device is not None:
        _check_device(recipe.device)
    if recipe.strategy == "auto" and (cluster := find_cluster()) is not None:
        raise InputError(
            f"Recipe: strategy='auto' means the {len(cluster.workers)} workers that {cluster.source} names, and a run "
            "is of one process. Take 'mirrored' or 'one'; for workers, give `keras-opt launch` a script that makes its "
            "model in the scope of keras_opt.distribute.strategy()."
        )
    replicas_of(recipe)


def replicas_of(recipe: Recipe) -> int:
    """Into how many shares each batch is split."""
    return 1 if recipe.strategy is None else strategy(recipe.strategy).num_replicas_in_sync


@contextlib.contextmanager
def on_devices(recipe: Recipe) -> Iterator[None]:
    """Make and train models on the recipe's device or under its strategy; where TensorFlow likes, if it has neither."""
    if recipe.strategy is not None:
        place = strategy(recipe.strategy).scope()
    else:
        place = contextlib.nullcontext() if recipe.device is None else keras.device(recipe.device)
    with place:
        yield


def take_turns_on_gpus(process: int | None, device: str | None) -> None:
    """Let several processes train on the GPUs of this machine at once; call it before anything runs on one.

    None takes more memory of a GPU than it needs, where TensorFlow would take all of it; and they take the GPUs in
    turn, unless the recipe names one.

    Args:
        process: Its number, from 0; `None` for the one that only shares out the work, and may use them all.
        device: The recipe's.
    """
    gpus = tf.config.list_physical_devices("GPU")
    with contextlib.suppress(RuntimeError):  # something has run, so that it is settled
        for gpu in gpus:
            tf.config.experimental.set_memory_growth(gpu, True)
        if gpus and process is not None and device is None:
            tf.config.set_visible_devices(gpus[process % len(gpus)], "GPU")


def _check_device(device: str) -> None:
    kind, _, number = device.lower().partition(":")
    present = [device.name.removeprefix("/physical_device:").lower() for device in tf.config.list_physical_devices()]
    if f"{kind}:{number or 0}" not in present:
        cure = "Leave it out to let TensorFlow choose."
        raise argument_error("Recipe", "device", device, f"one of {', '.join(present)}", cure)
