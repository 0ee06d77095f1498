"""Second names of arguments, for those who come from a function that called them so."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from keras_opt.core.errors import InputError

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def also_called(**aliases: str) -> Callable[[Callable[Parameters, Result]], Callable[..., Result]]:
    """A decorator: `also_called(target_size="image_size")` lets `image_size` be given as `target_size` too.

    Raises:
        InputError: By the decorated function, when an argument is given by both names.
    """

    def decorate(function: Callable[Parameters, Result]) -> Callable[..., Result]:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def renamed(*args: Any, **options: Any) -> Result:
            for alias in aliases.keys() & options.keys():
                name = aliases[alias]
                value = options.pop(alias)
                given = signature.bind_partial(*args, **{key: options[key] for key in options if key not in aliases})
                if name in given.arguments:
                    raise InputError(
                        f"{function.__name__}: `{alias}` is another name for `{name}`. Received: "
                        f"{name}={given.arguments[name]!r} and {alias}={value!r}. Give one of them."
                    )
                options[name] = value
            return function(*args, **options)

        return renamed

    return decorate
