"""A learning rate from a short training with rising rates, which leaves everything as it was."""

import warnings
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_opt.callbacks.range_test import RangeTest
from keras_opt.callbacks.range_test_result import RangeTestResult, growing_rates
from keras_opt.core.errors import NoEffectWarning, argument_error, check_at_least, check_fraction, check_positive
from keras_opt.core.progress import Progress
from keras_opt.training.step_hooks import StepHooks

_OWNER = "find_learning_rate"


def find_learning_rate(
    model: keras.Model,
    x: Any,
    y: Any = None,
    *,
    batch_size: int | None = None,
    sample_weight: Any = None,
    class_weight: dict[int, float] | None = None,
    min_learning_rate: float = 1e-6,
    max_learning_rate: float = 10.0,
    steps: int = 100,
    smoothing: float = 0.8,
    consume: bool = False,
    verbose: str | int = "auto",
) -> RangeTestResult:
    """Suggests a learning rate: trains for a moment with rates that rise from tiny to huge, and watches the loss.

    Use it before the first training of a new model, data set, batch size or optimizer, where a rate that is ten times
    too low or too high wastes the whole run. The suggestion is the constant rate to start with, or the peak of
    `OneCycle`. It knows nothing of long trainings: look at `.plot()`, and expect the best rate of a long training
    without a schedule to lie lower. Do not use it in the middle of a training, where a loss that is low already has
    nowhere to fall; nor with a loss that differs more from batch to batch than training changes it.

    Update i = 0, 1, ... is made at

        rate(i) = min_learning_rate * (max_learning_rate / min_learning_rate)^(i / (steps - 1))

    until all are made, or a loss is not finite, or the smoothed loss has risen above the mean of the first tenth by
    three times that mean's magnitude. The suggestion is the rate at which four fifths of the fall were done, from that
    mean to the lowest smoothed loss: where Smith's accuracy "slows", and before the lowest loss, where the rate is too
    high already. There is none if the fall is less than one and a half standard deviations of one batch's loss.

    The model is tested as it was compiled, but for `steps_per_execution`, which is 1 meanwhile. Afterwards weights,
    seed states, optimizer (rate, schedule, iterations), metrics, `model.history`, the traced step, and Python's,
    NumPy's and Keras's random generators are what they were, bit for bit; so that a `fit` after it is the `fit` without
    it. If the model or its optimizer is not built yet, it is built, as `fit` would. Data sets of `keras_opt.data` stay
    at their epoch. Another `tf.data` set that shuffles anew in each iteration moves on by the epochs that were begun,
    one if it has more than `steps` batches. A `PyDataset` is read in this thread, without its `on_epoch_end`.

    Args:
        model: A compiled model. Not one with a `MultiOptimizer`, whose parts have rates of their own.
        x: What `fit` takes: a `tf.data.Dataset` of batches, a `PyDataset`, an array or a dict of them; or a generator,
            with `consume=True`.
        y: Targets, if `x` holds arrays.
        batch_size: Int of at least 1, if `x` holds arrays: that of the training to come. Default 32, as in `fit`.
        sample_weight: As in `fit`.
        class_weight: As in `fit`.
        min_learning_rate: Float above 0, the rate of the first update. Default 1e-6.
        max_learning_rate: Float above `min_learning_rate`, the rate of the last update. Default 10.
        steps: Int of at least 10, the updates. Default 100. With `gradient_accumulation_steps` each takes that many
            batches.
        smoothing: Fraction in [0, 1), the momentum of the moving average of the loss. Default 0.8, about five updates.
        consume: Whether a generator may be read, whose batches are then lost to the training.
        verbose: 0 is silent, 2 shows plain lines, `"auto"` and 1 a bar with the time left on a terminal and lines
            elsewhere; on standard error.

    Returns:
        A `RangeTestResult` with `.suggestion`, `.curve` and `.plot()`; print it to read what was seen.

    Raises:
        ValueError: An argument is out of its range, `x` is a generator or has no batch, or the model's step reports no
            loss.
        RuntimeError: Callbacks are attached to the model.

    Warns:
        NoEffectWarning: There is no suggestion; says what was seen.

    Cost: at most `steps` training steps, one trace of the step, and one copy of all variables in the host's memory.

    Source: L. N. Smith, 2017, "Cyclical Learning Rates for Training Neural Networks", section 3.3 (the range test, and
        its upper bound, where the accuracy slows). Rates that grow by a factor, a smoothed loss in place of the
        accuracy, and the fraction of the fall are ours.

    Example:
        >>> import keras, keras_opt, numpy as np
        >>> x = np.random.default_rng(0).normal(size=(256, 3))
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> found = keras_opt.callbacks.find_learning_rate(model, x, x.sum(axis=1), verbose=0)
        >>> 0.01 < found.suggestion < 1
        True
    """
    _check_arguments(batch_size, min_learning_rate, max_learning_rate, steps, smoothing)
    progress = Progress.of(_OWNER, verbose)
    _check_model(model)
    data = _data_of_fit(x, y, batch_size, sample_weight, class_weight, steps, consume)
    rates = growing_rates(min_learning_rate, max_learning_rate, steps)
    with (
        progress.stage("learning rates", steps) as stage,
        RangeTest(model, rates, smoothing, stage) as test,
    ):
        model.fit(**data, verbose=0)
    if not test.batches:
        raise argument_error(_OWNER, "x", x, "data with at least one batch", "It had none.")
    result = RangeTestResult(rates, np.array(test.losses), smoothing)
    if result.suggestion is None:
        warnings.warn(
            f"{_OWNER}: there is no learning rate to suggest: {result.reason}. Draw the curve; check the targets and "
            "the loss, or test other rates, more steps or larger batches.",
            NoEffectWarning,
            stacklevel=2,
        )
    return result


class _InThisThread(keras.utils.PyDataset):
    """The batches of a `PyDataset`, read one by one where `fit` runs; its own epochs go on unchanged."""

    def __init__(self, dataset: keras.utils.PyDataset):
        super().__init__()
        self._dataset = dataset

    @property
    def num_batches(self) -> int | None:
        return self._dataset.num_batches

    def __getitem__(self, index: int) -> Any:
        return self._dataset[index]


def _data_of_fit(
    x: Any, y: Any, batch_size: Any, sample_weight: Any, class_weight: Any, steps: int, consume: bool
) -> dict[str, Any]:
    """The arguments of a `fit` that goes on until it is stopped."""
    data = {"y": y, "batch_size": batch_size, "sample_weight": sample_weight, "class_weight": class_weight}
    data = {name: value for name, value in data.items() if value is not None}
    if isinstance(x, tf.data.Dataset):
        batches = x.fresh_copy() if hasattr(x, "fresh_copy") else x
        return {**data, "x": batches.repeat(), "shuffle": False}
    if isinstance(x, keras.utils.PyDataset):
        return {**data, "x": _InThisThread(x), "epochs": steps}
    if isinstance(x, Iterator):
        if not consume:
            cure = "Its batches would be lost to the training: give consume=True, or a generator made for this."
            raise argument_error(_OWNER, "x", x, "data that can be read again", cure)
        return {**data, "x": x, "shuffle": False}
    return {**data, "x": x, "epochs": steps}


def _check_arguments(
    batch_size: Any, min_learning_rate: Any, max_learning_rate: Any, steps: Any, smoothing: Any
) -> None:
    if batch_size is not None:
        check_at_least(_OWNER, "batch_size", batch_size, 1)
    check_positive(_OWNER, "min_learning_rate", min_learning_rate)
    check_positive(_OWNER, "max_learning_rate", max_learning_rate)
    if max_learning_rate <= min_learning_rate:
        must_be = f"above min_learning_rate={min_learning_rate!r}"
        raise argument_error(_OWNER, "max_learning_rate", max_learning_rate, must_be, "The rates of the test rise.")
    check_at_least(_OWNER, "steps", steps, 10)
    check_fraction(_OWNER, "smoothing", smoothing)


def _check_model(model: Any) -> None:
    if not getattr(model, "compiled", False) or model.optimizer is None:
        cure = "Call model.compile(optimizer, loss) first."
        raise argument_error(_OWNER, "model", model, "a compiled Keras model", cure)
    if hasattr(model.optimizer, "optimizers"):
        cure = "Test each of its optimizers alone, compiled for the whole model."
        raise argument_error(_OWNER, "model", model.optimizer, "compiled with one optimizer, not several", cure)
    hooks = StepHooks.of(model)
    hooks.leave_past_fits()
    if hooks.plugins:
        raise RuntimeError(
            f"{_OWNER}: callbacks are attached to model {model.name!r}, whose state could not be put back. Look for "
            "the rate before you attach them."
        )
