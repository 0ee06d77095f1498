"""The class names of several models, which must be the same in the same order."""

from collections.abc import Iterable, Sequence

import keras

from keras_opt.core.errors import InputError


def class_names_of(model: keras.Model) -> tuple[str, ...]:
    """What `keras_opt.load_model` or the user has set; empty where nobody has."""
    return tuple(getattr(model, "class_names", None) or ())


def common_class_names(owner: str, argument: str, found: Iterable[tuple[str, Sequence[str]]]) -> tuple[str, ...]:
    """The class names of all that have some; empty if none has.

    Args:
        owner: The public function that received the models.
        argument: The name of that argument.
        found: What a message calls each model, and its class names.

    Raises:
        ValueError: Two differ: a mean over them would mix up their classes.
    """
    named = [(label, tuple(names)) for label, names in found if names]
    if not named:
        return ()
    first, names = named[0]
    for label, other in named:
        if other != names:
            raise InputError(
                f"{owner}: argument `{argument}` must be models of the same classes in the same order. Received: "
                f"{first} has class_names {names}, {label} has {other}. Train them on the same folders."
            )
    return names
