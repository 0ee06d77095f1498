"""Dropout whose rate follows a schedule."""

from typing import Any

import keras
from keras import ops

from keras_opt.core.errors import argument_error, kind_error
from keras_opt.layers.random_keys import next_key, uniform
from keras_opt.layers.seed_generators import saves_its_seed, seed_generator

LearningRateSchedule = keras.optimizers.schedules.LearningRateSchedule

_PROBED_STEPS = (0, *(2**power for power in range(24)))
_SLACK = 1e-6  # under XLA a schedule that ends at 0 may end just below it


@keras.saving.register_keras_serializable("keras_opt")
@saves_its_seed
class ScheduledDropout(keras.layers.Layer):
    """Drops single values in training at a rate that changes from step to step.

    Two uses are published. Early dropout, a rate that falls to 0 after the first part of the training, lowers the final
    training loss of networks that underfit. A rate that rises from 0 lets the network first learn what it will later
    have to know in several ways (curriculum dropout). Where neither is wanted, `keras.layers.Dropout` says the same
    more simply.

        output = inputs * keep / (1 - rate),   keep ~ Bernoulli(1 - rate) for each value,   rate = rate_schedule(step)

    The step is a variable that the compiled graph reads, so nothing is traced again. Each call in training counts one
    step, inference and `evaluate` none. So under gradient accumulation micro-batches count, and a layer object that is
    used twice in a model counts twice a step: make two layers, they have no weights to share. The step is saved with
    the model, also in `.weights.h5`, so that a resumed training goes on where it was. It is no weight: `get_weights`
    leaves it out, and best weights that are put back leave it as it is.

    Args:
        rate_schedule: Any `keras.optimizers.schedules.LearningRateSchedule`, such as those of `keras_opt.schedules`:
            the rates, fractions in [0, 1), by the step from 0. It is checked at step 0 and the powers of two up to 8
            million; a rate outside the interval at another step makes the outputs NaN.
        noise_shape: As in `keras.layers.Dropout`: a tuple with 1 for each axis along which values are dropped together
            and `None` for the others, or `None` for all on their own.
        seed: Int of at least 0; `None` draws one (after `keras.utils.set_random_seed` always the same one). Give each
            layer another: those of one seed draw alike.

    Input shape: any.

    Output shape: the input's.

    Raises:
        TypeError: `rate_schedule` is no schedule.
        ValueError: A rate of the schedule or `noise_shape` is out of its range.

    Cost: one seed counter, which is the step; a few scalar operations a step more than `keras.layers.Dropout`.

    Source: P. Morerio et al., 2017, "Curriculum Dropout", section 3; Z. Liu et al., 2023, "Dropout Reduces
        Underfitting", section 4 (early and late dropout).

    Example:
        >>> from keras_opt.layers import ScheduledDropout
        >>> from keras_opt.schedules import PolynomialDecay
        >>> early = ScheduledDropout(PolynomialDecay(0.3, decay_steps=2000, end_learning_rate=0.0))
        >>> rising = ScheduledDropout(PolynomialDecay(0.0, decay_steps=2000, end_learning_rate=0.5))
        >>> round(float(early.rate), 2)
        0.3
    """

    def __init__(
        self,
        rate_schedule: LearningRateSchedule,
        noise_shape: tuple[int | None, ...] | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ):
        _check_schedule(rate_schedule)
        _check_noise_shape(noise_shape)
        super().__init__(**kwargs)
        self.rate_schedule = rate_schedule
        self.noise_shape = None if noise_shape is None else tuple(noise_shape)
        self.seed = seed
        self.seed_generator = seed_generator("ScheduledDropout", seed)
        self.supports_masking = True

    def build(self, input_shape: Any) -> None:
        shape = self.noise_shape
        fits = shape is None or len(shape) == len(input_shape)
        if not fits or any(own not in (None, 1, size) for own, size in zip(shape or (), input_shape, strict=False)):
            must_be = f"1, None or the input's own size for each axis of inputs of shape {tuple(input_shape)}"
            raise argument_error("ScheduledDropout", "noise_shape", shape, must_be, "None leaves all on their own.")
        super().build(input_shape)

    @property
    def step(self) -> Any:
        """How often the layer was called in training, an int64 scalar: what its generator counts too."""
        return ops.convert_to_tensor(self.seed_generator.state)[1]

    @property
    def rate(self) -> Any:
        """The rate of the next call in training, a float32 scalar."""
        return ops.cast(self.rate_schedule(self.step), "float32")

    def call(self, inputs: Any, training: bool = False) -> Any:
        if not training:
            return inputs
        rate = self.rate
        rate = ops.where(ops.logical_and(rate > -_SLACK, rate < 1), ops.maximum(rate, 0), float("nan"))
        shape = ops.shape(inputs)
        if self.noise_shape is not None:
            shape = [size if own is None else own for own, size in zip(self.noise_shape, shape, strict=True)]
        dropped = uniform(next_key(self.seed_generator), shape) < rate
        return ops.where(dropped, 0, inputs * ops.cast(1 / (1 - rate), inputs.dtype))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        schedule = keras.saving.serialize_keras_object(self.rate_schedule)
        return {**super().get_config(), "rate_schedule": schedule, "noise_shape": self.noise_shape, "seed": self.seed}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "ScheduledDropout":
        return cls(**{**config, "rate_schedule": keras.saving.deserialize_keras_object(config["rate_schedule"])})


def _check_schedule(schedule: object) -> None:
    if not isinstance(schedule, LearningRateSchedule):
        cure = "For one constant rate take keras.layers.Dropout."
        must_be = "a keras.optimizers.schedules.LearningRateSchedule"
        raise kind_error("ScheduledDropout", "rate_schedule", schedule, must_be, cure)
    for step in _PROBED_STEPS:
        rate = float(ops.convert_to_numpy(schedule(step)))
        if not 0 <= rate < 1:
            must_be = f"a schedule of rates in [0, 1), not {rate:.6g} at step {step}"
            raise argument_error("ScheduledDropout", "rate_schedule", schedule, must_be, "Give fractions to drop.")


def _check_noise_shape(shape: object) -> None:
    if shape is None:
        return
    cure = "For example (None, 1, None) drops whole channels of (batch, length, channels)."
    if not isinstance(shape, list | tuple):
        raise kind_error("ScheduledDropout", "noise_shape", shape, "a tuple of ints and None", cure)
    for size in shape:
        if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 1):
            raise argument_error("ScheduledDropout", "noise_shape", shape, "a tuple of ints from 1 and None", cure)
