"""The `finally` that `fit` lacks, for Ctrl-C."""

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any


class Interrupt:
    """From `arm` to `disarm`, once each, calls a function when a Ctrl-C ends the training.

    Whoever handled SIGINT before is asked first, and still decides: only if that raises, as Python's own handler does,
    is the function called, and the exception goes on. A handler that returns, to stop after the epoch for example, lets
    the training run on as if nothing had been armed. Outside the main thread there are no signals, and it does nothing.

    Args:
        on_interrupt: A function without arguments. It is called wherever the main thread happens to be.
    """

    def __init__(self, on_interrupt: Callable[[], None]):
        self._on_interrupt = on_interrupt
        self._armed = False
        self._previous: Any = None

    def arm(self) -> None:
        """Take SIGINT over, unless it is ignored."""
        self._previous = signal.getsignal(signal.SIGINT)
        if threading.current_thread() is threading.main_thread() and callable(self._previous):
            self._armed = True
            signal.signal(signal.SIGINT, self._handle)

    def disarm(self) -> None:
        """Give SIGINT back, unless somebody has taken it over since; whoever did passes this one by."""
        self._armed = False
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) == self._handle:
            signal.signal(signal.SIGINT, _first_armed(self._previous))
            self._previous = None  # it may hold on to a whole training

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_armed": False, "_previous": None}  # a copy handles no signal

    def _handle(self, number: int, frame: FrameType | None) -> None:
        try:
            self._previous(number, frame)
        except BaseException:
            if self._armed:
                self._on_interrupt()
            raise


def _first_armed(handler: Any) -> Any:
    """The handler that counts when interrupts that were armed one upon the other are disarmed in any order."""
    owner = getattr(handler, "__self__", None)
    if isinstance(owner, Interrupt) and not owner._armed:
        return _first_armed(owner._previous)
    return handler
