"""Variables that go from one device to another.

Keras has no public way to move one. So `move` sets `_value`, the `tf.Variable` within a `keras.Variable`, and the new
one's `_unique_id`, by which optimizers know the number of a variable and whether it decays (`_var_key`).
`tests/contract/test_keras_canary.py` fails, with the Keras version, when they move.
"""

import keras
import tensorflow as tf


def device_of(variable: keras.Variable) -> str:
    """Where `variable` lies, such as `"GPU:0"`."""
    return variable.value.device.rpartition("device:")[2]


def move(variable: keras.Variable, device: str) -> None:
    """Let `variable` lie on `device`, with its value; what was traced with it before still means the old one.

    An optimizer goes on with it as with the old one, be it built already or not.

    Raises:
        RuntimeError: TensorFlow has put it elsewhere.
    """
    if device_of(variable) == device:
        return
    with tf.init_scope(), tf.device(device):
        old = variable._value
        variable._value = tf.Variable(
            old,
            dtype=old.dtype,
            trainable=old.trainable,
            name=variable.name,
            aggregation=old.aggregation,
            synchronization=old.synchronization,
        )
        variable._value._unique_id = old._unique_id
    if device_of(variable) != device:
        raise RuntimeError(f"place: `{variable.path}` was to lie on {device}, and lies on {device_of(variable)}.")


def build_slots(model: keras.Model) -> None:
    """Let what the optimizer of `model` keeps for each variable lie beside it.

    Built here, an optimizer puts each slot there by itself; built in the trace of the first step, as Keras does it, it
    leaves all on the first device. One that was built before has slots that must move. Keras names a slot by the path
    of its variable and by what it is.
    """
    optimizer = model.optimizer
    if optimizer is None:
        return
    if not optimizer.built:
        optimizer.build(model.trainable_variables)
    homes = {variable.path.replace("/", "_") + "_": variable for variable in model.trainable_variables}
    for slot in optimizer.variables:
        prefixes = [prefix for prefix in homes if slot.name.startswith(prefix)]
        if prefixes:
            move(slot, device_of(homes[max(prefixes, key=len)]))
