"""A picture of any schedule."""

from typing import Any

import keras
import numpy as np

from keras_opt.core.axes import plot_axes
from keras_opt.core.errors import argument_error, check_at_least
from keras_opt.schedules.extent import extent

POINTS = 500


def plot(schedule: keras.optimizers.schedules.LearningRateSchedule, steps: int | None = None, ax: Any = None) -> Any:
    """Draws the rate over the updates and returns the Matplotlib axes.

    It takes any schedule: `plot(CosineDecay(...))`. The schedules of keras_opt have it as a method, too:
    `OneCycle(...).plot()`. To compare several, hand the axes on: `plot(second, ax=plot(first))`.

    Args:
        schedule: Any `keras.optimizers.schedules.LearningRateSchedule`.
        steps: Int of at least 1, the updates to draw. Default: to the schedule's end, or five periods where it has
            none; a schedule of your own class needs it.
        ax: Matplotlib axes to draw on. Default: those of a new figure.

    Returns:
        The axes.

    Raises:
        ValueError: `steps` is below 1, or missing for a schedule of an unknown class.
        ImportError: Matplotlib is missing.

    Cost: one call of the schedule for each of at most 500 points.

    Example:
        >>> from keras_opt import schedules
        >>> ax = schedules.plot(schedules.CosineDecay(0.1, decay_steps=1000))
        >>> ax.get_ylabel()
        'learning rate'
    """
    if steps is None:
        known = extent(schedule)
        if known is None:
            cure = f"keras_opt does not know how long a {type(schedule).__name__} is: say how many updates to draw."
            raise argument_error("plot", "steps", steps, "given here", cure)
        steps = known.steps
    check_at_least("plot", "steps", steps, 1)
    drawn = np.unique(np.linspace(0, steps - 1, POINTS).round().astype(np.int64))
    rates = [float(keras.ops.convert_to_numpy(schedule(step))) for step in drawn]
    name = getattr(schedule, "name", None) or type(schedule).__name__
    ax = plot_axes(ax, title="Learning rate", xlabel="update", ylabel="learning rate")
    ax.plot(drawn, rates, label=name)
    ax.legend(fontsize="small")
    return ax
