"""Doing something in every n-th update of the compiled step."""

from collections.abc import Callable

import tensorflow as tf


def every_nth(counter: tf.Variable, every: int, act: Callable[[], None]) -> None:
    """Call `act` in the first update and in every `every`-th after it; the others do not pay for it.

    Args:
        counter: A `core.replicas.replica_variable` of int64: the updates so far. One is added to it.
        every: Int of at least 1.
        act: What must not communicate between replicas.
    """
    if every == 1:
        act()
    else:
        tf.cond(tf.equal(counter % every, 0), act, _nothing)
    counter.assign_add(1)


def _nothing() -> None:
    """The branch of an update that is passed over."""
