"""What a criterion of early stopping is, and how criteria combine with `&` and `|`."""

import copy
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import keras

from keras_opt.core.errors import argument_error


class Criterion(Protocol):
    """What `EarlyStopping` asks of a criterion. To be resumed it also needs `state_dict` and `load_state_dict`."""

    reason: str
    """One readable sentence on why it holds; empty while it does not."""

    def reset(self) -> None:
        """Forget what was seen; called when training begins."""

    def update(self, epoch: int, logs: dict[str, Any]) -> bool:
        """Look at the logs of an ended epoch (counted from 0); say whether the criterion holds now."""


C = TypeVar("C", bound=type)


def combinable(cls: C) -> C:
    """Give a criterion class `&` and `|`, and refuse `and` and `or`, which would drop one side without a word."""

    def refuse(self):
        raise TypeError(
            f"{type(self).__name__} has no truth value: combine criteria with & or |, not with `and`, `or`, `not`."
        )

    cls.__and__ = lambda self, other: Both(self, other)
    cls.__or__ = lambda self, other: Either(self, other)
    cls.__bool__ = refuse
    return cls


def single_criterion(*state: str) -> Callable[[C], C]:
    """Make a class that has `get_config` a criterion: combinable, serialisable, readable, and able to be resumed.

    Args:
        *state: The attributes that change while training, each a number, a text, `None` or a list of them.
    """

    def decorate(cls: C) -> C:
        def state_dict(self) -> dict[str, Any]:
            return {name.lstrip("_"): copy.copy(getattr(self, name)) for name in state}

        def load_state_dict(self, saved: dict[str, Any]) -> None:
            for name in state:
                setattr(self, name, copy.copy(saved[name.lstrip("_")]))

        def represent(self) -> str:
            return f"{cls.__name__}({', '.join(f'{name}={value!r}' for name, value in self.get_config().items())})"

        cls.state_dict = state_dict
        cls.load_state_dict = load_state_dict
        cls.from_config = classmethod(lambda cls, config: cls(**config))
        cls.__repr__ = represent
        return keras.saving.register_keras_serializable("keras_opt")(combinable(cls))

    return decorate


class _Pair:
    """Two criteria and what they say together."""

    needed: int
    word: str

    def __init__(self, first: Criterion, second: Criterion):
        for name, criterion in (("first", first), ("second", second)):
            if not is_criterion(criterion):
                cure = "Combine criteria such as Plateau and Target."
                raise argument_error(type(self).__name__, name, criterion, "a criterion", cure)
        self.first = first
        self.second = second
        self.reason = ""

    def reset(self) -> None:
        self.first.reset()
        self.second.reset()
        self.reason = ""

    def update(self, epoch: int, logs: dict[str, Any]) -> bool:
        # Every single criterion is asked each time, for each keeps its own count; and once, however often it is used.
        for leaf in leaves(self):
            leaf.update(epoch, logs)
        return holds(self)

    def combine(self) -> None:
        """Say together what the two said last."""
        holding = [part for part in (self.first, self.second) if holds(part)]
        self.reason = " and ".join(part.reason for part in holding) if len(holding) >= self.needed else ""

    def get_config(self) -> dict[str, Any]:
        return {
            "first": keras.saving.serialize_keras_object(self.first),
            "second": keras.saving.serialize_keras_object(self.second),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "_Pair":
        return cls(**{name: keras.saving.deserialize_keras_object(part) for name, part in config.items()})

    def __repr__(self) -> str:
        return f"({self.first!r} {self.word} {self.second!r})"


@keras.saving.register_keras_serializable("keras_opt")
@combinable
class Both(_Pair):
    """Holds when both criteria hold at the same check; made by `&`."""

    needed = 2
    word = "&"


@keras.saving.register_keras_serializable("keras_opt")
@combinable
class Either(_Pair):
    """Holds when one criterion holds; made by `|`."""

    needed = 1
    word = "|"


def is_criterion(value: object) -> bool:
    """Whether `value` has what `EarlyStopping` asks of a criterion."""
    return all(hasattr(value, name) for name in ("reason", "reset", "update"))


def holds(criterion: Criterion) -> bool:
    """Whether a criterion holds, by what its single criteria said when they were asked last."""
    if isinstance(criterion, _Pair):
        criterion.combine()
    return criterion.reason != ""


def leaves(criterion: Criterion) -> list[Any]:
    """The single criteria of a combination in reading order, each once."""
    if not isinstance(criterion, _Pair):
        return [criterion]
    used = leaves(criterion.first) + leaves(criterion.second)
    return list({id(leaf): leaf for leaf in used}.values())


def states_of(criteria: list[Any]) -> list[dict[str, Any]]:
    """The states of single criteria with their kinds, for `load_states`."""
    for criterion in criteria:
        if not hasattr(criterion, "state_dict") or not hasattr(criterion, "load_state_dict"):
            raise TypeError(
                f"EarlyStopping: the criterion {type(criterion).__name__} cannot be resumed. Give it `state_dict` and "
                "`load_state_dict`."
            )
    return [{"kind": type(criterion).__name__, "state": criterion.state_dict()} for criterion in criteria]


def load_states(criteria: list[Any], states: list[dict[str, Any]]) -> None:
    """Let single criteria go on where `states_of` was called.

    Raises:
        ValueError: The states are those of other criteria.
    """
    kinds, saved_kinds = [type(criterion).__name__ for criterion in criteria], [saved["kind"] for saved in states]
    if kinds != saved_kinds:
        cure = "Resume with the EarlyStopping that the training was begun with."
        raise argument_error("EarlyStopping", "state", saved_kinds, f"a state of {kinds}", cure)
    for criterion, saved in zip(criteria, states, strict=True):
        criterion.load_state_dict(saved["state"])
