"""Schedules one after the other."""

import itertools
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_opt.core.errors import argument_error, check_at_least
from keras_opt.schedules.extent import Extent, extent
from keras_opt.schedules.nested import LearningRateSchedule, as_schedule, from_config, rate_at, to_config
from keras_opt.schedules.plot import plot


@keras.saving.register_keras_serializable("keras_opt")
class JoinedSchedule(LearningRateSchedule):
    """Follows one schedule until a boundary, then the next from its own step 0.

    For training in phases: a head alone at a high rate, then all layers on a cosine. For a linear rise before one
    schedule, `WarmUp` is shorter.

        rate(t) = schedules[i](t - boundaries[i - 1])     for boundaries[i - 1] <= t < boundaries[i]

    with 0 as the boundary before the first; the last schedule goes on for ever.

    Args:
        schedules: Two or more: each any `LearningRateSchedule`, Keras's included, or a float above 0, a constant rate.
        boundaries: Ints of at least 1, each above the one before, one fewer than schedules: the updates at which the
            second and each later schedule begins, counted from the start of training.
        name: Name of the schedule.

    Raises:
        ValueError: A schedule is none, the boundaries do not rise, or their number does not fit.

    Cost: none that can be measured; each schedule is computed at each step, a few scalar operations.

    Source: as `optax.join_schedules` and `torch.optim.lr_scheduler.SequentialLR`.

    Example:
        >>> from keras_opt.schedules import CosineDecay, JoinedSchedule
        >>> schedule = JoinedSchedule([0.01, CosineDecay(0.1, decay_steps=1000)], boundaries=[200])
        >>> [round(float(schedule(step)), 3) for step in (0, 199, 200, 700, 1200)]
        [0.01, 0.01, 0.1, 0.05, 0.0]
    """

    plot = plot

    def __init__(
        self,
        schedules: Sequence[LearningRateSchedule | float],
        boundaries: Sequence[int],
        name: str = "JoinedSchedule",
    ):
        super().__init__()
        schedules = _listed("schedules", schedules)
        self.schedules = [as_schedule("JoinedSchedule", "schedules", schedule) for schedule in schedules]
        boundaries = _listed("boundaries", boundaries)
        for boundary in boundaries:
            check_at_least("JoinedSchedule", "boundaries", boundary, 1)
        self.boundaries = [int(boundary) for boundary in boundaries]
        if len(self.schedules) < 2:
            cure = "Use a single one without JoinedSchedule."
            raise argument_error("JoinedSchedule", "schedules", schedules, "two schedules or more", cure)
        if len(self.boundaries) != len(self.schedules) - 1:
            must_be = f"{len(self.schedules) - 1} for {len(self.schedules)} schedules"
            cure = "Give the update at which the second and each later schedule begins."
            raise argument_error("JoinedSchedule", "boundaries", boundaries, must_be, cure)
        if any(second <= first for first, second in itertools.pairwise(self.boundaries)):
            cure = "Count each from the start of training."
            raise argument_error("JoinedSchedule", "boundaries", boundaries, "rising", cure)
        self.name = name

    def __call__(self, step: Any) -> Any:
        """The rate at `step` (an int or scalar tensor), as a scalar tensor."""
        step = ops.convert_to_tensor(step)
        rate = rate_at(self.schedules[0], step)
        for schedule, boundary in zip(self.schedules[1:], self.boundaries, strict=True):
            later = rate_at(schedule, ops.maximum(step - boundary, 0))
            rate = ops.where(step < boundary, rate, later)
        return rate

    def get_config(self) -> dict[str, Any]:
        return {
            "schedules": [to_config(schedule) for schedule in self.schedules],
            "boundaries": self.boundaries,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "JoinedSchedule":
        return cls(**{**config, "schedules": [from_config(schedule) for schedule in config["schedules"]]})


def _listed(name: str, values: Any) -> list[Any]:
    try:
        return list(values)
    except TypeError:
        raise argument_error("JoinedSchedule", name, values, "a list", "Write it in [ ].") from None


@extent.register
def _extent(schedule: JoinedSchedule) -> Extent | None:
    last = extent(schedule.schedules[-1])
    return last and last.after(schedule.boundaries[-1])
