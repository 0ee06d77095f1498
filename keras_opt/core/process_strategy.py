"""The `tf.distribute` strategy of the process, as `keras_opt.distribute.strategy` has made it."""

from typing import Any

_ours: list[Any] = []


def set_ours(strategy: Any) -> None:
    """Let `strategy` be the one of the process; `None` for none."""
    _ours[:] = [] if strategy is None else [strategy]


def ours() -> Any:
    """The one of the process; `None` if it has none."""
    return _ours[0] if _ours else None


def is_ours(strategy: Any) -> bool:
    """Whether `strategy` is the one of the process, under which what Keras does wrong is repaired."""
    return strategy is not None and strategy is ours()
