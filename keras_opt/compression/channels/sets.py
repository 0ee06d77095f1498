"""Channels by number: which of them must go together, and which must stay."""

from dataclasses import dataclass

import numpy as np

Labels = np.ndarray  # the numbers of the channels along one axis of a tensor or weight; a number may stand there twice


@dataclass(frozen=True)
class ChannelGroup:
    """Channels of which a fraction is kept.

    Args:
        units: Arrays of channels, each of which stays or goes as a whole.
        stays: Whether they stay in any case, because the model's inputs or outputs show them.
        refusal: Why none of them can go, or `None`.
    """

    units: tuple[Labels, ...]
    stays: bool
    refusal: str | None

    @property
    def labels(self) -> Labels:
        return np.concatenate(self.units)


class ChannelSets:
    """Hands out numbers for channels and remembers what is known of them.

    A unit is a set of channels that are tied: they stay or go together. The channels of one call of `new` are a
    family, of which some must always stay. Units that have channels of the same families make a group; as each group
    keeps a unit, each family keeps a channel.
    """

    def __init__(self) -> None:
        self._parents: list[int] = []
        self._families: list[int] = []
        self._kept: list[tuple[Labels, str | None]] = []
        self._shown: list[tuple[Labels, Labels]] = []
        self._count = 0

    def __len__(self) -> int:
        return len(self._parents)

    def new(self, size: int) -> Labels:
        """A family of `size` channels."""
        labels = np.arange(len(self), len(self) + size)
        self._parents.extend(labels.tolist())
        self._families.extend([self._count] * size)
        self._count += 1
        return labels

    def tie(self, one: Labels, other: Labels) -> None:
        """Each channel of `one` and that of `other` in its place stay or go together."""
        for first, second in zip(one.tolist(), other.tolist(), strict=True):
            self._parents[self._root(first)] = self._root(second)

    def tie_all(self, labels: Labels) -> None:
        """All these channels stay or go together."""
        self.tie(labels[1:], labels[:-1])

    def keep(self, labels: Labels, refusal: str | None = None) -> None:
        """These channels stay: to ask for less is refused for this reason, or with `None` it is no fault."""
        self._kept.append((labels, refusal))

    def show(self, labels: Labels, through: Labels) -> None:
        """If `through`, made of `labels`, turns out to be an output of the model, `labels` count as outputs too."""
        self._shown.append((labels, through))

    def groups(self) -> list[ChannelGroup]:
        """All channels, in groups."""
        roots = [self._root(label) for label in range(len(self))]
        units: dict[int, list[int]] = {}
        for label, root in enumerate(roots):
            units.setdefault(root, []).append(label)
        groups: dict[frozenset[int], list[int]] = {}
        for root, unit in units.items():
            groups.setdefault(frozenset(self._families[label] for label in unit), []).append(root)
        stays, refusals = self._stays(), {}
        for labels, refusal in self._kept:
            refusals |= {} if refusal is None else {self._root(label): refusal for label in labels.tolist()}
        return [
            ChannelGroup(
                tuple(np.array(units[root]) for root in members),
                not stays.isdisjoint(members),
                next((refusals[root] for root in members if root in refusals), None),
            )
            for members in groups.values()
        ]

    def _stays(self) -> set[int]:
        stays = {self._root(label) for labels, refusal in self._kept if refusal is None for label in labels.tolist()}
        for labels, through in reversed(self._shown):
            if any(self._root(label) in stays for label in through.tolist()):
                stays |= {self._root(label) for label in labels.tolist()}
        return stays

    def _root(self, label: int) -> int:
        while self._parents[label] != label:
            self._parents[label] = self._parents[self._parents[label]]
            label = self._parents[label]
        return label
