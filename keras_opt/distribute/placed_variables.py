"""Variables that go from one device to another.

Keras has no public way to move one. So `move` sets `_value`, the `tf.Variable` within a `keras.Variable`, and
`still_known` mends the optimizer's `_trainable_variables_indices` (`_var_to_optimizer_idx` of a `MultiOptimizer`),
where `_var_key` is the key of a `tf.Variable`. `tests/contract/test_keras_canary.py` fails, with the Keras version,
when they move.
"""

import contextlib
from collections.abc import Iterator

import keras
import tensorflow as tf

from keras_opt.core.optimizers import inner, parts

_INDICES = ("_trainable_variables_indices", "_var_to_optimizer_idx")


def device_of(variable: keras.Variable) -> str:
    """Where `variable` lies, such as `"GPU:0"`."""
    return variable.value.device.rpartition("device:")[2]


def move(variable: keras.Variable, device: str) -> None:
    """Let `variable` lie on `device`, with its value; what was traced with it before still means the old one.

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
    if device_of(variable) != device:
        raise RuntimeError(f"place: `{variable.path}` was to lie on {device}, and lies on {device_of(variable)}.")


@contextlib.contextmanager
def still_known(model: keras.Model) -> Iterator[None]:
    """While variables of `model` move, its optimizer, if it has slots already, goes on with them."""
    optimizer = model.optimizer if model.compiled else None
    if optimizer is None or not optimizer.built:
        yield
        return
    before = {optimizer._var_key(variable): variable for variable in model.variables}
    yield
    for each in (optimizer, inner(optimizer), *parts(inner(optimizer))):
        for name in _INDICES:
            numbers = getattr(each, name, {})
            known = {optimizer._var_key(before[key]) if key in before else key: n for key, n in numbers.items()}
            if known:
                setattr(each, name, known)


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
