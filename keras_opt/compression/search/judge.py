"""What the files of a search are judged by."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_opt.core.errors import argument_error
from keras_opt.export.agreement import metric_value


@dataclass(frozen=True)
class Judge:
    """A metric on the validation data.

    Args:
        data: The validation batches.
        metric: As `metric_value` takes it.
        name: The metric's name.
        lower_is_better: Whether it is an error.
    """

    data: tf.data.Dataset
    metric: Any
    name: str
    lower_is_better: bool

    def value(self, predict: Callable[[Any], np.ndarray]) -> float:
        """The metric of what `predict` makes of all the data."""
        outputs, targets = [], []
        for x, y, *_ in self.data:
            said = predict(keras.tree.map_structure(lambda each: each.numpy(), x))
            outputs += keras.tree.flatten(said)  # the only output, maybe in a dict
            targets.append(y.numpy())
        return metric_value(np.concatenate(outputs), np.concatenate(targets), self.metric)

    def reference(self, model: keras.Model) -> float:
        """The metric of the float model.

        Raises:
            ValueError: The data do not fit the model, or the metric the data.
        """
        try:
            value = self.value(model.predict_on_batch)
        except (ValueError, TypeError, tf.errors.InvalidArgumentError) as error:
            must_be = f"inputs and targets of {model.name!r} that the metric can judge"
            cure = f"{first_line(error)} Give data as the model was trained on, and a metric for such targets."
            raise argument_error("compress", "validation", self.data.element_spec, must_be, cure) from error
        if not np.isfinite(value):
            cure = "Look at the model's predictions: the weights or the data hold values that are not finite."
            raise argument_error("compress", "validation", value, "data for which the metric is a finite number", cure)
        return value

    def drop(self, value: float, reference: float) -> float:
        """By how much `value` is worse than `reference`."""
        return value - reference if self.lower_is_better else reference - value

    @property
    def row(self) -> Any:
        """The inputs of one row."""
        x, *_ = next(iter(self.data))
        return keras.tree.map_structure(lambda each: each.numpy()[:1], x)


def first_line(error: Exception) -> str:
    """What an error says, in one line."""
    return next(iter(str(error).splitlines()), type(error).__name__)
