"""When gradients are to be warned of: the criteria, and who met them first."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

NOT_FINITE = "are not finite"
VANISH = "vanish"
EXPLODE = "explode"

CURES = {
    NOT_FINITE: "Look for NaN in the data and log(0) in the loss, lower the learning rate, or clip.",
    VANISH: "Little is learned there: try other activations (relu), normalization or skip connections.",
    EXPLODE: "Lower the learning rate, or clip; suggest_clipnorm() gives a limit.",
}

VANISHING_SHARE = 1e-5
EXPLODING_FACTOR = 1e3
REFERENCE_UPDATES = 20

# A condition is met when it has held in so many of so many recorded updates.
NEEDED = {NOT_FINITE: (1, 1), VANISH: (15, 20), EXPLODE: (5, 5)}

ALL_LAYERS = "all layers together"


class Finding(NamedTuple):
    """A layer that met a condition, and the number of the update that settled it."""

    condition: str
    layer: str
    step: int


def vanishing(norms: np.ndarray) -> np.ndarray:
    """Where a layer's norm is at most 1e-5 of the largest finite one of its update; so too where all of them are 0.

    What is small against the other layers of the same update is told, not what is small as such: near a minimum all
    gradients are.

    Args:
        norms: (updates, layers).
    """
    largest = np.where(np.isfinite(norms), norms, 0).max(axis=1, keepdims=True)
    return norms <= VANISHING_SHARE * largest


def exploding(norms: np.ndarray, reference: float) -> np.ndarray:
    """Where a layer's norm is finite and above 1000 times `reference`.

    The reference is one of all layers together: a layer that starts near zero, as behind a zero-initialised scale, may
    grow by any factor in a healthy training.

    Args:
        norms: (updates, layers).
        reference: The median global norm of the first 20 recorded updates.
    """
    return np.isfinite(norms) & (norms > EXPLODING_FACTOR * reference)


def rolling_counts(holds: np.ndarray, before: np.ndarray) -> np.ndarray:
    """In how many of the last `window` updates a condition has held, at each update.

    Args:
        holds: Bools, (updates,).
        before: Those of the `window - 1` updates before.
    """
    counts = np.cumsum(np.concatenate([[False], before, holds]))
    window = len(before) + 1
    return counts[window:] - counts[:-window]


class GradientWatch:
    """Looks at the norms of one fit, block by block, and reports each condition once for each layer.

    Not finite: at once. Vanish: when it has held in 15 of the last 20 recorded updates; single batches have next to no
    gradient anywhere. Explode: after 5 in a row, but not among the first 20 with a finite norm above 0, whose median is
    the reference.
    """

    def __init__(self):
        self._first: list[float] = []
        self._last: dict[tuple[str, str], np.ndarray] = {}
        self._reported: set[tuple[str, str]] = set()

    def look(
        self, steps: np.ndarray, layers: Sequence[str], norms: np.ndarray, global_norms: np.ndarray
    ) -> list[Finding]:
        """What is new in these updates.

        Args:
            steps: Numbers of the updates, (updates,), at least one.
            layers: Names; if there are none, the global norms are looked at.
            norms: (updates, layers).
            global_norms: (updates,).
        """
        if not layers:
            layers, norms = (ALL_LAYERS,), global_norms[:, None]
        found = self._met(NOT_FINITE, ~np.isfinite(norms), steps, layers)
        found += self._met(VANISH, vanishing(norms), steps, layers)
        begin = self._learn_reference(global_norms)
        if begin < len(steps):
            explodes = exploding(norms[begin:], float(np.median(self._first)))
            found += self._met(EXPLODE, explodes, steps[begin:], layers)
        return found

    def state_dict(self) -> dict[str, Any]:
        """All that it has seen and reported."""
        return {
            "first": list(self._first),
            "last": [[condition, layer, held] for (condition, layer), held in self._last.items()],
            "reported": [list(pair) for pair in sorted(self._reported)],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on looking where `state_dict` was called."""
        self._first = list(state["first"])
        self._last = {(condition, layer): held for condition, layer, held in state["last"]}
        self._reported = {(condition, layer) for condition, layer in state["reported"]}

    def _learn_reference(self, global_norms: np.ndarray) -> int:
        """Take what is missing of the first norms; say from which of the updates on the reference is known."""
        usable = np.flatnonzero(np.isfinite(global_norms) & (global_norms > 0))
        taken = usable[: REFERENCE_UPDATES - len(self._first)]
        self._first += global_norms[taken].tolist()
        if len(self._first) < REFERENCE_UPDATES:
            return len(global_norms)
        return int(taken[-1]) + 1 if len(taken) else 0

    def _met(self, condition: str, holds: np.ndarray, steps: np.ndarray, layers: Sequence[str]) -> list[Finding]:
        needed, window = NEEDED[condition]
        found = []
        for layer, column in zip(layers, holds.T, strict=True):
            last = self._last.get((condition, layer), np.zeros(window - 1, bool))
            met = np.flatnonzero(rolling_counts(column, last) >= needed)
            self._last[condition, layer] = np.concatenate([last, column])[len(column) :]
            if len(met) and (condition, layer) not in self._reported:
                self._reported.add((condition, layer))
                found.append(Finding(condition, layer, int(steps[met[0]])))
        return found
