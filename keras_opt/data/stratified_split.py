"""A split of labelled examples in two that keeps the share of every class."""

from collections.abc import Sequence

import numpy as np

from keras_opt.core.errors import InputError, argument_error, is_number


def class_counts(labels: np.ndarray, class_names: Sequence[str]) -> dict[str, int]:
    """Count the examples of every class, in the order of `class_names`; a class without any counts 0."""
    return dict(zip(class_names, np.bincount(labels, minlength=len(class_names)).tolist(), strict=True))


def check_class_counts(labels: np.ndarray, parts: int, class_names: Sequence[str] | None = None) -> None:
    """Raise unless every class has an example for each of `parts` parts (train, validation, test: 3).

    Call it with the full number of parts before the first of several splits, so that the error gives the user's count.

    Raises:
        InputError: The first class that has fewer, with its count.
    """
    names = class_names or _names(labels)
    for name, count in class_counts(labels, names).items():
        if count < parts:
            raise InputError(
                f"Class '{name}' has {count} image{'' if count == 1 else 's'}, but the split needs at least {parts}, "
                f"one for each part. Add images to the class, remove the class, or ask for fewer parts."
            )


def stratified_split(
    labels: np.ndarray,
    held_out: float | int,
    seed: int | None,
    class_names: Sequence[str] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Split the positions of `labels` in a kept and a held-out part, every class in the same proportion.

    Rounding goes by the largest remainder, so the parts have the exact sizes asked for as long as each class
    can have an example in each part. Both parts come in shuffled order.

    Args:
        labels: Whole class numbers from 0, shape (n,).
        held_out: The fraction in (0, 1), or the number of examples, to hold out.
        seed: Of `numpy.random.default_rng`; the same seed gives the same split.
        class_names: Names for the error; the class numbers by default.

    Returns:
        `(kept, held)`: int64 positions, disjoint, together all of `range(n)`.

    Raises:
        InputError: `held_out` is out of range, or a class has fewer than two examples.

    Example:
        >>> kept, held = stratified_split(np.array([0, 0, 0, 0, 1, 1]), held_out=1 / 3, seed=0)
        >>> len(kept), len(held)
        (4, 2)
    """
    labels = np.asarray(labels)
    counts = np.bincount(labels)
    check_class_counts(labels, 2, class_names)
    held_counts = _apportion(_held_total(held_out, counts), counts)
    generator = np.random.default_rng(seed)
    kept, held = [], []
    for label, held_count in enumerate(held_counts):
        members = generator.permutation(np.flatnonzero(labels == label))
        held.append(members[:held_count])
        kept.append(members[held_count:])
    return generator.permutation(np.concatenate(kept)), generator.permutation(np.concatenate(held))


def _held_total(held_out, counts):
    """The number of examples to hold out: as asked for a count, within reach of every class for a fraction."""
    fewest, most = len(counts), counts.sum() - len(counts)
    if isinstance(held_out, int | np.integer) and not isinstance(held_out, bool):
        if fewest <= held_out <= most:
            return int(held_out)
        limits = f"between {fewest} and {most}, so that each of {len(counts)} classes has an example in both parts"
        raise argument_error("stratified_split", "held_out", held_out, limits, "Give a number in that range.")
    if is_number(held_out) and 0 < held_out < 1:
        return min(max(round(held_out * counts.sum()), fewest), most)
    raise argument_error(
        "stratified_split", "held_out", held_out, "a fraction in (0, 1) or a count", "Give for example 0.2."
    )


def _apportion(total, counts):
    """Share `total` among the classes by largest remainder, with at least one of each class on both sides."""
    exact = total * counts / counts.sum()
    shares = np.clip(np.floor(exact).astype(int), 1, counts - 1)
    while shares.sum() < total:
        shares[np.argmax(np.where(shares < counts - 1, exact - shares, -np.inf))] += 1
    while shares.sum() > total:
        shares[np.argmin(np.where(shares > 1, exact - shares, np.inf))] -= 1
    return shares


def _names(labels):
    return [str(label) for label in range(int(np.max(labels)) + 1)]
