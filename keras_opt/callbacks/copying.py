"""What a copy of a callback is: its settings and its results, ready for a fit of its own."""

import copy
from typing import Any, TypeVar

import keras

C = TypeVar("C", bound=keras.callbacks.Callback)


def copy_without_fit(callback: C, memo: dict[int, Any], *left_behind: str) -> C:
    """What `__deepcopy__` of a callback returns.

    The model of the last fit and the callbacks that stood beside it are shared, not copied: they are none of the
    callback's own, and Keras can copy a model only if it can save it.

    Args:
        callback: It may be in the middle of a fit.
        memo: That of `__deepcopy__`.
        *left_behind: The attributes that belong to the running fit; they are `None` in the copy.
    """
    made = type(callback).__new__(type(callback))
    model = callback.model
    neighbours = [each for value in vars(callback).values() for each in _callbacks_in(value)]
    memo |= {id(each): each for each in (model, *neighbours)} | {id(callback): made}
    own = {name: None if name in left_behind else value for name, value in vars(callback).items()}
    vars(made).update(copy.deepcopy(own, memo))
    return made


def _callbacks_in(value: Any) -> list[keras.callbacks.Callback]:
    return [each for each in value if isinstance(each, keras.callbacks.Callback)] if isinstance(value, list) else []
