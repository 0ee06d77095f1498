"""Second names of arguments, for those who come from a function that called them so."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

from keras_opt.core.errors import InputError, did_you_mean

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def also_called(
    cures: Mapping[str, str] | None = None, /, **aliases: str
) -> Callable[[Callable[Parameters, Result]], Callable[..., Result]]:
    """A decorator: `also_called(target_size="image_size")` lets `image_size` be given as `target_size` too.

    Args:
        cures: What to do instead, in a sentence, by the names of arguments that only the other functions have.
        aliases: Names of arguments by their second names.

    Raises:
        InputError: By the decorated function, when an argument is given by both names.
        TypeError: By it, when there is no argument of a name; its message tells the cure, the closest one, or all.
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
            for name in options.keys() - signature.parameters.keys():
                cure = (cures or {}).get(name) or did_you_mean(name, [*signature.parameters, *aliases])
                raise TypeError(f"{function.__name__}: unexpected argument `{name}`. {cure}")
            return function(*args, **options)

        return renamed

    return decorate
