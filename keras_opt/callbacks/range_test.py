"""The steps of a learning-rate range test, and everything put back after them."""

from typing import Any

import keras
import numpy as np

from keras_opt.callbacks.range_test_result import has_diverged
from keras_opt.core.errors import InputError
from keras_opt.core.learning_rates import rate_source, single_optimizers
from keras_opt.core.progress import Stage
from keras_opt.core.random_generators import put_generators_back, state_of_generators
from keras_opt.core.variable_values import put_values_back, values_of
from keras_opt.schedules.scaled_schedule import ScaledSchedule
from keras_opt.training.build import build_without_a_step
from keras_opt.training.layer_states import layer_states

# What a `fit` sets on a model, and this.
_SET_ON_MODEL = ("history", "steps_per_execution", "stop_training", "train_function")


class RangeTest:
    """While it lasts, a `fit` of `model` makes each update at the next of `rates`, and stops when the test is over.

    It stands in for the model's train function, for that alone comes between the data and the first step: only there
    a model that is not built yet can be built and remembered before it has been changed.

    Args:
        model: A compiled model, with one optimizer.
        rates: The rates to try.
        smoothing: The momentum of the moving average that says whether the loss has diverged.
        stage: Shows the progress.
    """

    def __init__(self, model: keras.Model, rates: np.ndarray, smoothing: float, stage: Stage):
        self.losses: list[float] = []
        self.batches = 0
        self._model = model
        self._rates = rates
        self._smoothing = smoothing
        self._stage = stage
        self._optimizer = single_optimizers(model.optimizer)[0]
        self._schedule = rate_source(self._optimizer)
        self._batches_an_update = self._optimizer.gradient_accumulation_steps or 1
        self._values: list[np.ndarray] | None = None

    def __enter__(self) -> "RangeTest":
        self._strategy = self._model.distribute_strategy
        self._generators = state_of_generators()
        self._metrics = self._model.metrics_variables
        self._metric_values = values_of(self._metrics, self._strategy)
        self._attributes = {name: getattr(self._model, name) for name in _SET_ON_MODEL if hasattr(self._model, name)}
        self._model.steps_per_execution = 1
        self._model.make_train_function(force=True)
        self._step = self._model.train_function
        self._model.train_function = self
        return self

    def __exit__(self, *error: object) -> None:
        for name in _SET_ON_MODEL:
            if name in self._attributes:
                setattr(self._model, name, self._attributes[name])
            elif hasattr(self._model, name):
                delattr(self._model, name)
        if self._values is not None:  # else there was no step
            if self._schedule is not None:
                self._optimizer.learning_rate = self._schedule
            put_values_back(self._variables, self._strategy, self._values)
        self._model.reset_metrics()  # also those that were made since
        put_values_back(self._metrics, self._strategy, self._metric_values)
        put_generators_back(self._generators)

    def __call__(self, iterator: Any) -> dict[str, Any]:
        """Make one step with the next batch of `iterator`."""
        if self._values is None:
            self._begin(iterator.element_spec)
        if self.batches % self._batches_an_update == 0:
            self._rate.assign(self._rates[len(self.losses)])
            self._model.reset_metrics()  # so that the loss is that of this update alone
        logs = self._step(iterator)
        self.batches += 1
        if self.batches % self._batches_an_update == 0:
            self._note(logs)
        return logs

    def _begin(self, batch: Any) -> None:
        put_generators_back(self._generators)  # preparing the data may have drawn from them
        build_without_a_step(self._model, batch)
        self._generators = state_of_generators()  # building is to draw from them, as in `fit`
        self._variables = [*self._model.variables, *layer_states(self._model), *self._model.optimizer.variables]
        self._values = values_of(self._variables, self._strategy)
        if self._schedule is None:
            self._rate = self._optimizer.learning_rate
        else:
            with self._strategy.scope():
                stand_in = ScaledSchedule(1.0)
            self._optimizer.learning_rate = stand_in
            self._rate = stand_in.multiplier

    def _note(self, logs: dict[str, Any]) -> None:
        if "loss" not in logs:
            raise InputError(
                f"find_learning_rate: the step of model {self._model.name!r} reports no `loss`, only "
                f"{', '.join(logs) or 'nothing'}. Return it from `train_step`."
            )
        loss = float(keras.ops.convert_to_numpy(logs["loss"]))
        is_finite = bool(np.isfinite(loss))
        if is_finite:
            rate = self._rates[len(self.losses)]
            self.losses.append(loss)
            self._stage.advance(note=f"rate {rate:.1e} loss {loss:.4g}")
        if (
            not is_finite
            or len(self.losses) == len(self._rates)
            or has_diverged(np.array(self.losses), self._smoothing, len(self._rates))
        ):
            self._model.stop_training = True
