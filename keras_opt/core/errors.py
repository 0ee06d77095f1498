"""Errors that name what was received and how to mend it, and the checks that raise them."""

import difflib
import math
import numbers
import os
from collections.abc import Iterable, Sequence


class InputError(ValueError):
    """Something the user gave cannot be used; the message names it and the cure."""


class NoEffectWarning(UserWarning):
    """A callback or tool found nothing to act on; says what was searched and what was there."""


def argument_error(owner: str, name: str, value: object, must_be: str, cure: str) -> InputError:
    """Build the package's one form of argument error.

    Args:
        owner: The public class or function that received the argument.
        name: The argument's name.
        value: What was received.
        must_be: The constraint, as it reads after "must be".
        cure: One sentence on how to mend it.
    """
    return InputError(_message(owner, name, value, must_be, cure))


def kind_error(owner: str, name: str, value: object, must_be: str, cure: str) -> TypeError:
    """Build the same error for a value of the wrong kind; see `argument_error`."""
    return TypeError(_message(owner, name, value, must_be, cure))


def _message(owner: str, name: str, value: object, must_be: str, cure: str) -> str:
    return f"{owner}: argument `{name}` must be {must_be}. Received: {name}={value!r}. {cure}"


def check_name(owner: str, name: str, value: object) -> None:
    """Raise unless `value` can be a name in the logs."""
    if not isinstance(value, str):
        raise kind_error(owner, name, value, "a name in the logs", 'Give for example "val_loss".')
    if not value:
        raise argument_error(owner, name, value, "a name in the logs", 'Give for example "val_loss".')


def check_path(owner: str, name: str, value: object) -> None:
    """Raise unless `value` is a path."""
    if not isinstance(value, str | os.PathLike):
        raise kind_error(owner, name, value, "a str or a pathlib.Path", "Give a path.")


def check_patterns(owner: str, name: str, value: object) -> None:
    """Raise unless `value` is a sequence of patterns, and not one pattern."""
    must_be = "a sequence of patterns"
    if isinstance(value, str):
        raise argument_error(owner, name, value, must_be, f"Give [{value!r}].")
    if not isinstance(value, Sequence) or not all(isinstance(pattern, str) for pattern in value):
        raise kind_error(owner, name, value, must_be, 'Give for example ["head", "block_*"].')


def check_choice(owner: str, name: str, value: object, choices: Iterable[object]) -> None:
    """Raise unless `value` is one of `choices`; the error names the closest one."""
    choices = list(choices)
    if value in choices:
        return
    raise argument_error(
        owner, name, value, f"one of {', '.join(repr(c) for c in choices)}", did_you_mean(value, choices)
    )


def check_fraction(owner: str, name: str, value: object, *, one_allowed: bool = False) -> None:
    """Raise unless `value` is a number in [0, 1), or in [0, 1] with `one_allowed`."""
    if is_number(value) and (0 <= value < 1 or (one_allowed and value == 1)):
        return
    interval = "[0, 1]" if one_allowed else "[0, 1)"
    raise argument_error(owner, name, value, f"a fraction in {interval}", "Give a fraction, not a percentage.")


def check_at_least(owner: str, name: str, value: object, minimum: float, *, whole: bool = True) -> None:
    """Raise unless `value` is a finite number (an int with `whole`) of at least `minimum`."""
    kind_fits = isinstance(value, numbers.Integral) and not isinstance(value, bool) if whole else is_number(value)
    if kind_fits and value >= minimum:
        return
    kind = "an integer" if whole else "a finite number"
    raise argument_error(owner, name, value, f"{kind} of at least {minimum}", f"Give {minimum} or more.")


def check_positive(owner: str, name: str, value: object) -> None:
    """Raise unless `value` is a finite number above zero."""
    if is_number(value) and value > 0:
        return
    raise argument_error(owner, name, value, "a finite number above 0", "Give a positive number.")


def is_number(value: object) -> bool:
    """Whether `value` is a finite int or float (NumPy scalars included, bool excluded)."""
    if isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except (TypeError, OverflowError):
        return False


def did_you_mean(value: object, choices: Iterable[object]) -> str:
    """A sentence that names the choice closest to `value`, or lists all of them."""
    names = [str(choice) for choice in choices]
    close = difflib.get_close_matches(str(value), names, n=1)
    if close:
        return f"Did you mean {close[0]!r}?"
    return f"Choose from {', '.join(names)}." if names else "There is nothing to choose from."
