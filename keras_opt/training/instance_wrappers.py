"""Wrappers of methods, hung on instances and taken off again."""

from collections.abc import Callable
from typing import Any


class InstanceWrappers:
    """Methods of instances that are replaced for a while: by instance attributes, so that no class is touched."""

    def __init__(self):
        self._on: list[tuple[Any, str, Callable[..., Any], Callable[..., Any] | None]] = []

    def __bool__(self) -> bool:
        return bool(self._on)

    def put_on(self, owner: Any, method: str, wrapper: Callable[..., Any]) -> None:
        """Let `owner.method` be `wrapper` from now on."""
        # Past `__setattr__`: Keras's tracker must not take what the wrapper is bound to for a part of the owner.
        self._on.append((owner, method, wrapper, vars(owner).get(method)))
        vars(owner)[method] = wrapper

    def wrapper_of(self, owner: Any, method: str) -> Callable[..., Any] | None:
        """What stands in for `owner.method`, if anything does."""
        return next((wrapper for one, name, wrapper, _ in self._on if one is owner and name == method), None)

    def take_off(self) -> None:
        """Give every owner its method back, unless somebody has put his own in the wrapper's place meanwhile.

        An interrupt may break it off anywhere; calling it again finishes.
        """
        while self._on:
            owner, method, wrapper, before = self._on[-1]
            if vars(owner).get(method) is wrapper:
                if before is None:
                    del vars(owner)[method]
                else:
                    vars(owner)[method] = before
            self._on.pop()
