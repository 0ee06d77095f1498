"""The cyclical learning rate of TensorFlow Addons."""

import math
import warnings
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_opt.core.errors import argument_error, check_at_least, check_choice, check_positive, did_you_mean, is_number
from keras_opt.schedules.extent import Extent, extent, periodic
from keras_opt.schedules.plot import plot
from keras_opt.schedules.precision import as_rate, as_whole

SCALES = ("triangular", "triangular2", "exp_range")
MODES = ("cycle", "iterations")


@keras.saving.register_keras_serializable("keras_opt")
class CyclicalLearningRate(keras.optimizers.schedules.LearningRateSchedule):
    """Lets the rate rise and fall between two bounds, again and again.

    The bounds come from a range test, and no decay has to be tuned; each end of a cycle is a good moment to keep a copy
    of the weights, for an ensemble. For a single training run of known length, one cycle (`OneCycle`) does better.

        cycle = floor(1 + t / (2 * step_size))
        x = |t / step_size - 2 * cycle + 1|
        rate(t) = initial_learning_rate + (maximal_learning_rate - initial_learning_rate) * (1 - x) * scale_fn(n)

    where n is `cycle` with `scale_mode="cycle"` and t with `"iterations"`. The names of `scale_fn` are the paper's:

        "triangular"      1               the same cycle for ever
        "triangular2"     2 ^ (1 - n)     each cycle half as high as the one before
        "exp_range"       gamma ^ n       each update (or cycle) `gamma` times as high as the one before

    Arguments and rates are those of `tfa.optimizers.CyclicalLearningRate`; its three subclasses are the three names.

    Args:
        initial_learning_rate: Float of at least 0, the rate at the start of each cycle.
        maximal_learning_rate: Float above 0 and at least `initial_learning_rate`, the rate at the middle of the first.
        step_size: Whole number of at least 1, the updates in half a cycle; the paper takes 2 to 10 epochs.
        scale_fn: One of the names above, or a function of n that returns the factor. Default "triangular".
        scale_mode: "cycle" (n counts cycles, from 1) or "iterations" (n counts updates, from 0). Default: "iterations"
            for "exp_range", "cycle" for all else.
        name: Name of the schedule.
        gamma: Float in (0, 1], for "exp_range" only. Default 1.

    Raises:
        ValueError: An argument is out of its range. From `get_config`: `scale_fn` is a function that cannot be saved.

    Warns:
        UserWarning: `scale_fn` is a function that Keras does not know: training works, saving the compiled model does
            not. Take a name instead, or decorate it with `@keras.saving.register_keras_serializable()`.

    Cost: none that can be measured; a few scalar operations a step.

    Source: L. N. Smith, 2017, "Cyclical Learning Rates for Training Neural Networks", section 3.

    Example:
        >>> import keras_opt
        >>> schedule = keras_opt.schedules.CyclicalLearningRate(0.01, 0.05, step_size=100, scale_fn="triangular2")
        >>> [round(float(schedule(step)), 3) for step in (0, 50, 100, 200, 300)]
        [0.01, 0.03, 0.05, 0.01, 0.03]
    """

    plot = plot

    def __init__(
        self,
        initial_learning_rate: float,
        maximal_learning_rate: float,
        step_size: int,
        scale_fn: str | Callable[[Any], Any] = "triangular",
        scale_mode: str | None = None,
        name: str = "CyclicalLearningRate",
        gamma: float = 1.0,
    ):
        super().__init__()
        owner = "CyclicalLearningRate"
        check_at_least(owner, "initial_learning_rate", initial_learning_rate, 0, whole=False)
        check_positive(owner, "maximal_learning_rate", maximal_learning_rate)
        if maximal_learning_rate < initial_learning_rate:
            must_be = f"at least initial_learning_rate={initial_learning_rate!r}"
            raise argument_error(owner, "maximal_learning_rate", maximal_learning_rate, must_be, "Swap the two.")
        if not is_number(step_size) or step_size < 1 or step_size != int(step_size):
            cure = "Give the updates in half a cycle: epochs * steps per epoch."
            raise argument_error(owner, "step_size", step_size, "a whole number of at least 1", cure)
        if scale_fn not in SCALES and not callable(scale_fn):
            cure = (
                f"{did_you_mean(scale_fn, SCALES)} A function in a saved model must be registered before it is loaded."
            )
            raise argument_error(owner, "scale_fn", scale_fn, f"{_NAMES} or a function", cure)
        if scale_mode is not None:
            check_choice(owner, "scale_mode", scale_mode, MODES)
        check_positive(owner, "gamma", gamma)
        if gamma > 1 or (gamma != 1 and scale_fn != "exp_range"):
            must_be = "in (0, 1], and 1 unless scale_fn is 'exp_range'"
            raise argument_error(owner, "gamma", gamma, must_be, 'Take scale_fn="exp_range".')
        self.initial_learning_rate = float(initial_learning_rate)
        self.maximal_learning_rate = float(maximal_learning_rate)
        self.step_size = int(step_size)
        self.scale_fn = scale_fn
        self.scale_mode = scale_mode or ("iterations" if scale_fn == "exp_range" else "cycle")
        self.name = name
        self.gamma = float(gamma)
        if not self._can_be_saved():
            warnings.warn(f"CyclicalLearningRate: {_UNKNOWN}", UserWarning, stacklevel=2)

    def __call__(self, step: Any) -> Any:
        """The rate at `step` (an int or scalar tensor), as a scalar tensor."""
        step = as_whole(step)
        cycle = 1 + ops.floor_divide(step, 2 * self.step_size)
        height = 1.0 - ops.abs(as_rate(ops.mod(step, 2 * self.step_size)) / self.step_size - 1.0)
        scale = self._scale(as_rate(cycle if self.scale_mode == "cycle" else step))
        return self.initial_learning_rate + (self.maximal_learning_rate - self.initial_learning_rate) * height * scale

    def get_config(self) -> dict[str, Any]:
        if not self._can_be_saved():
            must_be = f"{_NAMES} or a registered function to be saved"
            raise argument_error("CyclicalLearningRate", "scale_fn", self.scale_fn, must_be, _UNKNOWN)
        return {
            "initial_learning_rate": self.initial_learning_rate,
            "maximal_learning_rate": self.maximal_learning_rate,
            "step_size": self.step_size,
            "scale_fn": _saved_name(self.scale_fn),
            "scale_mode": self.scale_mode,
            "name": self.name,
            "gamma": self.gamma,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "CyclicalLearningRate":
        scale_fn = config["scale_fn"]
        return cls(**{**config, "scale_fn": keras.saving.get_registered_object(scale_fn) or scale_fn})

    def _can_be_saved(self) -> bool:
        name = _saved_name(self.scale_fn)
        return name in SCALES or keras.saving.get_registered_object(name) is self.scale_fn

    def _scale(self, count: Any) -> Any:
        if callable(self.scale_fn):
            return as_rate(self.scale_fn(count))
        if self.scale_fn == "triangular2":
            return ops.power(as_rate(0.5), count - 1.0)
        return ops.exp(count * math.log(self.gamma))  # a power of a rounded gamma would lose digits with each update


_NAMES = f"one of {', '.join(map(repr, SCALES))}"
_UNKNOWN = (
    "Keras does not know the function `scale_fn`, so a model that is compiled with this schedule cannot be saved. Take "
    "scale_fn='triangular' for 1.0, 'triangular2' for 1 / 2 ** (x - 1), 'exp_range' for gamma ** x; or write a "
    "function and decorate it with @keras.saving.register_keras_serializable()."
)


def _saved_name(scale_fn: Any) -> str:
    """What a config keeps: the name itself, or the one that a function is registered by."""
    if isinstance(scale_fn, str):
        return scale_fn
    return keras.saving.get_registered_name(scale_fn) if hasattr(scale_fn, "__name__") else repr(scale_fn)


@extent.register
def _extent(schedule: CyclicalLearningRate) -> Extent:
    return periodic(schedule.step_size)
