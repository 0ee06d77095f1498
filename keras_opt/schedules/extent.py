"""How many updates show the whole shape of a schedule."""

import functools
from typing import Any, NamedTuple

from keras.optimizers import schedules

PERIODS_SHOWN = 5


class Extent(NamedTuple):
    """The updates that show a schedule's shape, and whether its rate stays as it is after them."""

    steps: int
    ends: bool

    def after(self, steps: int) -> "Extent":
        """The same, `steps` updates later."""
        return Extent(self.steps + steps, self.ends)


@functools.singledispatch
def extent(schedule: Any) -> Extent | None:
    """The extent of a schedule; `None` for one of a class that nobody registered here."""
    return None


def periodic(steps: int) -> Extent:
    """The extent of a schedule that never ends and changes by `steps`."""
    return Extent(PERIODS_SHOWN * int(steps), ends=False)


@extent.register(float)
@extent.register(int)
def _constant(rate: float) -> Extent:
    return Extent(1, ends=False)


@extent.register(schedules.ExponentialDecay)
@extent.register(schedules.InverseTimeDecay)
def _decay(schedule: Any) -> Extent:
    return periodic(schedule.decay_steps)


@extent.register
def _restarts(schedule: schedules.CosineDecayRestarts) -> Extent:
    return periodic(schedule.first_decay_steps)


@extent.register
def _pieces(schedule: schedules.PiecewiseConstantDecay) -> Extent:
    return Extent(int(1.25 * schedule.boundaries[-1]) + 2, ends=False)


@extent.register
def _polynomial(schedule: schedules.PolynomialDecay) -> Extent:
    return periodic(schedule.decay_steps) if schedule.cycle else Extent(int(schedule.decay_steps), ends=True)


@extent.register
def _cosine(schedule: schedules.CosineDecay) -> Extent:
    warmup_steps = 0 if schedule.warmup_target is None else schedule.warmup_steps
    return Extent(int(schedule.decay_steps + warmup_steps), ends=True)
